"""``cvpn-connect``: single sign-on for people with a stock openvpn program, on Linux and macOS.

openvpn runs with the profile as it is, and speaks to us through its management interface, as it would to a graphical
client (``management.py``: what it says, and what we answer). Our gateways send the browser a page of theirs and let the
waiting connection in. Endpoints that know AWS's way only send it to the identity provider itself, which answers to
127.0.0.1:35001 (``callback.py``); a stock openvpn cannot be handed that, which people hear before they log in.
Standard library only.
"""
