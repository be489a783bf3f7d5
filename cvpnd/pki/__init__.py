"""A small certificate authority in a directory, for those who have none.

    DIR/ca.crt            the authority; ca.key (0600) its key
    DIR/server.crt, .key  the gateway's own certificate
    DIR/issued/NAME.crt   each client certificate; NAME.SERIAL.crt the earlier ones of the same name
    DIR/crl.pem           who is revoked

There is no database beside these files: what was issued is `issued/`, what was revoked is `crl.pem`. A client's private
key is handed out once and kept nowhere. `authority.py` opens and makes the directory, `index.py` reads what
there is, `issue.py` signs certificates, `revocation.py` the CRL, `files.py` writes without ever leaving half a file."""
