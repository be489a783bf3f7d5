"""The .ovpn profile that a person imports into their client: everything in one file.

Options that a client may not know are announced with `ignore-unknown-option`, so that one profile serves OpenVPN 2.4
to 2.8. What the server pushes (addresses, routes, DNS, ping, exit notification) is not repeated here."""

from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.challenge import QUESTION
from cvpnd.auth.identity import Refused, common_name, problem_with_name
from cvpnd.auth.names import canonical_name
from cvpnd.config import EndpointConfig
from cvpnd.wire.agreement import NO_NAME
from cvpnd.wire.wrap.key_files import KeyFileError, parse_static_key, serialise_static_key

ProfileKind = Literal["openvpn", "connect", "tunnelblick", "networkmanager", "aws"]
KINDS: tuple[ProfileKind, ...] = get_args(ProfileKind)

# For OpenVPN 2.4, which knows only one cipher by name and negotiates the others by itself.
_FALLBACK_CIPHER = "AES-256-GCM"


_NOBODY = f"<auth-user-pass>\n{NO_NAME}\n{NO_NAME}\n</auth-user-pass>"


class ProfileError(Exception):
    """No profile can be made; str() says what is missing and where to add it."""


def render_profile(
    endpoint: EndpointConfig,
    trust: CertificateTrust,
    name: str,
    *,
    certificate: bytes | None = None,
    private_key: bytes | None = None,
    client_key: bytes | None = None,
    kind: str = "openvpn",
) -> str:
    """The profile of ``name`` for an endpoint. Without a certificate and key it refers to files NAME.crt and NAME.key,
    for those who issue their certificates elsewhere. ``client_key``: a tls-crypt-v2 client key file, used if given;
    else the key that all clients of the endpoint share. The result holds the private key: never log it."""
    if kind not in KINDS:
        raise ProfileError(f"{kind} is no kind of profile; choose {', '.join(KINDS)}")
    if (problem := problem_with_name(name)) is not None or "/" in name:
        raise ProfileError(f"the name {name!r} {problem or 'contains a slash'}")
    server_name = common_name(trust.server_certificate)
    if isinstance(server_name, Refused):
        raise ProfileError(f"{trust.settings.certificate}: {server_name.detail}; clients could not verify the server")
    lines = [
        f"# {name} at {endpoint.name}. {_meaning(endpoint, name, with_key=private_key is not None)}",
        "client",
        "dev tun",
        *_remotes(endpoint, endpoint.remote or server_name),
        "nobind",
        "persist-tun",
        "resolv-retry infinite",
        "remote-cert-tls server",
        f"verify-x509-name {_quoted(server_name)} name",
        f"tls-version-min {endpoint.tls.minimum_version}",
        f"cipher {_FALLBACK_CIPHER if _FALLBACK_CIPHER in endpoint.data_ciphers else endpoint.data_ciphers[0]}",
        *_lines_of_kind(endpoint, kind),
        *_user_method(endpoint, kind),
        "verb 3",
        *_control_protection(endpoint, client_key),
        _inline("ca", _server_authorities(trust)),
    ]
    if endpoint.certificate_method is None:
        pass
    elif certificate is not None and private_key is not None:
        lines += [_inline("cert", certificate), _inline("key", private_key)]
    else:
        lines += [f"cert {_quoted(f'{name}.crt')}", f"key {_quoted(f'{name}.key')}"]
    return "\n".join(lines) + "\n"


def render_export(endpoint: EndpointConfig, trust: CertificateTrust) -> str:
    """The profile that all clients of an endpoint share, without any certificate: each appends its own ``<cert>`` and
    ``<key>``. Options and their order are those of AWS's export."""
    server_name = common_name(trust.server_certificate)
    if isinstance(server_name, Refused):
        raise ProfileError(f"the server certificate: {server_name.detail}; clients could not verify the server")
    lines = [
        "client",
        "dev tun",
        *_remotes(endpoint, endpoint.remote or server_name),
        "resolv-retry infinite",
        "nobind",
        "remote-cert-tls server",
        f"cipher {_FALLBACK_CIPHER if _FALLBACK_CIPHER in endpoint.data_ciphers else endpoint.data_ciphers[0]}",
        "verb 3",
        *_control_protection(endpoint, None),
        _inline("ca", _server_authorities(trust)),
        *_user_method(endpoint, "aws"),
        "reneg-sec 0",
        f"verify-x509-name {_quoted(server_name)} name",
    ]
    return "\n".join(lines) + "\n"


def _meaning(endpoint: EndpointConfig, name: str, *, with_key: bool) -> str:
    if endpoint.certificate_method is None:
        return "There is nothing secret in it but what all clients share."
    if not with_key:
        return f"Beside it belong {name}.crt and {name}.key, which are not in it: keep the key secret."
    if endpoint.user_method is not None:
        return "It is one half of what it takes to connect: keep it secret."
    return f"Whoever has this file can connect as {name}: keep it secret."


