"""One identity provider: sends browsers to it, and looks at what they bring back."""

from __future__ import annotations

import logging
import secrets
import shutil
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.metadata import IdpMetadata, key_of
from cvpnd.auth.saml.model import DEFAULT_ENTITY_ID, Assertion, NotAccepted, PendingRequest
from cvpnd.reasons import Refusal

log = logging.getLogger(__name__)

REQUEST_ID_BYTES = 16
LOGIN_TIME_S = 300.0
SKEW_S = 30


def program_is_there() -> bool:
    return shutil.which("xmlsec1") is not None


@dataclass(frozen=True, slots=True)
class SamlProvider:
    """Immutable; any thread may ask. pysaml2 (55 MB, a second) is loaded with the first request or response."""

    id: str
    idp: IdpMetadata
    entity_id: str = DEFAULT_ENTITY_ID
    """Our own."""
    signing_key: RSAPrivateKey | None = field(default=None, repr=False)
    """For requests; None: they are not signed."""
    skew_s: int = SKEW_S
    login_time_s: float = LOGIN_TIME_S
    """How long a person may take."""

    def begin(
        self, now: float, acs_url: str, *, request_id: str = "", relay_state: str = ""
    ) -> tuple[PendingRequest, str]:
        """A new request, and the address to open in the browser. Keep the request: ``accept`` wants it. ``now`` is in
        seconds since the epoch."""
        from cvpnd.auth.saml.request import login_url  # pysaml2

        request = PendingRequest(
            request_id or new_request_id(secrets.token_bytes(REQUEST_ID_BYTES)), acs_url, now, now + self.login_time_s
        )
        return request, login_url(
            request, self.idp, entity_id=self.entity_id, signing_key=self.signing_key, relay_state=relay_state
        )

    def accept(self, response: str, request: PendingRequest, now: float) -> Assertion | Refused:
        """``response``: as the browser brought it, in base64. Takes a tenth of a second and starts programs: call it
        from a thread, once for each request (``SamlLogins.accept`` does both). Never raises for what is in it."""
        try:
            return self._accept(response, request, now)
        except NotAccepted as no:
            return Refused(no.refusal, no.detail)
        except OSError as error:  # no program, no file, no memory for either: nothing is known of the response
            detail = f"{type(error).__name__}: {error}"[:200]
            log.error("provider %s: a response cannot be looked at: %s", self.id, detail)
            return Refused(Refusal.SAML_UNAVAILABLE, detail)
        except Exception as error:  # whatever it is, it is no yes
            log.exception("provider %s: a response cannot be looked at", self.id)
            return Refused(Refusal.SAML_MALFORMED, f"{type(error).__name__}: {error}"[:200])

    def _accept(self, response: str, request: PendingRequest, now: float) -> Assertion:
        from cvpnd.auth.saml.claims import read_claims
        from cvpnd.auth.saml.document import read_document
        from cvpnd.auth.saml.opinion import ask_pysaml2  # pysaml2, as the next
        from cvpnd.auth.saml.signature import new_backend, verify

        if now >= request.good_until:
            raise NotAccepted(Refusal.SAML_REQUEST_EXPIRED, f"{now - request.good_until:.0f} s too late")
        if self.idp.expired(now):
            raise NotAccepted(Refusal.SAML_METADATA_EXPIRED, f"the metadata of {self.idp.entity_id} has expired")
        document = read_document(response)
        backend = new_backend()
        used = verify(document, self.idp.certificates, backend)
        claimed = read_claims(
            document, request, issuer=self.idp.entity_id, audience=self.entity_id, now=now, skew_s=self.skew_s
        )
        ask_pysaml2(
            document, request, claimed, idp=self.idp, entity_id=self.entity_id, skew_s=self.skew_s, backend=backend
        )
        return replace(claimed, issuer=self.idp.entity_id, signed_by=frozenset(map(key_of, used)))


def new_request_id(nonce: bytes) -> str:
    return f"_{nonce.hex()}"
