"""Every kind of client that people connect with, as far as a server can tell them apart (openvpn-wire.md 9.2 and 20).

A ``Generation`` is what a client says of itself and how it goes about the protocol; ``LightClient`` plays it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cvpnd.wire.packet import Transport
from cvpnd.wire.reliable import ReliableHabits

NCP_CIPHERS = "AES-256-GCM:AES-128-GCM"
CIPHERS = "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"


@dataclass(frozen=True, slots=True)
class Habits:
    """How a client behaves, where clients differ. The defaults are those of OpenVPN 2.6 and later."""

    reliable: ReliableHabits = ReliableHabits(acks_on_ack=8)  # noqa: RUF009 - frozen
    first_timeout_s: float = 2.0
    """Of a control packet, until it is sent again."""
    bare_first_ack: bool = False
    """The server's reset is acknowledged in a packet of its own, and the ClientHello follows without."""
    most_acks_taken: int = 8
    """A packet with more acknowledgements than this is not understood."""
    asks_anyway: bool = False
    """PUSH_REQUEST at once, although IV_PROTO says that the server need not be asked."""
    asks_again: bool = False
    """One PUSH_REQUEST more, after the reply."""
    strict_messages: bool = False
    """One TLS record is one text message: two in one, or half of one, are not understood. Nor is one with a control
    character in it, or a PUSH_REPLY without its comma."""
    said_once: tuple[str, ...] = ()
    """Peer info of the first key exchange alone."""
    keeps_old_key_s: float = 0.0
    """After a renegotiation it goes on sending with the old key for so long, text too. OpenVPN 2 does not, and reads
    nothing on the old key once the next one has begun."""
    one_wrapping: bool = False
    """From the first renegotiation on, key id 0 is wrapped as later keys are."""
    wide_lengths: bool = False
    """Its key exchange is written as AWS's client writes it."""
    early_negotiation: bool = True
    """With tls-crypt-v2 it shows its key again when asked, so that the server need not remember it."""
    packets_per_epoch: int = 0
    """Sent in one epoch before the next one; 0: it only follows the server."""
    says_goodbye: bool = True
    """In one of the two forms, whichever the server asks for."""


@dataclass(frozen=True, slots=True)
class Generation:
    name: str
    peer_info: dict[str, str]
    cipher: str = ""
    """In its options string; all that clients without negotiation say about ciphers."""
    compresses: bool = False
    """Its configuration asks for compression, of whatever kind."""
    mac: str = "SHA1"
    tls: str | None = None
    """The only version, if it knows but one."""
    knows_own_keys: bool = True
    """tls-crypt-v2."""
    habits: Habits = field(default_factory=Habits)

    @property
    def proto(self) -> int:
        return int(self.peer_info.get("IV_PROTO", "0"))

    def options(self, transport: Transport) -> str:
        proto = "UDPv4" if transport is Transport.UDP else "TCPv4_CLIENT"
        cipher = f"cipher {self.cipher}," if self.cipher else ""
        framing = "comp-lzo," if self.compresses else ""
        lengths = f"link-mtu 1549,tun-mtu 1500,proto {proto}"
        return f"V4,dev-type tun,{lengths},{framing}{cipher}auth {self.mac},key-method 2,tls-client"


def _openvpn2(version: str, proto: int, *, ciphers: str = CIPHERS, mtu: bool = True, **more: str) -> dict[str, str]:
    info = {"IV_VER": version, "IV_PLAT": "linux", "IV_TCPNL": "1"}
    if mtu:
        info["IV_MTU"] = "1600"
    return {**info, "IV_NCP": "2", "IV_CIPHERS": ciphers, "IV_PROTO": str(proto), **more}


_OLD = ReliableHabits(send_window=4, receive_window=8, acks_on_ack=8, repeats_acks=False)
_COMPRESSION = {"IV_LZ4": "1", "IV_LZ4v2": "1", "IV_LZO": "1", "IV_COMP_STUB": "1", "IV_COMP_STUBv2": "1"}
_AT_MOST_FOUR = ReliableHabits(acks_on_ack=4, repeats_acks=False)