def _user_method(endpoint: EndpointConfig, kind: str) -> list[str]:
    """A client that keeps the password can log in by itself again when its token has ended. One that logs in at an
    identity provider asks for none; AWS's is told so by options that no other client knows, and others have one that is
    none, without which openvpn does not start."""
    if endpoint.user_method is None:
        return ["auth-nocache"]
    if endpoint.user_method.is_federated:
        return ["auth-federate", "auth-nocache", "auth-retry interact"] if kind == "aws" else [_NOBODY]
    with_password = endpoint.user_method.mfa in ("totp", "radius")  # "radius-challenge" is asked afterwards
    asked = [f"static-challenge {_quoted(QUESTION)} 1"] if with_password else []
    return ["auth-user-pass", *asked]


def _lines_of_kind(endpoint: EndpointConfig, kind: str) -> list[str]:
    ciphers = f"data-ciphers {':'.join(endpoint.data_ciphers)}"
    match kind:
        case "connect":  # OpenVPN 3 ignores what it does not know; the name is what its list of profiles shows
            without = ["setenv CLIENT_CERT 0"] if endpoint.certificate_method is None else []  # older ones ask for one
            return [ciphers, f"setenv FRIENDLY_NAME {_quoted(endpoint.name)}", *without]
        case "aws":  # AWS's client takes few directives, and none twice
            return ["reneg-sec 0"] if endpoint.user_method is not None and endpoint.user_method.is_federated else []
        case "openvpn" if endpoint.user_method is not None and endpoint.user_method.is_federated:
            # without a graphical client around it, openvpn writes the address to open into its log
            return ["ignore-unknown-option data-ciphers", ciphers, "setenv IV_SSO webauth"]
        case "networkmanager":  # its importer rejects ignore-unknown-option and always runs a recent OpenVPN
            return [ciphers]
        case _:
            return ["ignore-unknown-option data-ciphers", ciphers]


def _control_protection(endpoint: EndpointConfig, client_key: bytes | None) -> list[str]:
    """The client's side of the wrapping: its own key before the shared one."""
    protection = endpoint.control_protection
    if client_key is not None:
        return [_inline("tls-crypt-v2", client_key)]
    if protection.tls_crypt is not None:
        return [_inline("tls-crypt", _static_key(protection.tls_crypt.key))]
    if protection.tls_auth is not None:
        lines = [f"auth {protection.tls_auth.digest}", _inline("tls-auth", _static_key(protection.tls_auth.key))]
        if protection.tls_auth.direction != "none":
            lines.append(f"key-direction {1 - protection.tls_auth.direction}")
        return lines
    if not protection.allows_plain:
        raise ProfileError(
            f"endpoint {endpoint.name} wants a tls-crypt-v2 key that belongs to a certificate; let --issue make both, "
            "or name the certificate with --serial"
        )
    return []


def _static_key(path: Path) -> bytes:
    """Without the comments that may be around it."""
    try:
        return serialise_static_key(parse_static_key(path.read_bytes()))
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from None
    except KeyFileError as error:
        raise ProfileError(f"{path}: {error}") from None


def _remotes(endpoint: EndpointConfig, host: str) -> list[str]:
    """One line a port, UDP first: a client tries them in this order. TCP is for networks that let nothing else out."""
    ports = {(listen.transport, listen.port): None for listen in endpoint.listen}  # a dict keeps the file's order
    udp_first = sorted(ports, key=lambda port: port[0] != "udp")
    # below a wildcard a client may ask for any name, which keeps resolvers from handing out an old answer
    wildcard = ["remote-random-hostname"] if host.startswith("*.") else []
    host = host.removeprefix("*.")
    return [*(f"remote {host} {port} {transport}" for transport, port in udp_first), *wildcard]


def _server_authorities(trust: CertificateTrust) -> bytes:
    """The CA certificates from the server's issuer up to its root, as far as the endpoint's files go."""
    known = {canonical_name(each.subject): each for each in (*trust.server_chain[1:], *trust.authorities)}
    found: list[x509.Certificate] = []
    current = trust.server_certificate
    while (issuer := known.pop(canonical_name(current.issuer), None)) is not None:
        found.append(issuer)
        current = issuer
    if not found:
        issuer_name = trust.server_certificate.issuer.rfc4514_string()
        raise ProfileError(
            f"the server's certificate authority ({issuer_name}) is in no file; add its certificate as `chain` to the "
            "endpoint's server_certificate, or import that with --chain"
        )
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in found)


def _inline(tag: str, pem: bytes) -> str:
    return f"<{tag}>\n{pem.decode('ascii').strip()}\n</{tag}>"


def _quoted(text: str) -> str:
    """As OpenVPN's configuration reader takes it; control characters were refused before."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
