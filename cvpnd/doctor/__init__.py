"""What is wrong with this host as a gateway, and the fix: ``cvpnctl doctor``. Looks, and changes nothing.

    findings.py      what a check says
    facts.py         what checks look at: the file, the daemon's answers, interfaces
    host.py          kernel, interfaces, buffers, ports, open files
    ways.py          addresses and routes of others, forwarding, where the kernel sends packets
    interference.py  IPsec, filters of the way back, queues
    firewalls.py     what the kernel has, our own table, and other firewalls
    trust.py         configuration, certificates, keys, the clock
    names.py         names in profiles, resolvers
    logins.py        directories, RADIUS servers, identity providers, the portal
    reach.py         servers elsewhere, among them syslog's
    disks.py         where the daemon writes
    diagnosis.py     all checks, in order
    bundle.py        the same and more as an archive without secrets

It runs beside the daemon, or where that does not start; every check says what it has seen, none raises."""
