"""HostGateway: one plan in, one host set up; and everything taken back.

Order matters. Up: firewall, devices, forwarding, routes, so that nothing is forwarded before something judges it.
Down: the other way round. A killed predecessor's leftovers (routes, rules, table, changed settings) are replaced by the
same steps, since each compares what is wanted with what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pyroute2 import AsyncIPRoute

from cvpnd.host import firewall, foreign, links, routes, sysctl, watch
from cvpnd.host.claim import Claim
from cvpnd.host.errors import HostError
from cvpnd.host.netlink import netlink_socket
from cvpnd.host.nft import NftHangsError
from cvpnd.host.notices import SETTLE_S, Notices
from cvpnd.host.patience import Patience
from cvpnd.host.plan import Association, Egress, EndpointPlan, ExtraRoute, HostPlan, IPAddress, IPNetwork, Subnet
from cvpnd.host.tun import Offload, Tun, open_tun
from cvpnd.host.watch import Touched

__all__ = [
    "Association", "Egress", "EndpointPlan", "ExtraRoute", "HostChange", "HostError", "HostGateway", "HostPlan",
    "Subnet",
]  # fmt: skip

SETTINGS = "host-sysctl.json"
"""Below the runtime directory."""
FIREWALL_SETTLE_S, FIREWALL_AGAIN_S = 0.02, 2.0
"""Without the table nothing is kept back: it waits for no more than the rest of what one change is told with."""
SILENCE_S = 1.0
"""Between two looks for what the kernel does not tell of."""
OURS_S = 5.0
"""What is told of a change of ours has been read by then. The port is the number of a process, and in the containers
that share a network namespace others have the same."""


@dataclass(frozen=True, slots=True)
class HostChange:
    """Something of ours that somebody else has changed, and what became of it."""

    what: Literal["device", "routes", "rules", "forwarding", "firewall"]
    text: str
    """For the log; nothing where enough has been said."""
    lost: str = ""
    """A TUN device that is gone for good: its queues lead nowhere, and its endpoint has to be made anew."""


class HostGateway:
    """Sets the host up for a plan, changes it, takes it all back. One per network namespace.

    ``runtime_dir`` keeps the record of changed settings, so it must survive the process (but not the machine): /run.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._runtime_dir = runtime_dir
        self._plan = HostPlan()
        self._in_place: HostPlan | None = None
        self._tuns: dict[str, Tun] = {}  # by endpoint
        self._tables = routes.RoutingTables()
        self._batch: dict[str, Any] = {}  # what the firewall was given last
        self._kept_back: Counter[firewall.KeptBack] = Counter()  # in tables before the one in place
        self._settings: dict[str, str] = {}
        self._host_wide: dict[str, str] = {}  # an administrator's, by which those were decided
        self._tun_indexes: dict[str, int] = {}  # by name
        self._trouble = self._firewall_trouble = ""
        self._patience = Patience()
        self._look_at: float | None = None  # when to look at everything, by the loop's clock
        self._our_ports: dict[int, float] = {}  # by which the kernel calls our latest changes to the firewall, and when
        self._attached = links.narrowest(())
        self._busy = asyncio.Lock()
        self.claim = Claim(runtime_dir)
        """Taken by ``up`` at the latest, released by ``down``."""

    @property
    def in_place(self) -> HostPlan | None:
        """The plan that was carried out last, to its end: what the host has, unless others have changed it."""
        return self._in_place

    async def up(self, plan: HostPlan) -> None:
        """Set everything up, replacing what a predecessor left. After an error ``down`` takes back what there is."""
        async with self._busy:
            self.claim.take()
            await self._apply(plan)

    async def update(self, plan: HostPlan, *, look: bool = True) -> None:
        """Change to another plan; devices of endpoints that stay are not touched. After an error the old plan holds.

        Without ``look`` the host is taken to be as the latest plan has left it: with 1,000 routes, reading them takes
        longer than everything else together.
        A removed endpoint's device lives on until the data plane has closed its queues: remove it there first."""
        async with self._busy:
            before = self._plan
            try:
                await self._apply(plan, self._in_place if not look else None)
            except HostError:
                if plan != before:  # else it has just been tried
                    with contextlib.suppress(HostError):  # the first error is the one to report
                        await self._apply(before)
                raise
            except BaseException:
                with contextlib.suppress(HostError):
                    await self._apply(before)
                raise

    async def down(self) -> None:
        """Undo everything; also what fails to be undone is only reported after the rest has been. Idempotent. What is
        there without a claim of ours is another gateway's, and stays.

        The data plane's queues should be closed by now; devices go in any case."""
        async with self._busy:
            if self.claim.is_held:
                await self._take_down()

    async def clean(self) -> None:
        """Take back what a killed predecessor left. Raises ``HostError``, also while another gateway has this host."""
        async with self._busy:
            self.claim.take()
            await self._take_down()

    def tun_queues(self, endpoint: str) -> list[int]:
        """Duplicates of the descriptors of an endpoint's TUN queues, for the data plane to own. KeyError if none."""
        return self._tuns[endpoint].queues()

    def tun_offload(self, endpoint: str) -> Offload:
        """What these queues speak."""
        return self._tuns[endpoint].offload

    def attached_network(self, address: IPAddress) -> IPNetwork | None:
        """The network of one of this host's own interfaces that ``address`` is in, as of the latest plan: whoever has
        that address is, as far as anybody can tell, on the same link."""
        return self._attached(address)

    async def warnings(self) -> list[str]:
        """What else on this host keeps clients from their target networks."""
        ruleset = foreign.Ruleset(await firewall.ruleset())
        return [drop.text for drop in foreign.forward_drops(ruleset, foreign.forwarded(self._plan))]

    async def kept_back(self) -> dict[firewall.KeptBack, int]:
        """Packets of clients that were kept back since the start."""
        async with self._busy:
            now = Counter(await firewall.kept_back(self._plan) if self._in_place is not None else {})
            return dict(now + self._kept_back)

    @property
    def trouble(self) -> str:
        """What others did to the host and could not be put right, or nothing."""
        return "; ".join(filter(None, (self._trouble, self._firewall_trouble)))

    async def watch(self) -> AsyncIterator[HostChange]:
        """Runs until cancelled, and puts right what others do to the host: when a target interface comes back after it
        was down or gone, the kernel has forgotten our routes through it; systemd-networkd removes foreign rules when it
        starts; a TUN device can be set down, forwarding be switched off. Yields each. What failed is tried again, and
        who keeps changing the same is answered ever more slowly."""
        seen, time = Touched(), asyncio.get_running_loop().time
        self._look_at, self._trouble = time(), ""  # for what happened before

        def note(notice: bytes) -> bool:
            return watch.note(seen, notice, routes.PROTOCOL)

        with Notices(socket.NETLINK_ROUTE, watch.GROUPS, note) as notices:
            while True:
                again_at = self._look_at
                lost = await notices.wait(SILENCE_S if again_at is None else max(0.0, again_at - time()))
                now_seen, seen = seen, Touched()
                now_seen.another_try = again_at is not None and time() >= again_at
                now_seen.everything = lost or now_seen.another_try
                if again_at is None and sysctl.fell_silently(self._settings):
                    now_seen.forwarding = True
                if now_seen == Touched():
                    continue
                async with self._busy:
                    changes = await self._look_again(now_seen, time())
                for change in changes:
                    yield change

    async def watch_firewall(self) -> AsyncIterator[HostChange]:
        """Runs until cancelled: when others remove our table, as every ``nft flush ruleset`` does and with it each
        restart of nftables.service, or change anything in it, it is put back: without it nothing keeps clients from
        this host. Yields each."""
        by: set[int] = set()
        loop = asyncio.get_running_loop()
        again_s: float | None = 0.0  # for what happened before

        def note(notice: bytes) -> bool:
            return firewall.note(by, notice)

        groups = (firewall.NFNLGRP_NFTABLES,)
        with Notices(firewall.NETLINK_NETFILTER, groups, note, (FIREWALL_SETTLE_S, SETTLE_S)) as notices:
            while True:
                lost, line, read_at = await notices.wait(again_s), None, loop.time()
                async with self._busy:  # thus after our own change, with its port
                    strangers, by = by.difference(self._our_ports_of(read_at)), set()
                    if self._batch and (strangers or lost or again_s is not None):
                        line = await self._put_firewall_back(loop.time(), suspected=not strangers)
                again_s = FIREWALL_AGAIN_S if self._firewall_trouble else None
                if line is not None:
                    yield HostChange("firewall", line)
                if loop.time() < self._patience.due("firewall"):
                    await asyncio.sleep(SETTLE_S)  # against whoever removes it in a loop

    # -- with self._busy held ------------------------------------------------------------------------------

    async def _put_firewall(self, batch: dict[str, Any]) -> None:
        port = await firewall.put(batch)
        now = asyncio.get_running_loop().time()
        self._our_ports = self._our_ports_of(now) | {port: now}

    def _our_ports_of(self, now: float) -> dict[int, float]:
        return {port: at for port, at in self._our_ports.items() if now - at < OURS_S}

    async def _put_firewall_back(self, now: float, *, suspected: bool) -> str | None:
        """What to say about it. ``suspected``: nobody is known to have changed it, but that may have been missed."""
        before = self._firewall_trouble
        try:
            there = await firewall.is_there()
            counted = await self._counted(self._plan) if there else {}
            await self._put_firewall(self._batch)  # also where routes cannot be put in place
            self._kept_back.update(counted)
        except HostError as error:
            self._firewall_trouble = f"cvpnd's nftables table is not as it should be and cannot be put back: {error}"
            return None if before == self._firewall_trouble else self._firewall_trouble
        self._firewall_trouble = ""
        if there and suspected and not before:
            return None
        what = "changed" if there else "removed"
        why = "" if there else " (nft flush ruleset?)"
        return self._patience.told(
            f"somebody {what} cvpnd's nftables table{why}: it is in place again", "firewall", now
        )

    async def _look_again(self, seen: Touched, now: float) -> list[HostChange]:
        self._look_at = None
        if not self._plan.endpoints:
            return []
        try:
            async with netlink_socket() as netlink:
                changes = await self._changes(netlink, seen)
                if seen.addresses or seen.everything:
                    ours = {endpoint.tun for endpoint in self._plan.endpoints}
                    indexes = await links.interface_indexes(netlink)
                    self._attached = links.narrowest(await links.attached_networks(netlink, indexes, ours))
        except HostError as error:
            text = f"this host cannot be looked at: {error}"
            return self._in_trouble([HostChange("routes", text)], now, seen.another_try)
        lost = [change for change in changes if change.lost]
        if lost:
            return self._in_trouble(lost)  # until there is a new device, which gets all of it
        if not changes:
            return []
        due = min(self._patience.due(change.what) for change in changes)
        if now < due:
            self._look_at = due
            self._trouble = "; ".join(f"{change.text}, again and again" for change in changes)
            return []
        try:
            await self._apply(self._plan)
        except HostError as error:
            failed = [replace(each, text=f"{each.text}; not put right: {error}") for each in changes]
            return self._in_trouble(failed, now, seen.another_try)
        return [
            replace(change, text=self._patience.told(f"{change.text}: put right", change.what, now))
            for change in changes
        ]

    def _in_trouble(
        self, changes: list[HostChange], now: float | None = None, another_try: bool = False
    ) -> list[HostChange]:
        """The same trouble is told once. ``now``: to try again later."""
        if now is not None:
            self._patience.tried("trouble", now)
            self._look_at = max(now + SETTLE_S, self._patience.due("trouble"))
        if another_try and self._trouble:
            return []
        before, self._trouble = self._trouble, "; ".join(change.text for change in changes)
        return [] if self._trouble == before else changes

    async def _changes(self, netlink: AsyncIPRoute, seen: Touched) -> list[HostChange]:
        changes: list[HostChange] = []
        indexes, ipv6 = await links.interface_indexes(netlink), _host_has_ipv6()
        for endpoint in self._plan.endpoints:
            index = self._tun_indexes.get(endpoint.tun)
            if index is None or not (seen.everything or endpoint.tun in seen.interfaces):
                continue
            if (state := await links.state_of_tun(netlink, endpoint, index)) != "as planned":
                text = f"endpoint {endpoint.name}: somebody changed its device {endpoint.tun} ({state})"
                changes.append(HostChange("device", text, endpoint.tun if state == "gone" else ""))
        targets = self._plan.subnets_by_interface()
        touched_targets = seen.interfaces & targets.keys()
        subnets = ", ".join(sorted({subnet for name in touched_targets for subnet in targets[name]}))
        away = sorted(targets.keys() - indexes.keys()) if seen.everything or seen.interfaces else []
        if away:
            whose = ", ".join(sorted({subnet for name in away for subnet in targets[name]}))
            return [*changes, HostChange("routes", f"{whose}: {', '.join(away)} is gone or has another name")]
        if self._in_place is None:  # the last attempt failed
            return changes or [HostChange("routes", f"{subnets or 'this host'}: not as planned")]
        if seen.everything or touched_targets or self._tables.are_wanted(seen.routes):
            lost = await self._tables.lost_routes(netlink, indexes, ipv6=ipv6)
            if lost:
                whose = ", ".join(sorted({route.label for route in lost}))
                changes.append(HostChange("routes", f"{subnets or whose}: {len(lost)} routes were gone"))
        if (seen.everything or seen.rules) and await self._tables.lost_rules(netlink, ipv6=ipv6):
            changes.append(HostChange("rules", "somebody removed our routing rules (systemd-networkd?)"))
        if (seen.everything or seen.forwarding) and (differing := sysctl.differing(self._host_wide | self._settings)):
            changes.append(HostChange("forwarding", f"somebody changed {', '.join(differing)} (sysctl)"))
        if seen.everything and not await firewall.is_there():
            changes.append(HostChange("firewall", "somebody removed cvpnd's nftables table"))
        return changes

    async def _apply(self, plan: HostPlan, known: HostPlan | None = None) -> None:
        """``known``: what the host is taken to have. None: nothing is known of it."""
        sysctls = sysctl.Sysctls(self._runtime_dir / SETTINGS)
        ipv6 = _host_has_ipv6()
        self._in_place = None
        async with netlink_socket() as netlink:
            links.check_interfaces(plan, await links.interface_indexes(netlink))
            before, self._plan = self._plan, plan
            self._close_devices_not_in(plan)
            decided_by = {path: sysctls.before(path) for path in sysctl.host_wide()}
            settings, opened = _forwarding(sysctls, plan)
            await self._replace_firewall(firewall.render(plan, opened), before, known)
            await self._set_up_devices(netlink, plan, known)
            indexes = await links.interface_indexes(netlink)
            strict = {name for name in plan.subnets_by_interface() if sysctl.is_strict(sysctls, name)}
            if strict:
                for name in strict & await routes.interfaces_with_other_way_back(netlink, plan, indexes):
                    settings[f"net/ipv4/conf/{name}/rp_filter"] = sysctl.LOOSE
            sysctls.apply(settings)
            self._settings, self._host_wide = settings, decided_by
            await self._tables.apply(netlink, plan, indexes, ipv6=ipv6, look=known is None)
            ours = {endpoint.tun for endpoint in plan.endpoints}
            self._attached = links.narrowest(await links.attached_networks(netlink, indexes, ours))
        self._in_place, self._trouble = plan, ""
        names = {endpoint.name for endpoint in plan.endpoints}
        self._kept_back = Counter({each: count for each, count in self._kept_back.items() if each.endpoint in names})

    async def _counted(self, plan: HostPlan) -> dict[firewall.KeptBack, int]:
        """By a table about to be replaced. It may be gone, and counters are the least of it; but an nft that hangs
        would do so with the new table too, and all wait twice."""
        try:
            return await firewall.kept_back(plan)
        except NftHangsError:
            raise
        except HostError:
            return {}

    async def _replace_firewall(self, batch: dict[str, Any], before: HostPlan, known: HostPlan | None) -> None:
        if known is not None and batch == self._batch:
            return
        counted = await self._counted(before)
        await self._put_firewall(batch)
        self._batch = batch
        self._kept_back.update(counted)

    def _close_devices_not_in(self, plan: HostPlan) -> None:
        wanted = {endpoint.name: endpoint for endpoint in plan.endpoints}
        for name, tun in list(self._tuns.items()):
            endpoint = wanted.get(name)
            if endpoint is None or (endpoint.tun, endpoint.queues) != (tun.name, tun.queue_count):
                tun.close()
                del self._tuns[name]
                self._tun_indexes.pop(tun.name, None)

    async def _set_up_devices(self, netlink: AsyncIPRoute, plan: HostPlan, known: HostPlan | None) -> None:
        done = () if known is None else {(e.tun, e.mtu, e.client_cidrs) for e in known.endpoints}
        for endpoint in plan.endpoints:
            if endpoint.name not in self._tuns:
                self._tuns[endpoint.name] = open_tun(endpoint.tun, endpoint.queues, endpoint.offload)
            elif (endpoint.tun, endpoint.mtu, endpoint.client_cidrs) in done:
                continue
            index = (await links.interface_indexes(netlink)).get(endpoint.tun)
            if index is None:
                raise HostError(f"{endpoint.name}: its device {endpoint.tun} is gone")
            await links.set_up_tun(netlink, endpoint, index)
            self._tun_indexes[endpoint.tun] = index

    async def _take_down(self) -> None:
        """Each step, whatever became of the others. What remains, the next start finds."""
        problems: list[str] = []
        try:
            for step in (self._remove_routes, self._restore_settings, self._remove_devices, firewall.remove):
                try:
                    await step()
                except HostError as error:
                    problems.append(str(error))
        finally:
            self._plan, self._in_place, self._batch = HostPlan(), None, {}
            self.claim.release()
        if problems:
            raise HostError("\n".join(problems))

    async def _remove_routes(self) -> None:
        async with netlink_socket() as netlink:
            indexes = await links.interface_indexes(netlink)
            await self._tables.apply(netlink, HostPlan(), indexes, ipv6=_host_has_ipv6())

    async def _restore_settings(self) -> None:
        sysctl.Sysctls(self._runtime_dir / SETTINGS).restore()

    async def _remove_devices(self) -> None:
        ours = [tun.name for tun in self._tuns.values()]
        for tun in self._tuns.values():
            tun.close()
        self._tuns.clear()
        async with netlink_socket() as netlink:
            present = await links.interface_indexes(netlink)
            for name in ours:
                if name in present:  # somebody still holds a queue
                    await links.remove(netlink, name, present[name])


def _forwarding(sysctls: sysctl.Sysctls, plan: HostPlan) -> tuple[dict[str, str], sysctl.Opened]:
    return sysctl.forwarding(
        sysctls,
        [endpoint.tun for endpoint in plan.endpoints],
        sorted(plan.subnets_by_interface()),
        tuns_v6=[endpoint.tun for endpoint in plan.endpoints if endpoint.client_cidr_v6 is not None],
    )


def _host_has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()
