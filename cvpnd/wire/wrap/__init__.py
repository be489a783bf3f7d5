"""The protection around control packets (openvpn-wire.md section 6).

A ``Wrapping`` (``wrapping.py``) is a key and the format it is used in: it seals and opens packets and has no memory, so
all clients of an endpoint share one. ``plain.py``, ``tls_auth.py``, ``tls_crypt.py`` and ``tls_crypt_v2.py`` are the
four there are; dynamic tls-crypt is ``tls_crypt.py`` with a key that both sides export from TLS. ``session_wrap.py``
adds what belongs to one session: the counter of packets sent and, from ``replay.py``, the window of those received.

``protection.py`` is all that an endpoint accepts, told apart by the opcode. ``key_files.py`` reads and writes the key
files of OpenVPN, ``client_key.py`` what we write into a tls-crypt-v2 client key to know it again.
"""
