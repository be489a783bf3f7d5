"""Every parser of ``wire`` that meets a stranger's or a client's bytes, behind one function for a fuzzer.

The first byte of an input chooses. ``PeerError`` (and what a key file's reader raises) is an answer; anything else that
is raised is a bug.
"""

from __future__ import annotations

from collections.abc import Callable

from helpers.pair import CLIENT_ADDRESS, Pair
from helpers.wrappings import CASES, NAMES

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.key_method import mirror_options, parse_key_message, parse_peer_info
from cvpnd.wire.messages import MessageReader, parse_message, parse_push_reply
from cvpnd.wire.negotiation import negotiate
from cvpnd.wire.packet import Opcode, parse_packet, serialise_packet
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.stateless import Established, answer_reset, check_echo, open_stream
from cvpnd.wire.stream import FrameReader, frame
from cvpnd.wire.wrap.client_key import ClientKeyMetadata
from cvpnd.wire.wrap.key_files import KeyFileError, parse_static_key, parse_v2_client_key, parse_v2_server_key

COOKIE = ResetCookie(bytes(32))


def packet(data: bytes) -> None:
    parsed = parse_packet(data)
    if parsed.opcode is not Opcode.ACK_V1:  # bytes behind a bare ACK are ignored
        assert serialise_packet(parsed) == data


def stranger(data: bytes) -> None:
    protection = CASES[NAMES[data[0] % len(NAMES)]].protection if data else CASES["plain"].protection
    rest = data[1:]
    answer = answer_reset(rest, CLIENT_ADDRESS, 0.0, COOKIE, protection)
    assert not isinstance(answer, bytes) or len(answer) <= len(rest) + 12
    echo = check_echo(rest, CLIENT_ADDRESS, 0.0, COOKIE, protection)
    assert isinstance(echo, DropReason) or (isinstance(echo, Established) and echo.local_session_id in rest)
    open_stream(rest, protection)


def key_message(data: bytes) -> None:
    message = parse_key_message(b"\0\0\0\0\x02" + data, from_client=True)
    if message is not None:
        assert message.username.isprintable()
        mirror_options(message.options)


def peer_info(data: bytes) -> None:
    options, _, info = data.decode(errors="replace").partition("\0")
    negotiate(("AES-256-GCM", "CHACHA20-POLY1305"), parse_peer_info(info), options)


def messages(data: bytes) -> None:
    reader = MessageReader()
    half = len(data) // 2
    for raw in (*reader.feed(data[:half]), *reader.feed(data[half:])):
        text = parse_message(raw)
        assert text.isprintable()
        parse_push_reply(text)


def stream(data: bytes) -> None:
    cut, rest = (data[0] if data else 0), data[1:]
    reader, taken = FrameReader(), b""
    for part in (rest[:cut], rest[cut:]):
        taken += b"".join(map(frame, reader.feed(part)))
    assert rest.startswith(taken)


def metadata(data: bytes) -> None:
    ClientKeyMetadata.parse(data)


def key_files(data: bytes) -> None:
    for parse in (parse_static_key, parse_v2_server_key, parse_v2_client_key):
        try:
            parse(data)
        except KeyFileError as error:
            assert data.hex() not in str(error) or len(data) < 4


def client_text(data: bytes) -> None:
    """What a client says that was let in: records on its primary key."""
    global _session, _pair
    if _pair is None or _session is None or _session.closed or not _session.established:
        _pair = Pair()
        _pair.connect()
        _session = _pair.session
    assert _session is not None and _session._keys.primary is not None
    half = len(data) // 2
    for record in (data[:half], data[half:]):
        if _session._keys.primary is not None and record:
            _session._reader.read(_session._keys.primary, record, _pair.now)
    while _session.next_event() is not None:
        pass
    _session.packets_to_send(_pair.now)
    _session._outbox._waiting.clear()
    _pair.now += 0.001


_pair: Pair | None = None
_session: Session | None = None

TARGETS: tuple[Callable[[bytes], None], ...] = (
    packet,
    stranger,
    key_message,
    peer_info,
    messages,
    stream,
    metadata,
    key_files,
    client_text,
)


def one_input(data: bytes) -> None:
    if data:
        try:
            TARGETS[data[0] % len(TARGETS)](data[1:])
        except PeerError as error:
            assert error.reason in DropReason
