"""What the gateway changes on its host, and how each change is undone.

    plan.py       what is wanted: endpoints, associations, routes, ports; pure data
    tun.py        one multi-queue TUN device per endpoint; the data plane gets duplicates of its descriptors
    links.py      the device's MTU, queue length and addresses; which interfaces exist
    routes.py     a routing table per endpoint, selected by `iif` its TUN; reconciled with what the kernel has
    sysctl.py     forwarding and rp_filter per interface, with the previous values on disk
    firewall.py   the nftables table `inet cvpnd`: who may open connections, SNAT, anti-spoofing
    gateway.py    HostGateway ties them: up, update, down

Everything is made by comparing what is wanted with what there is, and carries a mark of ours: routes and rules a
protocol number, nftables a table of its own, sysctls a record of what was there before. So start, reload, repair after
a kill -9 and removal are one operation with different wishes, and what is not ours is never touched.
"""
