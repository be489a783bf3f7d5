"""All checks, in the order in which their findings make sense."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cvpnd.doctor import disks, firewalls, host, logins, names, reach, state, trust, ways
from cvpnd.doctor.facts import Facts, gather
from cvpnd.doctor.findings import Finding, warning

CHECKS: tuple[tuple[str, Callable[[Facts], Iterator[Finding]]], ...] = (
    ("daemon", trust.daemon),
    ("configuration", trust.configuration),
    ("certificates", trust.certificates),
    ("keys", trust.key_files),
    ("clock", trust.clock),
    ("tun", host.tun_device),
    ("programs", host.programs),
    ("interfaces", host.interfaces),
    ("addresses", ways.overlaps),
    ("forwarding", ways.forwarding),
    ("kernel", firewalls.kernel),
    ("firewall", firewalls.firewalls),
    ("ports", host.ports),
    ("buffers", host.buffers),
    ("mtu", host.mtu),
    ("conntrack", host.connection_tracking),
    ("disk", disks.disks),
    ("state", state.state),
    ("dns", names.names),
    ("dns", names.resolvers),
    ("directories", logins.directories),
    ("radius", logins.radius),
    ("saml", logins.identity_providers),
    ("handlers", logins.connect_handlers),
    ("portal", logins.portal),
    ("syslog", reach.syslog),
)


def diagnose(config_path: Path, daemon: Mapping[str, Any] | None) -> list[Finding]:
    """Every problem and warning, and "ok" for each check without one. ``daemon``: its ``/v1/status``."""
    logging.getLogger("cvpnd").addHandler(logging.NullHandler())  # what is logged on the way is in the findings
    facts = gather(config_path, daemon)
    found: dict[str, list[Finding]] = {}
    for name, check in CHECKS:
        found.setdefault(name, [])
        try:
            for finding in dict.fromkeys(check(facts)):
                found.setdefault(finding.check, []).append(finding)
        except Exception as error:  # one check that stumbles must not hide what the others find
            found[name].append(warning(name, f"cannot be looked at: {error}", "run cvpnctl doctor as root"))
    return [finding for name, findings in found.items() for finding in findings or [Finding(name, "ok")]]
