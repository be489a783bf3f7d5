"""Client connect handlers: the operator's own say on whether an authenticated client may connect.

    desk.py         who is asked when: so many at once, so many that wait, and no longer than 30 seconds
    schema.py       what is asked and what may be answered: AWS's request and response, version v3
    executable.py   a program, with the request on its standard input
    web.py          an HTTP(S) server, to which the request is posted
    python.py       a function in this process, in a thread of its own
    trusted_path.py whether others could change what is run
    opening.py      from ``[[handler]]`` to one of the three

Anything but a valid answer that allows it keeps the client out, with one of AWS's reasons (``Refusal``).
"""
