"""Authorization rules: who may reach which network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Literal

from pyroute2 import IPRoute

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.config import LOCAL_DIRECTORY, EgressConfig
from cvpnd.endpoints import views
from cvpnd.endpoints.model import Explanation, OperationError, RuleView
from cvpnd.endpoints.operations import OperationsBase, network, one_line
from cvpnd.endpoints.rules_in_force import MANY_PREFIXES
from cvpnd.policy.compile import admits, group_bits
from cvpnd.policy.decide import Decision, best_route, decide
from cvpnd.policy.model import IPAddress, IPNetwork, Route, Rule
from cvpnd.policy.rule_table import RuleTable
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.store import StoredRule


class RuleOperations(OperationsBase):
    async def list_rules(self, endpoint: str | None = None) -> list[RuleView]:
        return [
            self._as_now(views.rule_view(e, rule), e.id, str(rule.network), rule.group)
            for e in self._chosen(endpoint)
            for rule in e.rules
        ]

    async def authorize(self, endpoint: str, destination: str, group: str | None, description: str) -> RuleView:
        """In force for live sessions when this returns."""
        (view,) = await self.authorize_all(endpoint, [(destination, group, description)])
        return view

    async def authorize_all(self, endpoint: str, wanted: Sequence[tuple[str, str | None, str]]) -> list[RuleView]:
        """Network, group (None: everybody) and description of each. All of them, or none."""
        async with self._change() as change:
            served = self._endpoint(endpoint)
            if served.narrowed_to is not None:
                raise OperationError(
                    "IncorrectState",
                    f"{served.settings.name}: a change could be neither made nor taken back, and until it can no rule "
                    "comes in force; 'cvpnctl status' says what is in its way",
                )
            new = [
                Rule(network(destination), group, one_line("the description", description), "store")
                for destination, group, description in wanted
            ]
            for rule in new:
                if rule.group is not None and not one_line("the group", rule.group):
                    raise OperationError("InvalidParameterValue", "the group has no name")
            self._check_new(served, new)
            before = served.rules
            after = await _beside(len(new), before.with_rules, new)
            now = time.time()
            rows = [StoredRule(served.id, rule.network, rule.group, rule.description, now) for rule in new]
            await self._store(self._stored.add_rules, rows)
            change.undo(partial(self._gateway.rules.put, served, before))
            await self._gateway.rules.put_changed(served, after, {rule.network for rule in new})
            return [views.rule_view(served, rule) for rule in new]

    def _check_new(self, served: ServedEndpoint, new: Sequence[Rule]) -> None:
        taken: set[tuple[IPNetwork, str | None]] = set()
        for rule in new:
            if (rule.network, rule.group) in taken or served.rules.find(rule.network, rule.group) is not None:
                raise OperationError(
                    "InvalidClientVpnDuplicateAuthorizationRule",
                    f"{served.settings.name} has this rule for {rule.network} already",
                )
            taken.add((rule.network, rule.group))
        quota = self._gateway.config.quotas.rules
        if served.rules.stored + len(new) > quota:
            raise OperationError(
                "ClientVpnAuthorizationRuleLimitExceeded",
                f"{served.settings.name} may have {quota} rules; raise quotas.rules in {self._gateway.config.path}",
            )

    async def revoke(self, endpoint: str, destination: str, group: str | None) -> RuleView:
        """Out of force for live sessions when this returns."""
        async with self._change() as change:
            served = self._endpoint(endpoint)
            prefix = network(destination)
            before, rule = served.rules, served.rules.find(prefix, group)
            if rule is None:
                raise OperationError(
                    "InvalidClientVpnEndpointAuthorizationRuleNotFound",
                    f"{served.settings.name} has no rule for {prefix} and {_whom(group)}; see 'cvpnctl rule list'",
                )
            if rule.origin == "file":
                raise OperationError(
                    "IncorrectState", f"this rule belongs to {self._gateway.config.path}; remove it there and reload"
                )
            with self._shown_as("revoking", served.id, str(prefix), group):
                await self._store(self._stored.remove_rule, served.id, prefix, group)
                change.undo(partial(self._gateway.rules.put, served, before))
                await self._gateway.rules.put_changed(served, before.without(rule), [prefix])
            return views.rule_view(served, rule)

    async def explain(self, who: str, destination: str, endpoint: str | None, groups: tuple[str, ...]) -> Explanation:
        """Whether ``who`` (a user or certificate name) may reach ``destination``, and why. Without ``groups``, those of
        the user's live session count, else of the local user, or none. Who is not connected is only known here where
        users live here; of others the answer is what they reach once somebody else has let them in."""
        served = self._only_endpoint(endpoint)
        try:
            address = ip_address(destination)
        except ValueError:
            raise OperationError(
                "InvalidParameterValue", f"{destination} is not an IP address; resolve names before asking"
            ) from None
        live = self._groups_of_session(served, who)
        account = self._local_account(served, who) if live is None else None
        if not groups:
            groups = tuple(sorted(live or (account.groups if isinstance(account, Account) else ())))
        decision = decide(served.rules, groups, address)
        route = best_route(served.routes, address)
        let_through = self._let_through(served, address)
        settings = served.settings
        answers = address in [cidr[1] for cidr in (settings.client_cidr, settings.client_cidr_v6) if cidr is not None]
        ours = await asyncio.to_thread(_is_of_this_host, address)
        arrives = answers or (let_through != () and route is not None and not ours)
        narrowed_to, bits = served.narrowed_to, group_bits(groups, served.groups)
        waits = decision.allowed and narrowed_to is not None and not admits(narrowed_to, bits, address)
        return Explanation(
            allowed=decision.allowed and arrives and not waits and not isinstance(account, Refused),
            endpoint_id=served.id,
            destination=destination,
            groups=groups,
            rule=views.rule_view(served, decision.rule) if decision.rule is not None else None,
            deciding_groups=decision.deciding_groups,
            route=views.route_view(served, route) if route is not None else None,
            sentence=f"{who} may not reach {destination}: {account.detail}."
            if isinstance(account, Refused)
            else _sentence(
                who if live is not None else f"{who} is not connected; whoever logs in by that name",
                destination,
                decision,
                route,
                let_through,
                "waits" if waits else "answers" if answers else "kept back" if ours else "",
            ),
            connected=live is not None,
            let_through=let_through,
        )

    def _groups_of_session(self, served: ServedEndpoint, who: str) -> frozenset[str] | None:
        """None: nobody of that name is connected."""
        for connection in self._gateway.control.table:
            identity = connection.identity
            if connection.endpoint is served and identity and who in (identity.username, identity.common_name):
                return identity.groups
        return None

    def _local_account(self, served: ServedEndpoint, who: str) -> Account | Refused | None:
        """None: its users do not live here."""
        method = served.settings.user_method
        if method is None or method.directory != LOCAL_DIRECTORY:
            return None
        return self._gateway.accounts.local_account(who)

    def _let_through(self, served: ServedEndpoint, address: IPAddress) -> tuple[str, ...] | None:
        egress = self._gateway.config.egress_of(served.settings)
        return None if egress is None else tuple(_spell(each) for each in egress if address in each.network)


async def _beside(size: int, make: Callable[[Sequence[Rule]], RuleTable], rules: Sequence[Rule]) -> RuleTable:
    """In a thread if there is much to do."""
    return await asyncio.to_thread(make, rules) if size > MANY_PREFIXES else make(rules)


def _is_of_this_host(address: IPAddress) -> bool:
    """What the gateway's firewall keeps from clients, whatever rules say. Blocks."""
    # strict: the kernel leaves out the other family
    with IPRoute(strict_check=True) as netlink:
        found = netlink.get_addr(family=AF_INET if address.version == 4 else AF_INET6)
        return any(str(address) == (each.get("IFA_LOCAL") or each.get("IFA_ADDRESS")) for each in found)


