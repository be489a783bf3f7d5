"""The TLS alert for what our own checks refuse.

OpenSSL chooses the alert by its verification error. pyOpenSSL's callback can only say no, which leaves no error, and
that becomes "internal error": the holder of a revoked certificate would read that the server is broken. Setting the
error takes names that pyOpenSSL does not document; where a version lacks them, the alert is the vague one and nothing
else changes."""

import logging
from typing import Any

from OpenSSL import SSL

from cvpnd.reasons import Refusal

log = logging.getLogger(__name__)

_X509_V_OK = 0

# X509_V_ERR_* and, behind it, the alert that OpenSSL makes of it.
_ERROR_OF_REFUSAL = {
    Refusal.CERTIFICATE_REVOKED: 23,  # certificate revoked
    Refusal.CRL_EXPIRED: 12,  # certificate expired
    Refusal.CERTIFICATE_WEAK_KEY: 66,  # bad certificate
    Refusal.CERTIFICATE_NO_COMMON_NAME: 28,  # bad certificate
    Refusal.CERTIFICATE_INVALID: 28,
    Refusal.CRL_UNUSABLE: 1,  # internal error: it is ours
    Refusal.INTERNAL_ERROR: 1,
}


def name_alerts(context: SSL.Context) -> None:
    """Wrap the context's verify callback so that a refusal in its verdict chooses the alert. Call after set_verify."""
    lib: Any = getattr(SSL, "_lib", None)
    ffi: Any = getattr(SSL, "_ffi", None)
    inner: Any = getattr(context, "_verify_callback", None)
    raw: Any = getattr(context, "_context", None)
    by_pointer: Any = getattr(SSL.Connection, "_reverse_mapping", None)
    needed = (
        "SSL_CTX_set_verify",
        "SSL_get_ex_data_X509_STORE_CTX_idx",
        "X509_STORE_CTX_get_error",
        "X509_STORE_CTX_get_ex_data",
        "X509_STORE_CTX_set_error",
    )
    if None in (lib, ffi, inner, raw, by_pointer) or not all(hasattr(lib, name) for name in needed):
        log.debug("this pyOpenSSL cannot name TLS alerts; refused clients see a vague one")
        return

    def verify(ok: int, store_context: Any) -> int:
        accepted: int = inner(ok, store_context)
        if not accepted and lib.X509_STORE_CTX_get_error(store_context) == _X509_V_OK:
            pointer = lib.X509_STORE_CTX_get_ex_data(store_context, lib.SSL_get_ex_data_X509_STORE_CTX_idx())
            refusal: Any = getattr(by_pointer[pointer].get_app_data(), "refusal", None)
            error = _ERROR_OF_REFUSAL.get(refusal, 1)
            lib.X509_STORE_CTX_set_error(store_context, error)
        return accepted

    # An exception in here would be printed by cffi and count as 0, a refusal.
    callback = ffi.callback("int (*)(int, X509_STORE_CTX *)", verify)
    lib.SSL_CTX_set_verify(raw, context.get_verify_mode(), callback)
    vars(context)["_cvpnd_verify_callback"] = callback  # C does not keep it alive; the context must
