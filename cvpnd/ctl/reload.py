"""``cvpnctl reload``"""

from __future__ import annotations

import json

from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import print_facts, print_json


def reload(socket: SocketOption, as_json: JsonOption = False) -> None:
    """Read the configuration again. If it has a mistake, the old one stays in force."""
    outcome = Client(socket).post("/reload")["reload"]
    if as_json:
        print_json(outcome)
        return
    facts = [(name.replace("_", " "), value) for name, value in outcome.items()]
    print_facts(
        [
            ("reloaded", "yes"),
            *((name, value if isinstance(value, str) else json.dumps(value)) for name, value in facts),
        ]
    )
