"""All checks, in the order in which their findings make sense."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvpnd.doctor import disks, firewalls, host, interference, logins, names, reach, state, trust, ways
from cvpnd.doctor.facts import Facts, gather, is_root
from cvpnd.doctor.findings import Finding, warning


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    look: Callable[[Facts], Iterator[Finding]]
    needs_file: bool = False
    needs_root: bool = False

    def findings(self, facts: Facts) -> Iterator[Finding]:
        if self.needs_file and facts.config is None:
            yield Finding(self.name, "unknown", "the file cannot be used", "correct it first")
        elif self.needs_root and not is_root():
            yield Finding(self.name, "unknown", "only root may", "run cvpnctl doctor with sudo")
        else:
            yield from self.look(facts)


CHECKS = (
    Check("daemon", trust.daemon),
    Check("configuration", trust.configuration),
    Check("certificates", trust.certificates, needs_file=True),
    Check("keys", trust.key_files),
    Check("clock", trust.clock),
    Check("tun", host.tun_device),
    Check("programs", host.programs),
    Check("interfaces", host.interfaces, needs_file=True),
    Check("interfaces", host.outside, needs_file=True),
    Check("addresses", ways.overlaps, needs_file=True),
    Check("forwarding", ways.forwarding, needs_file=True),
    Check("ipsec", interference.ipsec, needs_file=True, needs_root=True),
    Check("rp_filter", interference.ways_back, needs_file=True),
    Check("kernel", firewalls.kernel, needs_root=True),
    Check("firewall", firewalls.firewalls, needs_file=True, needs_root=True),
    Check("ports", host.ports, needs_file=True),
    Check("files", host.open_files, needs_root=True),
    Check("buffers", host.buffers, needs_file=True),
    Check("buffers", interference.queues, needs_file=True),
    Check("mtu", host.mtu, needs_file=True),
    Check("conntrack", host.connection_tracking),
    Check("disk", disks.disks, needs_file=True),
    Check("state", state.state, needs_file=True),
    Check("dns", names.names, needs_file=True),
    Check("dns", names.resolvers, needs_file=True),
    Check("directories", logins.directories, needs_file=True),
    Check("radius", logins.radius, needs_file=True),
    Check("saml", logins.identity_providers, needs_file=True),
    Check("handlers", logins.connect_handlers, needs_file=True),
    Check("portal", logins.portal, needs_file=True),
    Check("syslog", reach.syslog, needs_file=True),
)


def diagnose(config_path: Path, daemon: Mapping[str, Any] | None) -> list[Finding]:
    """Every problem and warning, "unknown" for each check that could not look, and "ok" for each other one without one.
    ``daemon``: its ``/v1/status``."""
    logging.getLogger("cvpnd").addHandler(logging.NullHandler())  # what is logged on the way is in the findings
    facts = gather(config_path, daemon)
    found: dict[str, list[Finding]] = {}
    for check in CHECKS:
        found.setdefault(check.name, [])
        try:
            for finding in dict.fromkeys(check.findings(facts)):
                found.setdefault(finding.check, []).append(finding)
        except Exception as error:  # one check that stumbles must not hide what the others find
            what = f"cannot be looked at: {error}"
            found[check.name].append(warning(check.name, what, "run cvpnctl doctor as root"))
    return [each for name, findings in found.items() for each in dict.fromkeys(findings) or [Finding(name, "ok")]]
