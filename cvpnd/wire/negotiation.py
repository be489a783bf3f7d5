"""Which cipher and which protocol features a session uses (openvpn-wire.md section 13).

Decided once, before the first data keys. A feature is used if and only if it is pushed: a client that was not told
would end up with other keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cvpnd.reasons import Refusal
from cvpnd.wire.key_method import Capability, PeerInfo, option_value

_NCP_CIPHERS = ("AES-256-GCM", "AES-128-GCM")
"""What IV_NCP=2 promises."""


class KeyDerivation(StrEnum):
    PRF = "prf"
    TLS_EKM = "tls-ekm"


@dataclass(frozen=True, slots=True)
class Negotiated:
    cipher: str
    push_cipher: bool
    """Clients that know no cipher negotiation use the one of their configuration and must not be told."""
    derivation: KeyDerivation
    dynamic_tls_crypt: bool
    """Renegotiations are wrapped with a key of their own, exported from the first key's TLS connection."""
    exit_notify: bool
    """The client may say goodbye with an EXIT message."""
    stub_compression: bool
    """The client's configuration frames packets for compression; ``compress stub-v2`` turns that off."""
    knows_flags: bool

    def push_options(self, peer_id: int | None) -> list[str]:
        """The options that follow from the negotiation, in the reference's order."""
        options = []
        if peer_id is not None:
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
        if flags:
            options.append("protocol-flags " + " ".join(flags))
        if self.stub_compression:
            options.append("compress stub-v2")
        return options


@dataclass(frozen=True, slots=True)
class Unsupported:
    """This client cannot be served. ``text`` is what it is told."""

    refusal: Refusal
    text: str


def choose_cipher(server_ciphers: Sequence[str], peer_info: PeerInfo, options: str) -> str | None:
    """The first of ours that the client takes. Names compare exactly."""
    if peer_info.ciphers is not None:
        accepted = set(peer_info.ciphers)
    else:
        accepted = set(_NCP_CIPHERS) if peer_info.ncp >= 2 else set()
        configured = option_value(options, "cipher")
        if configured:
            accepted.add(configured)
    return next((cipher for cipher in server_ciphers if cipher in accepted), None)


def negotiate(server_ciphers: Sequence[str], peer_info: PeerInfo, options: str) -> Negotiated | Unsupported:
    """Decide everything from what the client said in its key method 2 message."""
    can = peer_info.capabilities
    if Capability.DATA_V2 not in can:
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, "This client is too old: it does not know peer ids (IV_PROTO)")
    if option_value(options, "dev-type") == "tap":
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, "This server is a routed VPN: use dev tun, not dev tap")
    if option_value(options, "mtu-dynamic") is not None:
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, "Remove fragment from the client configuration")
    compressed = option_value(options, "comp-lzo") is not None
    if compressed and peer_info.values.get("IV_COMP_STUBv2") != "1":
        return Unsupported(Refusal.UNSUPPORTED_CLIENT, "Remove comp-lzo and compress from the client configuration")
    cipher = choose_cipher(server_ciphers, peer_info, options)
    if cipher is None:
        return Unsupported(Refusal.NO_SHARED_CIPHER, "Data channel cipher negotiation failed (no shared cipher)")
    exports = Capability.TLS_KEY_EXPORT in can
    knows_flags = Capability.CC_EXIT_NOTIFY in can
    return Negotiated(
        cipher=cipher,
        push_cipher=peer_info.ciphers is not None or peer_info.ncp >= 2,
        derivation=KeyDerivation.TLS_EKM if exports else KeyDerivation.PRF,
        dynamic_tls_crypt=knows_flags and Capability.DYN_TLS_CRYPT in can,
        exit_notify=knows_flags,
        stub_compression=compressed,
        knows_flags=knows_flags,
    )
