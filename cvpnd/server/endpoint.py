"""An endpoint as the server side sees it while it runs: what is configured, trusted, leased and allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from OpenSSL import SSL

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.identity import Refused
from cvpnd.auth.watch import TrustKeeper
from cvpnd.config import EndpointConfig
from cvpnd.dataplane.api import DataPlane
from cvpnd.policy.compile import Compiled, GroupNumbers, admitted_by_both, compile_rules, group_bits
from cvpnd.policy.leases import Holder, LeasePool
from cvpnd.policy.model import IPAddress, IPNetwork, Lease, Route, Rule
from cvpnd.policy.rule_table import RuleTable
from cvpnd.reasons import End, Refusal
from cvpnd.server.leftovers import Leftovers
from cvpnd.wire.presented import CertificationPath
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.wrap.protection import UNPROTECTED, ControlProtection

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection


FEW_GROUPS = 64
"""As many bits cost nothing, whether a rule names them or not."""

Proof = CertificationPath | Refused
_DATES = frozenset({Refusal.CERTIFICATE_EXPIRED, Refusal.CERTIFICATE_NOT_YET_VALID})
"""What OpenSSL says of a path only once it has found an authority at its end."""


class _Derived(NamedTuple):
    """What follows from the settings of an endpoint alone."""

    settings: EndpointConfig
    method: str
    token_method: str
    session_settings: SessionSettings
    asks_certificate: bool
    asks_somebody: bool


def _method(settings: EndpointConfig, *, token: bool = False) -> str:
    words = [each.word for each in settings.authentication if each.is_certificate or not token]
    return "+".join([*sorted(words), *(["token"] if token else [])])


def _session_settings(settings: EndpointConfig) -> SessionSettings:
    method = settings.user_method
    wanted = SessionSettings(
        data_ciphers=(*settings.data_ciphers, *settings.legacy_cbc_ciphers),
        hand_window_s=settings.hand_window_s,
        renegotiate_s=settings.renegotiate_s,
    )
    return wanted.for_assertions() if method is not None and method.is_federated else wanted


@dataclass(slots=True, eq=False)
class ServedEndpoint:
    """Owned by the gateway. ``settings``, ``trust_keeper``, ``rules`` and ``routes`` are replaced whole when something
    changes; sessions that are established keep their lease and their keys."""

    id: str = field(init=False)
    """Of all its settings."""
    index: int
    """Its number in the data plane."""
    interface: str
    """Name of its TUN device."""
    settings: EndpointConfig
    trust_keeper: TrustKeeper
    routes: tuple[Route, ...]
    leases: LeasePool
    leftovers: Leftovers | None = None
    """None: nothing tracks connections, and what rests goes on resting."""
    protection: ControlProtection = UNPROTECTED
    """Of the control channel. Sessions keep the wrapping they began with."""
    lan_of: Callable[[IPAddress], IPNetwork | None] = lambda _address: None
    """The network in which this host and a client with that source address both are, if there is one."""
    closing: bool = False
    """Nobody is let in any more."""
    rules: RuleTable = field(default_factory=RuleTable)
    narrowed_to: Compiled | None = None
    """What is in force where that is less than ``rules``, as routes and firewall may be those of other ones."""
    groups: GroupNumbers = field(default_factory=GroupNumbers)
    edition_told: int = 0
    """Which edition of them the bits of every session were made with, at least."""
    many_groups: int = FEW_GROUPS
    """So many are reason to look which of them no rule names any more."""
    judged_by: CertificateTrust = field(init=False)
    """By which trust the established connections were judged last: those who lose it do so even if something fails."""
    _derived: _Derived | None = None

    def __post_init__(self) -> None:
        self.id = self.settings.id
        self.judged_by = self.trust

    @property
    def trust(self) -> CertificateTrust:
        return self.trust_keeper.current

    def ssl_context(self) -> SSL.Context:
        """For a handshake that begins now."""
        return self.trust.ssl_context

    def method(self, *, token: bool = False) -> str:
        """What it lets in with, for the log and for metrics: ``certificate+directory+totp``, say. ``token``: with one
        in place of what the user would be asked for."""
        derived = self._derive()
        return derived.token_method if token else derived.method

    @property
    def session_settings(self) -> SessionSettings:
        return self._derive().session_settings

    @property
    def asks_certificate(self) -> bool:
        return self._derive().asks_certificate

    @property
    def asks_somebody(self) -> bool:
        """Whether a login takes time: a user's password or a handler's word on top of the certificate."""
        return self._derive().asks_somebody

    def _derive(self) -> _Derived:
        """Every connection asks."""
        if self._derived is None or self._derived.settings is not self.settings:
            self._derived = _Derived(
                self.settings,
                _method(self.settings),
                _method(self.settings, token=True),
                _session_settings(self.settings),
                self.settings.certificate_method is not None,
                self.settings.user_method is not None or self.settings.handler is not None,
            )
        return self._derived

    def still_trusted(self, connection: Connection) -> Refused | None:
        """Whether the certificate of a connection, which was proven once, would be let in now."""
        if connection.certificate is None:
            return Refused(Refusal.CERTIFICATE_MISSING, "") if self.asks_certificate else None
        return self.trust.check(connection.certificate, connection.path)

    def prove_again(self, connections: Iterable[Connection]) -> dict[Connection, Proof]:
        """By the authorities of now. For a thread."""
        trust, shared = self.trust, dict[Proof, Proof]()
        proven: dict[Connection, Proof] = {}
        for connection in connections:
            if connection.certificate is not None:
                proof = trust.prove(connection.certificate, connection.path.sent)
                proven[connection] = shared.setdefault(proof, proof)
        return proven

    def lost_trust(self, connection: Connection, proof: Proof | None) -> End | None:
        """Why an established connection is not to stay until its renegotiation; ``proof``: where it was looked for
        again."""
        if isinstance(proof, CertificationPath):
            connection.path = proof
        elif proof is not None and proof.refusal not in _DATES:
            return End.CERTIFICATE_UNKNOWN_CA
        refused = self.still_trusted(connection)
        revoked = refused is not None and refused.refusal is Refusal.CERTIFICATE_REVOKED
        return End.CERTIFICATE_REVOKED if revoked else None

    def set_rules(
        self,
        plane: DataPlane,
        rules: RuleTable,
        connections: Iterable[Connection],
        table: Compiled | None = None,
    ) -> None:
        """Put ``rules`` in force for everybody at once. ``table``: the rules as ``compile_rules`` made them with our
        ``groups``, for who did that in a thread (10,000 rules take it 30 ms)."""
        compiled = compile_rules(rules, self.groups) if table is None else table
        self._tell_groups(plane, connections)
        plane.set_rules(self.index, compiled)
        self.rules, self.narrowed_to = rules, None
        self._forget_groups()

    def narrower(self, coming: Iterable[Rule]) -> Compiled:
        """What is in force now and by the rules to come as well. For a thread."""
        now = compile_rules(self.rules, self.groups) if self.narrowed_to is None else self.narrowed_to
        return admitted_by_both(now, compile_rules(coming, self.groups))

    def narrow_rules(self, plane: DataPlane, connections: Iterable[Connection], narrower: Compiled) -> None:
        """Until ``set_rules`` nothing else is in force, and nothing but what is ``narrower`` still takes its place."""
        self._tell_groups(plane, connections)
        plane.set_rules(self.index, narrower)
        self.narrowed_to = narrower

    def change_rules(
        self,
        plane: DataPlane,
        rules: RuleTable,
        connections: Iterable[Connection],
        changes: Mapping[IPNetwork, int | None],
    ) -> None:
        """The same where ``rules`` differ from those in force on some prefixes only. ``changes``: what
        ``compile_prefixes`` made of these with our ``groups``."""
        self._tell_groups(plane, connections)
        plane.change_rules(self.index, changes)
        self.rules = rules
        self._forget_groups()

    def _tell_groups(self, plane: DataPlane, connections: Iterable[Connection]) -> None:
        """Sessions learn the numbers of groups that no rule named before, and only then does the new table replace the
        old. Who logs in later has them from the start."""
        if self.edition_told == self.groups.edition:
            return
        edition = self.groups.edition
        for connection in connections:
            if connection.endpoint is self and connection.peer_id is not None and connection.grant is not None:
                plane.set_groups(connection.peer_id, group_bits(connection.grant.groups, self.groups))
        self.edition_told = edition

    def _forget_groups(self) -> None:
        """Once the rules in force are ``rules``: those that they do not name any more, if most are."""
        if len(self.groups) < self.many_groups:
            return
        unused = self.groups.known().keys() - {rule.group for rule in self.rules}
        if len(unused) > len(self.groups) // 2:
            self.groups.forget(unused)
        self.many_groups = max(FEW_GROUPS, 2 * len(self.groups))

    def set_account(self, plane: DataPlane, connection: Connection, groups: frozenset[str]) -> None:
        """The user of an established connection is in these groups now."""
        grant, identity = connection.grant, connection.identity
        if grant is None or identity is None or connection.peer_id is None or grant.groups == groups:
            return
        connection.grant, connection.identity = replace(grant, groups=groups), replace(identity, groups=groups)
        plane.set_groups(connection.peer_id, group_bits(groups, self.groups))

    def lease(self, holder: Holder) -> Lease:
        """Raises PoolFull. Whoever gets it gives it back."""
        lease = self.leases.lease(self.leases.acquire(holder))
        self._leases_changed()
        return lease

    def give_back(self, lease: Lease) -> None:
        self.leases.release(lease.v4)
        self._leases_changed()

    def _leases_changed(self) -> None:
        if self.leftovers is not None:
            self.leftovers.look()