GENERATIONS = (
    Generation(
        "2.4",
        _openvpn2("2.4.12", 2, ciphers=NCP_CIPHERS + ":BF-CBC", mtu=False, **_COMPRESSION),
        cipher="BF-CBC",
        tls="1.2",
        knows_own_keys=False,
        habits=Habits(_OLD, bare_first_ack=True),
    ),
    Generation(
        "2.5",
        _openvpn2("2.5.11", 6, mtu=False, **_COMPRESSION),
        cipher="AES-256-GCM",
        habits=Habits(_OLD, bare_first_ack=True, asks_anyway=True, early_negotiation=False),
    ),
    Generation("2.6.0", _openvpn2("2.6.0", 478)),
    Generation("2.6", _openvpn2("2.6.14", 990)),
    Generation("2.7", _openvpn2("2.7.6", 8094), habits=Habits(packets_per_epoch=3)),
    Generation("2.8", {"ID": "2a", **_openvpn2("2.8_git", 8094)}, habits=Habits(packets_per_epoch=2)),
    Generation("dco", _openvpn2("2.7.6", 8094 & ~(1 << 10 | 1 << 12))),
    Generation(
        "openvpn3",
        {
            "IV_VER": "3.11.1",
            "IV_PLAT": "android",
            "IV_NCP": "2",
            "IV_TCPNL": "1",
            "IV_PROTO": "8094",
            "IV_MTU": "1600",
            "IV_CIPHERS": "AES-128-GCM:AES-192-GCM:AES-256-GCM:CHACHA20-POLY1305",
            "IV_GUI_VER": "OC 3.6.0",
            "IV_SSO": "webauth,openurl,crtext",
            "IV_BS64DL": "1",
            "IV_AUTO_SESS": "1",
            "IV_ACC": "2048,6:A,cck1",
        },
        habits=Habits(
            first_timeout_s=1.0,
            asks_again=True,
            strict_messages=True,
            said_once=("IV_BS64DL",),
            keeps_old_key_s=2.5,
            one_wrapping=True,
        ),
    ),
    Generation(
        "aws",  # the patched 2.5 in AWS's client, with whichever login
        _openvpn2("2.5.1", 6, mtu=False, **_COMPRESSION),
        cipher="AES-256-GCM",
        habits=Habits(_OLD, bare_first_ack=True, asks_anyway=True, early_negotiation=False, wide_lengths=True),
    ),
    Generation(
        "compress",  # any kind of compression in the configuration of a client that can do without
        _openvpn2("2.5.11", 6, mtu=False, **_COMPRESSION),
        compresses=True,
        habits=Habits(_OLD, bare_first_ack=True, asks_anyway=True, early_negotiation=False),
    ),
    Generation(
        "comp-lzo",  # and of one that cannot: its packets stay framed
        _openvpn2("2.4.0", 2, ciphers=NCP_CIPHERS, mtu=False, IV_LZO="1"),
        compresses=True,
        tls="1.2",
        knows_own_keys=False,
        habits=Habits(_OLD, bare_first_ack=True),
    ),
    Generation(
        "no peer id",  # nothing but a cipher in its configuration: P_DATA_V1
        {},
        cipher="AES-256-GCM",
        tls="1.2",
        knows_own_keys=False,
        habits=Habits(_OLD, bare_first_ack=True),
    ),
    Generation(
        "minivpn",
        {"IV_VER": "2.5.5", "IV_PROTO": "2"},
        cipher="AES-256-GCM",
        mac="SHA512",
        knows_own_keys=False,
        habits=Habits(_AT_MOST_FOUR, most_acks_taken=4, says_goodbye=False),
    ),
    Generation(
        "softether",
        {"IV_VER": "2.4.0", "IV_PROTO": "2"},
        cipher="AES-128-GCM",
        mac="SHA256",
        knows_own_keys=False,
        habits=Habits(_AT_MOST_FOUR, most_acks_taken=4, bare_first_ack=True),
    ),
)
"""``keeps_old_key_s`` of OpenVPN 3 is 60 in truth, too long for tests."""

LEGACY_GENERATIONS = (
    Generation(
        "2.2",  # no peer info at all
        {},
        cipher="AES-128-CBC",
        tls="1.2",
        knows_own_keys=False,
        habits=Habits(_OLD, bare_first_ack=True),
    ),
    Generation(
        "2.3",
        {"IV_VER": "2.3.18", "IV_PLAT": "linux", "IV_PROTO": "2"},
        cipher="AES-256-CBC",
        mac="SHA256",
        tls="1.2",
        knows_own_keys=False,
        habits=Habits(_OLD, bare_first_ack=True),
    ),
    Generation(
        "2.3 comp-lzo",
        {"IV_VER": "2.3.18", "IV_PLAT": "linux", "IV_PROTO": "2", "IV_LZO": "1"},
        cipher="AES-256-CBC",
        compresses=True,
        tls="1.2",
        knows_own_keys=False,
        habits=Habits(_OLD, bare_first_ack=True),
    ),
    Generation(
        "data-ciphers",  # a new client whose configuration allows nothing else
        _openvpn2("2.6.14", 990, ciphers="AES-256-CBC"),
        mac="SHA512",
    ),
)
"""Have no AEAD cipher: served only where ``legacy_cbc_ciphers`` says so."""


def generation(name: str) -> Generation:
    """Raises KeyError."""
    return {each.name: each for each in (*GENERATIONS, *LEGACY_GENERATIONS)}[name]