def _whom(group: str | None) -> str:
    return "all users" if group is None else f"group {group}"


def _spell(egress: EgressConfig) -> str:
    protocol = "" if egress.protocol == "all" else f"{egress.protocol}/"
    return f"{protocol}{egress.network}" + (f":{egress.ports}" if egress.ports else "")


def _sentence(
    who: str,
    destination: str,
    decision: Decision,
    route: Route | None,
    let_through: tuple[str, ...] | None,
    but: Literal["", "waits", "answers", "kept back"],
) -> str:
    rule = decision.rule
    if rule is None:
        return f"{who} may not reach {destination}: no authorization rule covers it."
    if not decision.allowed:
        named = ", ".join(_whom(r.group) for r in decision.rules_on_prefix)
        return f"{who} may not reach {destination}: the longest match {rule.network} allows only {named}."
    if but == "waits":
        return (
            f"{who} may not reach {destination} yet: a rule allows it, but not all are in force; see 'cvpnctl status'."
        )
    if but == "answers":
        return f"{who} may reach {destination}: it is the endpoint's own address, which answers pings."
    if let_through == ():
        return f"{who} may not reach {destination}: a rule allows it, but the endpoint's security groups keep it back."
    if route is None:
        return f"{who} may not reach {destination}: the rule for {rule.network} allows it, but no route leads there."
    if but:
        return f"{who} may not reach {destination}: a rule allows it, but it is the gateway's own address."
    return (
        f"{who} may reach {destination}: the rule for {rule.network} allows {_whom(rule.group)}, "
        f"and the route {route.destination} leads to {route.target}."
    )
