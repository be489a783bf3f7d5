"""The control channel of one OpenVPN client, without sockets and without a clock. Facts: openvpn-wire.md.

The journey of a packet, from the network to an event:

1. ``stream.py`` cuts a TCP stream into packets; a UDP datagram is one already.
2. ``stateless.py`` answers strangers on UDP with a cookie (``reset_cookie.py``) and keeps nothing. The packet that
   echoes it makes a ``Session``; on TCP the first packet does.
3. ``channel.py`` unwraps (``wrap/``, ``packet.py``), acknowledges and puts payloads in order (``reliable.py``); what
   runs is in C, and these are its specification.
4. ``session.py`` takes them, by key id, to a key state (``key_slots.py``: which there are, and how one follows
   another; ``key_maker.py``: how one begins; ``before_login.py``: how much a stranger may bring until then).
5. ``tls.py`` turns them into records, with the work in C; ``reader.py`` reads these: first the key method 2 message
   (``key_method.py``), later text (``messages.py``).
6. ``key_state.py`` holds the states, ``agreement.py`` what was said and agreed on, ``negotiation.py`` the choice of
   cipher, ``key_material.py`` makes the data keys.
7. ``events.py`` is what comes out: ``CredentialsReceived``, ``KeysReady``, ``SessionClosed`` …

And back: ``accept`` or ``refuse`` queue text (``outbox.py``), TLS makes records of it, ``channel.py`` packets;
``packets_to_send`` returns them. ``patience.py`` is how long a client waits for its login, ``ending.py`` how a session
ends, and what went wrong has a name in ``errors.py``.
"""
