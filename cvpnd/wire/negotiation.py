"""Which cipher and which protocol features a session uses (openvpn-wire.md sections 9.3, 11.8 and 13).

Decided once, before the first data keys. A feature is used if and only if it is pushed: a client that was not told
would end up with other keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from cvpnd.reasons import Refusal
from cvpnd.wire.key_material import AEAD_CIPHERS, CBC_BLOCK_BYTES, CBC_CIPHERS, CBC_DIGESTS
from cvpnd.wire.key_method import Capability, PeerInfo, option_value
from cvpnd.wire.text import printable

_NCP_CIPHERS = ("AES-256-GCM", "AES-128-GCM")
"""What IV_NCP=2 promises."""
_DEFAULT_DIGEST = "SHA1"
_DIGEST_NAMES = {"SHA2-256": "SHA256", "SHA2-384": "SHA384", "SHA2-512": "SHA512"}
"""As OpenVPN 2.5.5 says them with OpenSSL 3."""
_PACKET_ID_BYTES, _EPOCH_ID_BYTES, _TAG_BYTES = 4, 8, 16


class KeyDerivation(StrEnum):
    PRF = "prf"
    TLS_EKM = "tls-ekm"


class Framing(Enum):
    """What surrounds the payloads of a client whose configuration mentions compression. Nothing is ever compressed."""

    NONE = None
    """It does not, and nothing is pushed."""
    STUB_V2 = "compress stub-v2"
    """Pushed to who can: as good as no framing."""
    COMP_LZO = "comp-lzo no"
    """Pushed to the others, and with it a byte in front of each payload."""


class Overhead(NamedTuple):
    """What data packets put around a tunnel packet, inside UDP or TCP (openvpn-wire.md section 12)."""

    clear: int
    """Bytes that are not encrypted."""
    inside: int
    """Bytes that are encrypted with it."""
    block: int
    """What is encrypted is padded to a multiple of this, if it is not 1, and by one byte at least."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    cipher: str
    digest: str
    """Of the HMAC beside a CBC cipher, by the client's own configuration; empty for an AEAD cipher."""
    push_cipher: bool
    """Clients that know no cipher negotiation use the one of their configuration and must not be told."""
    derivation: KeyDerivation
    dynamic_tls_crypt: bool
    """Renegotiations are wrapped with a key of their own, exported from the first key's TLS connection."""
    exit_notify: bool
    """The client may say goodbye with an EXIT message."""
    epoch: bool
    """Data packets have the epoch format."""
    data_v1: bool
    """The client knows no peer ids: P_DATA_V1, and none is pushed."""
    framing: Framing
    knows_flags: bool
    rule: str
    """How the cipher was found; for the log."""

    @property
    def overhead(self) -> Overhead:
        header = 1 if self.data_v1 else 4
        framing = int(self.framing is Framing.COMP_LZO)
        if self.digest:
            return Overhead(
                header + CBC_DIGESTS[self.digest] + CBC_BLOCK_BYTES, _PACKET_ID_BYTES + framing, CBC_BLOCK_BYTES
            )
        packet_id = _EPOCH_ID_BYTES if self.epoch else _PACKET_ID_BYTES
        return Overhead(header + packet_id + _TAG_BYTES, framing, 1)

    def push_options(self, peer_id: int | None) -> list[str]:
        """The options that follow from the negotiation, in the reference's order. ``peer_id`` None: the client was told
        in the key exchange."""
        options = []
        if peer_id is not None and not self.data_v1:
            options.append(f"peer-id {peer_id}")
        if self.push_cipher:
            options.append(f"cipher {self.cipher}")
        flags = []
        if self.exit_notify:
            flags.append("cc-exit")
        if self.derivation is KeyDerivation.TLS_EKM:
            if self.knows_flags:
                flags.append("tls-ekm")
            else:
                options.append("key-derivation tls-ekm")
        if self.dynamic_tls_crypt:
            flags.append("dyn-tls-crypt")
        if self.epoch:
            flags.append("aead-epoch")
        if flags:
            options.append("protocol-flags " + " ".join(flags))
        if self.framing.value is not None:
            options.append(self.framing.value)
        return options

    def explain(self, peer_id: int | None) -> str:
        """For the debug log: what was decided, by which rule, and what the client was told."""
        packets = "P_DATA_V1" if self.data_v1 else "epoch format" if self.epoch else "P_DATA_V2"
        if self.digest:
            packets += f" with legacy CBC and HMAC-{self.digest}"
        keys = "TLS exporter" if self.derivation is KeyDerivation.TLS_EKM else "PRF"
        pushed = ", ".join(self.push_options(peer_id)) or "nothing"
        return f"{self.rule}; {packets}, keys by {keys}, framing {self.framing.name.lower()}; pushed: {pushed}"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """This client cannot be served. ``text`` is what it is told."""

    refusal: Refusal
    text: str
    rule: str
    """For the log."""


