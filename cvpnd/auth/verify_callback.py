"""OpenSSL's verify callback, in a process that may not make memory both writable and executable.

pyOpenSSL's own callbacks are closures by cffi, which need such memory: the unit's ``MemoryDenyWriteExecute=`` forbids
it. Those of ctypes come from libffi's static trampolines, which do without. Doing it here also chooses the TLS alert:
OpenSSL does so by its verification error, and pyOpenSSL can only say no, which leaves none and becomes "internal
error", so that the holder of a revoked certificate would read that the server is broken.

This takes names that pyOpenSSL does not document; where a version lacks them, its own callback is used: the alert is
the vague one, and the service needs ``MemoryDenyWriteExecute=no``."""

import ctypes
import logging
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL, crypto

from cvpnd.reasons import Refusal

log = logging.getLogger(__name__)

Judge = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]
"""As pyOpenSSL calls it: connection, certificate, OpenSSL's error, depth, whether OpenSSL is content."""

_MODE = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
_X509_V_OK = 0
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_FUNCTIONS = (
    "SSL_CTX_set_verify",
    "SSL_get_ex_data_X509_STORE_CTX_idx",
    "X509_STORE_CTX_get_current_cert",
    "X509_STORE_CTX_get_error",
    "X509_STORE_CTX_get_error_depth",
    "X509_STORE_CTX_get_ex_data",
    "X509_STORE_CTX_set_error",
    "X509_up_ref",
)

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


def require_certificates(context: SSL.Context, judge: Judge, *, authorities_too: bool) -> None:
    """Every client of the context must show a certificate that ``judge`` accepts. Before the first connection.

    ``authorities_too`` false: it has nothing to say about a CA certificate that OpenSSL accepts, and is not asked."""
    lib: Any = getattr(SSL, "_lib", None)
    ffi: Any = getattr(SSL, "_ffi", None)
    raw: Any = getattr(context, "_context", None)
    by_pointer: Any = getattr(SSL.Connection, "_reverse_mapping", None)
    wrapped: Any = getattr(crypto.X509, "_from_raw_x509_ptr", None)
    if None in (lib, ffi, raw, by_pointer, wrapped) or not all(hasattr(lib, name) for name in _FUNCTIONS):
        log.warning("this pyOpenSSL is not known: refused clients see a vague alert, and more memory is executable")
        context.set_verify(_MODE, judge)
        return

    def verdict(ok: int, store_context: Any) -> int:
        depth = lib.X509_STORE_CTX_get_error_depth(store_context)
        if ok and depth > 0 and not authorities_too:
            return 1
        certificate = lib.X509_STORE_CTX_get_current_cert(store_context)
        if certificate == ffi.NULL:  # policy checks ask without one; nothing here turns them on
            return 0
        lib.X509_up_ref(certificate)
        connection = by_pointer[lib.X509_STORE_CTX_get_ex_data(store_context, lib.SSL_get_ex_data_X509_STORE_CTX_idx())]
        error = lib.X509_STORE_CTX_get_error(store_context)
        if judge(connection, wrapped(certificate), error, depth, ok):
            lib.X509_STORE_CTX_set_error(store_context, _X509_V_OK)
            return 1
        if error == _X509_V_OK:
            refusal: Any = getattr(connection.get_app_data(), "refusal", None)
            lib.X509_STORE_CTX_set_error(store_context, _ERROR_OF_REFUSAL.get(refusal, 1))
        return 0

    def verify(ok: int, address: int) -> int:
        # Nothing may leave this: ctypes would print it, and what OpenSSL then read as our answer is undefined.
        try:
            return verdict(ok, ffi.cast("X509_STORE_CTX *", address))
        except BaseException:
            log.critical("a certificate could not be judged: refused", exc_info=True)
            return 0

    callback = _Callback(verify)
    address = ctypes.c_void_p.from_buffer(callback).value  # cast() would have the callback keep itself
    lib.SSL_CTX_set_verify(raw, _MODE, ffi.cast("int (*)(int, X509_STORE_CTX *)", address))
    vars(context)["_cvpnd_verify_callback"] = (
        callback  # C does not keep it alive; the context, hence each connection, must
    )
