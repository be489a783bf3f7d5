"""What is about to go says so for as long as it takes, whoever looks at it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.rules import RuleOperations
from cvpnd.policy.model import Rule
from cvpnd.policy.rule_table import RuleTable
from cvpnd.store import Store, StoredRule

NETWORK = IPv4Network("10.20.0.0/16")


@dataclass
class SlowGateway:
    """One endpoint whose rules are changed only once somebody lets it happen."""

    store: Store
    served: Any
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    @property
    def endpoints(self) -> list[Any]:
        return [self.served]

    @property
    def rules(self) -> SlowGateway:
        return self

    async def put_changed(self, served: Any, rules: RuleTable, _prefixes: Any) -> None:
        await self.put(served, rules)

    async def put(self, served: Any, rules: RuleTable) -> None:
        self.asked.set()
        await self.go_on.wait()
        if self.fails and len(rules) == 0:
            raise OperationError("InvalidParameterValue", "planted")
        served.rules = rules


async def test_a_rule_that_is_being_revoked_says_so_and_is_active_again_if_that_fails(tmp_path: Path) -> None:
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        store.add_rules([StoredRule("e", NETWORK, "eng", "", 0.0)])
        rules = RuleTable([Rule(NETWORK, "eng", "", "store")])
        gateway = SlowGateway(store, SimpleNamespace(id="e", settings=SimpleNamespace(name="lab"), rules=rules))
        operations = RuleOperations(gateway)

        async def states() -> list[str]:
            return [rule.status for rule in await operations.list_rules()]

        assert await states() == ["active"]
        gateway.fails = True
        revoking = asyncio.create_task(operations.revoke("lab", "10.20.0.0/16", "eng"))
        await asyncio.wait_for(gateway.asked.wait(), 5)
        assert await states() == ["revoking"]
        gateway.go_on.set()
        with pytest.raises(OperationError, match="planted"):
            await revoking
        assert await states() == ["active"] and len(store.rules()) == 1
        gateway.fails = False
        await operations.revoke("lab", "10.20.0.0/16", "eng")
        assert await states() == [] and store.rules() == []
