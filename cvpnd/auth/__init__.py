"""Who is there: one file per login method.

certificate.py   what an endpoint trusts (`CertificateTrust`), the verdict on a client certificate
context.py       the TLS context of an endpoint
alerts.py        the TLS alert that a refused client sees
crl.py           revocation lists, parsed once
identity.py      the name in a certificate
files.py         the certificate files and their problems by name
watch.py         notices that files changed; `TrustKeeper` reloads them and keeps the old state on failure"""