def choose_cipher(server_ciphers: Sequence[str], peer_info: PeerInfo, options: str) -> tuple[str | None, str]:
    """The first of ours that the client takes, if there is one, and the rule that says so. Names compare exactly."""
    configured = option_value(options, "cipher")
    if peer_info.ciphers is not None:
        accepted, source = peer_info.ciphers, "IV_CIPHERS"
    elif peer_info.ncp >= 2:
        accepted, source = (*_NCP_CIPHERS, *filter(None, [configured])), f"IV_NCP={peer_info.ncp} and its configuration"
    else:
        accepted, source = tuple(filter(None, [configured])), "its configuration"
    cipher = next((cipher for cipher in server_ciphers if cipher in accepted), None)
    found = f"cipher {cipher} is the first of" if cipher else "no cipher among"
    rule = f"{found} {':'.join(server_ciphers)} for {source} ({':'.join(accepted) or 'none'})"
    if cipher is None and not CBC_CIPHERS.keys().isdisjoint(accepted):
        rule += "; CBC only where legacy_cbc_ciphers names it"
    return cipher, printable(rule)


def choose_digest(options: str) -> str | None:
    """The digest of the client's HMAC, which is never negotiated; None if it is none of ours."""
    configured = option_value(options, "auth")
    name = _DEFAULT_DIGEST if configured is None else _DIGEST_NAMES.get(configured, configured)
    return name if name in CBC_DIGESTS else None


def negotiate(server_ciphers: Sequence[str], peer_info: PeerInfo, options: str) -> Negotiated | Unsupported:
    """Decide everything from what the client said in its key method 2 message."""
    can = peer_info.capabilities
    if option_value(options, "dev-type") == "tap":
        text = "This server is a routed VPN: use dev tun, not dev tap"
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, text, "dev-type tap in its options string")
    if option_value(options, "mtu-dynamic") is not None:
        text = "Remove fragment from the client configuration"
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, text, "mtu-dynamic in its options string")
    if Capability.NCP_P2P in can:
        text = "Put client, or pull, into the client configuration"
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, text, "it takes no pushed options, says its IV_PROTO")
    cipher, rule = choose_cipher(server_ciphers, peer_info, options)
    if cipher is None:
        text = "Data channel cipher negotiation failed (no shared cipher)"
        return Unsupported(Refusal.NO_SHARED_CIPHER, text, rule)
    digest = choose_digest(options) if cipher in CBC_CIPHERS else ""
    if digest is None:
        text = f"Data channel authentication not supported: set auth to one of {', '.join(CBC_DIGESTS)}"
        said = printable(f"auth {option_value(options, 'auth')} in its options string")
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, text, f"{rule}, but there is {said}")
    exports = Capability.TLS_KEY_EXPORT in can
    knows_flags = Capability.CC_EXIT_NOTIFY in can
    data_v1 = Capability.DATA_V2 not in can
    return Negotiated(
        cipher=cipher,
        digest=digest,
        push_cipher=peer_info.ciphers is not None or peer_info.ncp >= 2,
        derivation=KeyDerivation.TLS_EKM if exports else KeyDerivation.PRF,
        dynamic_tls_crypt=knows_flags and Capability.DYN_TLS_CRYPT in can,
        exit_notify=knows_flags,
        epoch=knows_flags and exports and not data_v1 and Capability.DATA_EPOCH in can and cipher in AEAD_CIPHERS,
        data_v1=data_v1,
        framing=_framing(peer_info, options),
        knows_flags=knows_flags,
        rule=rule,
    )


def _framing(peer_info: PeerInfo, options: str) -> Framing:
    """``comp-lzo`` in the options string stands for every kind of compression framing."""
    if option_value(options, "comp-lzo") is None:
        return Framing.NONE
    return Framing.STUB_V2 if peer_info.values.get("IV_COMP_STUBv2") == "1" else Framing.COMP_LZO
