"""What an administrator sees of a host, in the namespace of the calling thread, to be compared before and after."""

from __future__ import annotations

import subprocess
from pathlib import Path

SETTINGS = ("forwarding", "force_forwarding", "rp_filter", "accept_ra", "disable_ipv6", "addr_gen_mode")


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ip(command: str) -> str:
    """``ip`` with the words of ``command``."""
    return output_of("ip", *command.split())


def host_state() -> dict[str, str]:
    """All that a gateway could have changed: nftables, rules, routes, links, settings."""
    state = {"nft": output_of("nft", "list", "ruleset")}
    for family in ("-4", "-6"):
        state[f"rules {family}"] = ip(f"{family} rule")
        routes = ip(f"{family} route show table all").splitlines()
        state[f"routes {family}"] = "\n".join(sorted(route for route in routes if not _comes_and_goes(route)))
    state["links"] = "\n".join(line.split()[1] for line in ip("-o link").splitlines())
    for path in sorted(Path("/proc/sys/net").glob("ipv[46]/conf/*/*")):
        if path.name in SETTINGS:
            state[str(path)] = path.read_text().strip()
    return state


def unordered(state: dict[str, str]) -> dict[str, list[str]]:
    """Rules of one priority are in the order in which they were added."""
    return {key: sorted(text.splitlines()) for key, text in state.items()}


def _comes_and_goes(route: str) -> bool:
    """Link-local, multicast and anycast routes: the kernel's own doing while links settle."""
    return any(word.startswith(("fe80", "ff00", "anycast")) for word in route.split()[:2])
