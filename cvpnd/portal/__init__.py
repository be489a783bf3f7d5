"""The pages on which a person logs in while their client waits (openvpn-wire.md 15.3).

1. ``server/web_login.py`` offers a login and sends the client its link, ``/saml/login/SECRET``.
2. The browser that opens it gets a cookie and is sent to the identity provider.
3. That sends it back with an assertion, by a form to ``/saml/acs``. ``auth/saml`` looks at it; the browser gets a
   ticket.
4. ``/saml/consent/TICKET``, with the cookie, shows device, address and account.
5. The answer to that ends the wait: the client is let in, or told no.

Beside that, for whoever comes without a client: ``self_service.py``, where people log in with name, password and code,
or at the identity provider (``sign_on.py``), and download a profile.

``auth/web_logins.py`` holds what has happened in each login, and who may go on; here is only what HTTP and HTML need.
Without a script, a frame, or a resource from elsewhere; what a page shows was escaped by Jinja2.
"""
