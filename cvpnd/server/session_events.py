"""What a session tells, and what follows from it for the login, the data plane and the end of its connection."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, assert_never

from cryptography import x509

from cvpnd.auth.tokens import looks_like_token
from cvpnd.dataplane import api as dataplane
from cvpnd.reasons import End
from cvpnd.server.connection import Phase
from cvpnd.server.holder import check_certificate
from cvpnd.server.link import TcpLink
from cvpnd.server.login import go_on_by_token, log_in, log_in_again, log_in_at_once, takes_time
from cvpnd.wire import events as wire

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane

log = logging.getLogger(__name__)


def session_told(control: ControlPlane, connection: Connection, event: wire.Event, now: float) -> None:
    match event:
        case wire.TlsEstablished():
            connection.common_name = event.common_name
        case wire.CredentialsReceived():
            _credentials_received(control, connection, event, now)
        case wire.KeysReady():
            install_key(control, connection, event, now)
        case wire.UseKey():
            if connection.peer_id is not None:
                control.plane.use_key(connection.peer_id, event.key_id)
        case wire.KeyRetired():
            if connection.peer_id is not None:
                control.plane.remove_key(connection.peer_id, event.key_id)
        case wire.PeerExit():
            control.end(connection, End.CLIENT_EXIT)
        case wire.SessionClosed():
            _session_closed(control, connection, event)
        case wire.QuestionAnswered():
            if connection.answer is not None and not connection.answer.done():
                connection.answer.set_result(event.answer)
        case wire.MessageReceived():
            log.debug("%s sent an unknown message: %r", connection.connection_id, event.text[:64])
        case wire.RenegotiationStarted() | wire.RenegotiationFailed():
            log.info("%s %s", connection.connection_id, event)
        case _:
            assert_never(event)


def _credentials_received(
    control: ControlPlane, connection: Connection, event: wire.CredentialsReceived, now: float
) -> None:
    if connection.phase is Phase.ENDED:
        return
    if connection.login is not None:  # for an earlier key; its answer must not be taken for this one's
        connection.login.cancel()
        connection.login = None
    if connection.phase is Phase.ESTABLISHED:
        # The session has checked that name and certificate are the ones let in; trust may have changed since.
        refused = check_certificate(connection, event)
        if refused is not None:
            control.refuse(connection, refused.refusal, detail=refused.detail)
        elif connection.endpoint.settings.user_method is None:
            connection.session.accept_renegotiation(now)
        elif looks_like_token(event.password):
            go_on_by_token(control, connection, event)
        else:
            connection.login = control.loop.create_task(log_in_again(control, connection, event))
        return
    connection.certified = event.certificate is not None
    control.tally.stages.passed(connection, now)
    control.table.set_phase(connection, Phase.LOGIN)
    if takes_time(connection.endpoint):
        connection.login = control.loop.create_task(log_in(control, connection, event))
    else:
        log_in_at_once(control, connection, event)


def install_key(control: ControlPlane, connection: Connection, event: wire.KeysReady, now: float) -> None:
    if connection.peer_id is None:
        return
    keys = event.keys
    control.plane.install_key(
        connection.peer_id,
        event.key_id,
        dataplane.DataKeys(
            keys.cipher, keys.open_key, keys.open_iv, keys.seal_key, keys.seal_iv, keys.epoch, keys.digest
        ),
    )
    if connection.keys_installed:
        control.tally.renegotiations[connection.endpoint.id] += 1
        return
    control.tally.keys_installed(connection, now)
    connection.keys_installed = True
    control.on_established(connection)
    if isinstance(connection.link, TcpLink):
        connection.link.hand_over(control.plane, connection.peer_id)  # last: its failure ends the connection


def _session_closed(control: ControlPlane, connection: Connection, event: wire.SessionClosed) -> None:
    with contextlib.suppress(ValueError, x509.InvalidVersion):  # OpenSSL reads certificates that we cannot
        connection.common_name = connection.common_name or connection.session.verdict.common_name
    control.end(connection, event.reason, event.detail)
