"""``[[vpc]]`` and ``[[subnet]]`` of a configuration."""

from __future__ import annotations

import json


def vpc(name: str, *cidrs: str) -> str:
    return f'[[vpc]]\nid = "{name}"\ncidr = {json.dumps(cidrs)}\n'


def subnet(name: str, of: str, cidr: str, interface: str, **more: str) -> str:
    """``more``: such as its ``zone``."""
    keys = {"id": name, "vpc": of, "cidr": cidr, "interface": interface, **more}
    return "[[subnet]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())
