"""Which parts of the kernel's netfilter we need and this kernel does not have. nft says of one only that something is
not there, so each is tried by itself, without a change: the kernel loads a module that it has when it is asked for."""

from __future__ import annotations

import contextlib

from cvpnd.host import nft
from cvpnd.host.errors import HostError

_PLACE = """add table inet cvpnd_probe
add counter inet cvpnd_probe seen
add chain inet cvpnd_probe clients {{ type {kind} hook {hook} priority 0 ; }}
add rule inet cvpnd_probe clients {rule}
"""
NFTABLES = {
    "nf_tables": ("filter", "forward", "accept"),
    "nft_objref": ("filter", "forward", "counter name seen"),
    "nft_ct": ("filter", "forward", "ct state established accept"),
    "nft_connlimit": ("filter", "forward", "ct count over 1 drop"),
    "nft_chain_nat": ("nat", "postrouting", "accept"),
    "nft_masq": ("nat", "postrouting", "masquerade"),
}
"""By module: the kind of chain and its hook, and a rule that is nothing without it."""
_NOT_THERE = ("No such file or directory", "not supported", "Invalid argument")
"""What the kernel says then."""


async def missing() -> list[str]:
    """Modules; of what needs nftables itself, only that."""
    found = []
    for module, (kind, hook, rule) in NFTABLES.items():
        try:
            await nft.run(_PLACE.format(kind=kind, hook=hook, rule=rule), "-c", "-f", "-")
        except HostError as error:
            if not _is_not_there(error):
                raise
            found.append(module)
        if found == ["nf_tables"]:
            break
    return found


async def explain(error: HostError) -> HostError:
    """With what is missing, if that may be why."""
    modules: list[str] = []
    if _is_not_there(error):
        with contextlib.suppress(HostError):
            modules = await missing()
    return HostError("\n".join([str(error), *(f"{lack(module)}: {fix(module)}" for module in modules)]))


def lack(module: str) -> str:
    return f"this kernel does not have {module}"


def fix(module: str) -> str:
    return (
        f"modprobe {module}, of a container on its host; where that fails, install the package with the rest of the "
        "kernel's modules (linux-modules-extra-…, kernel-modules-extra)"
    )


def _is_not_there(error: HostError) -> bool:
    return any(words in str(error) for words in _NOT_THERE)
