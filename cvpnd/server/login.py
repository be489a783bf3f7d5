"""From credentials to an installed peer, read from top to bottom.

The TLS handshake has proven the certificate (chain, validity, purpose, CRL, name). What follows here is what the
endpoint asks for on top, then the address, then the answer to the client. Everything that is not a clear yes is a no:
an unexpected error too, as ``internal-error``.
"""

from __future__ import annotations

import logging
import random
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.identity import Refused, common_name
from cvpnd.dataplane.api import PeerSettings
from cvpnd.policy.compile import group_bits
from cvpnd.policy.leases import PoolFull
from cvpnd.policy.model import P_DATA_V2_AEAD, ClientFacts, DataOverhead, Grant, Identity
from cvpnd.policy.mtu import client_mtu
from cvpnd.policy.push import push_options
from cvpnd.reasons import End, Refusal
from cvpnd.server.connection import DeviceKey
from cvpnd.wire.events import CredentialsReceived
from cvpnd.wire.negotiation import Unsupported

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane
    from cvpnd.server.endpoint import ServedEndpoint

log = logging.getLogger(__name__)

CLIENT_TEXT = {
    Refusal.ADDRESS_POOL_FULL: "No free address on the server, try again later",
    Refusal.SESSION_LIMIT: "Too many sessions, try again later",
    Refusal.IDENTITY_SESSION_LIMIT: "Too many sessions with this certificate, try again later",
    Refusal.SHUTTING_DOWN: "The server is restarting",
}
"""What a refused client is told beyond ``AUTH_FAILED``; for any other reason, nothing. These are also the ones that
pass: a client that can is told to try again by itself."""
REPLACED_TEXT = "A newer session with this certificate took the place of this one"
RETRY_AFTER_S = (5, 15)
"""Chosen at random for each client, so that they do not all come back in the same second."""


class Denied(Exception):
    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(detail or str(refusal))
        self.refusal = refusal


async def log_in(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """Decide and carry the decision out. Runs as the connection's only task; cancelled when the connection ends."""
    try:
        identity = identify(credentials, connection.endpoint.trust)
        connection.identity = identity
        connection.common_name = identity.common_name
        connection.certificate = credentials.certificate
        connection.device_type = credentials.peer_info.platform
        device_id = credentials.peer_info.device_id
        device = DeviceKey(connection.endpoint.index, identity.certificate_fingerprint, device_id)
        control.end_predecessors(connection, device)
        _check_limits(control, connection, identity)
        connection.facts = _facts(connection, credentials)
        grant = _grant(connection.endpoint, identity, device_id, connection.facts)
        connection.grant = grant
        control.admit(connection, _peer_settings(connection.endpoint, grant), grant.options)
    except Denied as denied:
        text = CLIENT_TEXT.get(denied.refusal, "")
        control.refuse(connection, denied.refusal, text, retry_after_s=random.randint(*RETRY_AFTER_S) if text else None)  # noqa: S311
    except Exception:
        log.exception("%s: login failed", connection.connection_id)
        control.refuse(connection, Refusal.INTERNAL_ERROR)
    finally:
        connection.login = None


def identify(credentials: CredentialsReceived, trust: CertificateTrust) -> Identity:
    """Who this is. With certificates alone the certificate's name is the user's; what the client typed proves nothing
    and is not used."""
    certificate = credentials.certificate
    if certificate is None:
        raise Denied(Refusal.CERTIFICATE_MISSING)
    refused = trust.check(certificate)  # revoked since its TLS handshake began, which the client may have drawn out
    if refused is not None:
        raise Denied(refused.refusal, refused.detail)
    name = common_name(certificate)
    if isinstance(name, Refused):
        raise Denied(name.refusal, name.detail)
    return Identity(
        common_name=name,
        username="",
        groups=frozenset(),
        certificate_serial=f"{certificate.serial_number:x}",
        certificate_fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _check_limits(control: ControlPlane, connection: Connection, identity: Identity) -> None:
    endpoint = connection.endpoint
    if endpoint.closing:
        raise Denied(Refusal.SHUTTING_DOWN)
    if control.sessions_of(endpoint) >= endpoint.settings.limits.sessions:
        raise Denied(Refusal.SESSION_LIMIT)
    limits = endpoint.settings.limits
    sessions = control.table.sessions_of(endpoint.index, identity.user)
    too_many = len(sessions) + 1 - limits.sessions_per_identity
    if too_many > 0 and limits.too_many_of_identity == "refuse-new":
        raise Denied(Refusal.IDENTITY_SESSION_LIMIT, f"{len(sessions)} of {limits.sessions_per_identity}")
    for oldest in sessions[: max(0, too_many)]:
        control.halt(oldest, End.IDENTITY_SESSION_LIMIT, REPLACED_TEXT)


def _facts(connection: Connection, credentials: CredentialsReceived) -> ClientFacts:
    link, info = connection.link, credentials.peer_info
    address = ip_address(link.remote.host)
    negotiated = connection.session.negotiate()
    overhead = P_DATA_V2_AEAD if isinstance(negotiated, Unsupported) else DataOverhead(*negotiated.overhead)
    return ClientFacts(
        proto=int(info.capabilities),
        iv_mtu=info.mtu,
        platform=info.platform,
        transport=link.transport,
        address=address,
        server_address=ip_address(link.local) if link.local else None,
        lan=connection.endpoint.lan_of(address),
        data_overhead=overhead,
    )


def _grant(endpoint: ServedEndpoint, identity: Identity, device_id: str, facts: ClientFacts) -> Grant:
    """Takes the lease: whoever gets the grant gives it back. Each device of a user has an address of its own that it
    comes back to."""
    holder = f"{identity.user} {device_id}" if device_id else identity.user
    try:
        lease = endpoint.leases.lease(endpoint.leases.acquire(holder))
    except PoolFull as error:
        raise Denied(Refusal.ADDRESS_POOL_FULL, str(error)) from None
    try:
        options = push_options(endpoint.settings, endpoint.routes, lease, facts)
    except BaseException:
        endpoint.leases.release(lease.v4)
        raise
    sizes = client_mtu(endpoint.settings.path_mtu, facts)
    return Grant(lease, identity.groups, tuple(options), sizes.mss_v4, sizes.mss_v6)


def _peer_settings(endpoint: ServedEndpoint, grant: Grant) -> PeerSettings:
    return PeerSettings(
        endpoint=endpoint.index,
        addresses=grant.lease.addresses,
        groups=group_bits(grant.groups, endpoint.groups),
        ping_interval_s=endpoint.settings.ping_s,
        timeout_s=endpoint.settings.server_timeout_s,
        mss_v4=grant.mss_v4,
        mss_v6=grant.mss_v6,
    )
