"""Who is there: one file per login method.

certificate.py   what an endpoint trusts (`CertificateTrust`), the verdict on a client certificate
context.py       the TLS context of an endpoint
verify_callback.py OpenSSL asks about each certificate, and chooses the TLS alert
crl.py           revocation lists, parsed once
identity.py      the name in a certificate
files.py         the certificate files and their problems by name
directory.py     what a login needs of a directory
local_users.py   the directory made of `[[local_users]]` and of users added at run time
passwords.py     their hashes
logins.py        passwords against directories, off the event loop, bounded and equal in time (`UserLogins`)
throttle.py      slows down who guesses passwords
health.py        which servers failed lately, and how long answers take
challenge.py     questions that go with the password, and how clients answer them
totp.py          codes of an authenticator app
radius_codes.py  codes that RADIUS servers judge, and the questions that they put
radius.py        those servers: requests, verified answers, the next one where one is down
tokens.py        what a client shows instead of a password once that was right
watch.py         notices that files changed; `TrustKeeper` reloads them and keeps the old state on failure"""
