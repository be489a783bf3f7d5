"""What a client that all have said yes to gets: a place, an address, its options, and a peer in the data plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvpnd.dataplane.api import Framing, PeerSettings, host_address
from cvpnd.policy.compile import group_bits
from cvpnd.policy.leases import Holder, PoolFull
from cvpnd.policy.model import P_DATA_V2_AEAD, ClientFacts, DataOverhead, Grant, Identity
from cvpnd.policy.mtu import client_mtu
from cvpnd.policy.push import push_options
from cvpnd.reasons import End, Refusal
from cvpnd.server.denied import Denied
from cvpnd.wire.events import CredentialsReceived
from cvpnd.wire.key_method import configured_mtu
from cvpnd.wire.negotiation import Unsupported

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane
    from cvpnd.server.endpoint import ServedEndpoint

REPLACED_TEXT = "A newer session of this user took the place of this one"


def check_limits(control: ControlPlane, connection: Connection, identity: Identity) -> None:
    endpoint = connection.endpoint
    if endpoint.closing:
        raise Denied(Refusal.SHUTTING_DOWN)
    if control.tally.sessions[endpoint.id] >= endpoint.settings.limits.sessions:
        raise Denied(Refusal.SESSION_LIMIT)
    limits = endpoint.settings.limits
    sessions = control.table.sessions_of(endpoint.index, identity.user)
    too_many = len(sessions) + 1 - limits.sessions_per_identity
    if too_many > 0 and limits.too_many_of_identity == "refuse-new":
        raise Denied(Refusal.IDENTITY_SESSION_LIMIT, f"{len(sessions)} of {limits.sessions_per_identity}")
    for oldest in sessions[: max(0, too_many)]:
        control.halt(oldest, End.IDENTITY_SESSION_LIMIT, REPLACED_TEXT)


def client_facts(connection: Connection, credentials: CredentialsReceived) -> ClientFacts:
    link, info = connection.link, credentials.peer_info
    address = host_address(link.remote.host)
    negotiated = connection.session.negotiate()
    overhead = P_DATA_V2_AEAD if isinstance(negotiated, Unsupported) else DataOverhead(*negotiated.overhead)
    return ClientFacts(
        proto=int(info.capabilities),
        iv_mtu=info.mtu,
        own_mtu=configured_mtu(credentials.options),
        platform=info.platform,
        answers_occ=info.version.startswith("2."),
        transport=link.transport,
        address=address,
        server_address=host_address(link.local) if link.local else None,
        lan=connection.endpoint.lan_of(address),
        data_overhead=overhead,
    )


def holder_of(identity: Identity, device_id: str) -> Holder:
    """Each device of a user has an address of its own that it comes back to."""
    return (identity.user, device_id) if device_id else identity.user


def make_grant(endpoint: ServedEndpoint, identity: Identity, device_id: str, facts: ClientFacts) -> Grant:
    """Takes the lease: whoever gets the grant gives it back."""
    try:
        lease = endpoint.lease(holder_of(identity, device_id))
    except PoolFull as error:
        raise Denied(Refusal.ADDRESS_POOL_FULL, str(error)) from None
    try:
        options = push_options(endpoint.settings, endpoint.routes, lease, facts)
    except BaseException:
        endpoint.give_back(lease)
        raise
    sizes = client_mtu(endpoint.settings.path_mtu, facts, discovery=endpoint.settings.path_discovery)
    return Grant(lease, identity.groups, tuple(options), sizes)


def peer_settings(connection: Connection, grant: Grant) -> PeerSettings:
    """With what the client's packets will look like, if there will be any."""
    endpoint, session = connection.endpoint, connection.session
    negotiated = session.negotiate()
    data_v1, framing = False, Framing.NONE
    if not isinstance(negotiated, Unsupported):
        data_v1, framing = negotiated.data_v1, Framing[negotiated.framing.name]
    return PeerSettings(
        endpoint=endpoint.index,
        addresses=grant.lease.addresses,
        groups=group_bits(grant.groups, endpoint.groups),
        ping_interval_s=endpoint.settings.ping_s,
        timeout_s=endpoint.settings.server_timeout_s,
        mss_v4=grant.sizes.mss_v4,
        mss_v6=grant.sizes.mss_v6,
        tunnel_mtu=grant.sizes.tunnel,
        path_mtu=grant.sizes.path,
        data_header=grant.sizes.data_header,
        answers_occ=grant.sizes.answers_occ,
        remote_peer_id=session.remote_peer_id,
        data_v1=data_v1,
        framing=framing,
    )
