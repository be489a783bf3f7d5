"""The rules that the data plane has of each endpoint: all of them, some changed, or narrowed to what those in force and
those to come both allow, for as long as routes and firewall may be those of either."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from cvpnd.config import EndpointConfig
from cvpnd.dataplane.api import DataPlane
from cvpnd.policy.compile import compile_prefixes, compile_rules
from cvpnd.policy.model import IPNetwork, Rule
from cvpnd.policy.routes import endpoint_rules
from cvpnd.policy.rule_table import RuleTable
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.session_table import SessionTable
from cvpnd.store import Store

MANY_PREFIXES = 100
"""From here on rules are compiled beside the event loop."""


def rules_of(endpoint: EndpointConfig, store: Store) -> RuleTable:
    """Those of the file before those of the store. For a thread. Raises ``StoreError``."""
    of_store = (Rule(r.network, r.group, r.description, "store") for r in store.rules(endpoint.id))
    return RuleTable([*endpoint_rules(endpoint), *of_store])


class RulesInForce:
    """Owned by the gateway, and changed as it is: by one task at a time."""

    def __init__(self, plane: DataPlane, connections: SessionTable) -> None:
        self._plane, self._connections = plane, connections

    async def put_all(self, served: ServedEndpoint, rules: RuleTable) -> None:
        """Once routes and firewall are those that belong to them. Whoever is cancelled in here has changed nothing."""
        table = await asyncio.to_thread(compile_rules, rules, served.groups)
        served.set_rules(self._plane, rules, self._connections, table)

    async def narrow(self, served: ServedEndpoint, coming: RuleTable) -> None:
        """To what is in force and those to come both allow."""
        narrower = await asyncio.to_thread(served.narrower, coming)
        served.narrow_rules(self._plane, self._connections, narrower)

    async def put(self, served: ServedEndpoint, rules: RuleTable) -> None:
        """As far as the endpoint is not narrowed: by a change that could be neither made nor taken back, and then what
        they would give has to wait for ``Gateway.come_back``."""
        if served.narrowed_to is None:
            await self.put_all(served, rules)
            return
        await self.narrow(served, rules)
        served.rules = rules

    async def put_changed(self, served: ServedEndpoint, rules: RuleTable, prefixes: Collection[IPNetwork]) -> None:
        """The same, where ``rules`` differ from those in force on these prefixes only."""
        if served.narrowed_to is not None:
            await self.put(served, rules)
            return
        if len(prefixes) > MANY_PREFIXES:
            changes = await asyncio.to_thread(compile_prefixes, rules, prefixes, served.groups)
        else:
            changes = compile_prefixes(rules, prefixes, served.groups)
        served.change_rules(self._plane, rules, self._connections, changes)
