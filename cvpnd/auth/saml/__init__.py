"""Logins at an identity provider by SAML 2.0, the browser's part (openvpn-wire.md section 17).

``SamlProvider`` makes the request that a browser takes to the identity provider, and says of a response whom it lets in
or why nobody. What strangers send passes in this order, and nothing of it is used before all have said yes:

- ``document.py``: one parser, no DTD, no comments; what it read, written anew, is all that anybody looks at from there
- ``signature.py``: xmlsec1, with the keys of the metadata and no others, of the response and of the assertion in it
- ``claims.py``: whom the signed assertion is about, for whom, when, and in answer to what
- ``opinion.py``: pysaml2, which looks at all of it once more by its own lights

``metadata.py`` is what is known of an identity provider, ``keeper.py`` where it comes from, ``state.py`` what a client
of AWS's kind carries from its first connection to its second, ``quoting.py`` the encoding around all that comes.
``logins.py`` is the way in from the event loop."""
