"""``[[vpc]]``, ``[[subnet]]`` and further ``[[endpoint]]`` tables of a configuration."""

from __future__ import annotations

import json


def vpc(name: str, *cidrs: str) -> str:
    return f'[[vpc]]\nid = "{name}"\ncidr = {json.dumps(cidrs)}\n'


def subnet(name: str, of: str, cidr: str, interface: str, **more: str) -> str:
    """``more``: such as its ``zone``."""
    keys = {"id": name, "vpc": of, "cidr": cidr, "interface": interface, **more}
    return "[[subnet]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


def endpoint(name: str, number: int, method: str, *more: str) -> str:
    """Beside a lab's first: the number is in its client CIDR and its UDP port. ``more``: lines."""
    lines = [
        f'name = "{name}"',
        f'client_cidr = "10.{number}.0.0/22"',
        f'listen = ["udp://0.0.0.0:{number}"]',
        'server_certificate = { certificate = "server.crt", private_key = "server.key", chain = "ca.crt" }',
        f"authentication = [{{ {method} }}]",
        *more,
    ]
    return "[[endpoint]]\n" + "".join(f"{line}\n" for line in lines)
