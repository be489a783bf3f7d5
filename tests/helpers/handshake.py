"""A TLS handshake between two contexts, over memory, with the verdict that it left."""

from dataclasses import dataclass, field

import pytest
from helpers.certs import TestCertificate
from OpenSSL import SSL

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.wire.tls import CertificateVerdict

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
both_versions = pytest.mark.parametrize("version", list(VERSIONS))


@dataclass
class Handshake:
    """What both sides saw. ``accepted``: the server finished and its verdict holds no refusal."""

    server: SSL.Connection
    client: SSL.Connection
    verdict: CertificateVerdict
    server_errors: list[str] = field(default_factory=list)
    client_errors: list[str] = field(default_factory=list)
    server_finished: bool = False
    bytes_after_finish: int = 0
    """What the server sent in the flight with which it finished: in TLS 1.3 its session tickets."""

    @property
    def accepted(self) -> bool:
        return self.server_finished and self.verdict.refusal is None and not self.server_errors


def client_context(certificate: TestCertificate | None, version: str = "1.3", groups: str = "") -> SSL.Context:
    """A client that shows ``certificate`` (with its intermediates), however weak it is. ``groups``: instead of those
    that OpenSSL offers for the key exchange."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(VERSIONS[version])
    context.set_max_proto_version(VERSIONS[version])
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    if groups:
        raw = context._context  # type: ignore[attr-defined]  # pyOpenSSL has no method for it
        assert SSL._lib.SSL_CTX_set1_curves_list(raw, groups.encode()) == 1, groups  # type: ignore[attr-defined]
    if certificate is not None:
        context.use_certificate(certificate.certificate)
        context.use_privatekey(certificate.private_key)
        for intermediate in certificate.intermediates:
            context.add_extra_chain_cert(intermediate)
    return context


def shake_hands(
    server: SSL.Context, client: SSL.Context, session: SSL.Session | None = None, *, with_verdict: bool = True
) -> Handshake:
    """Run the handshake until neither side has anything more to say."""
    result = Handshake(SSL.Connection(server, None), SSL.Connection(client, None), CertificateVerdict())
    if with_verdict:
        result.server.set_app_data(result.verdict)
    result.server.set_accept_state()
    result.client.set_connect_state()
    if session is not None:
        result.client.set_session(session)
    for _ in range(6):
        _step(result, result.client, result.server, result.client_errors)
        _step(result, result.server, result.client, result.server_errors)
    return result


def _step(result: Handshake, actor: SSL.Connection, other: SSL.Connection, errors: list[str]) -> None:
    finished_before = result.server_finished
    if not errors:
        try:
            actor.do_handshake()
            if actor is result.client:
                actor.recv(1)  # in TLS 1.3 the refusal comes after the client believes it is done
            else:
                result.server_finished = True
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            queue = error.args[0] if error.args else []
            errors.append(", ".join(entry[-1] for entry in queue) or type(error).__name__)
    try:
        data = actor.bio_read(1 << 16)
    except SSL.Error:
        return
    if actor is result.server and result.server_finished and not finished_before:
        result.bytes_after_finish = len(data)
    other.bio_write(data)


def login(trust: CertificateTrust, certificate: TestCertificate | None, version: str = "1.3") -> Handshake:
    return shake_hands(trust.ssl_context, client_context(certificate, version))
