"""What a client may do and is given: pure functions and plain tables, no IO, no clock.

Who logged in is an ``Identity`` (``model``). It gets an address from the endpoint's ``LeasePool`` (``leases``), the
options of ``push``, and the segment sizes of ``mtu``. The endpoint's rules go through ``compile`` into the table that
the data plane reads; ``decide`` is the same decision in plain words, for ``explain`` and as the specification.
``routes`` are the endpoint's: what its associations bring along and what the file adds."""
