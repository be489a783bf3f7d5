"""``cvpnctl``: the daemon's operations for people and scripts, one file per noun.

It speaks ``/v1`` over the admin socket and knows nothing of the daemon's inside. It must start fast: a noun's file is
read when the noun is typed (``nouns.py``), and what is heavy when it is needed. Exit codes: 0 done (and for
``explain``: allowed), 1 refused by the daemon (and for ``explain``: denied), 2 used wrongly, 3 the daemon cannot be
reached.
"""
