"""A small OpenVPN client of our own, many to a process, for tests and benchmarks.

``protocol.py`` is sans-IO and reuses ``cvpnd.wire``; ``driver.py`` gives it sockets; ``__main__.py`` a command line:
``python -m light_client --remote 10.0.0.1:1194 --count 200 --ping 10.20.0.2 --cert … --key … --ca …``
"""
