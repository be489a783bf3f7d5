"""The words for every refusal and every end of a session.

One word, used alike in the connection log, as the metric label and in the manual, so that an operator can
search for what they see. A client is told much less (see ``wire.messages``)."""

from enum import StrEnum


class Refusal(StrEnum):
    """Why a connection attempt was not let in (``connection-attempt-failure-reason`` in the log)."""

    CERTIFICATE_MISSING = "certificate-missing"
    CERTIFICATE_UNKNOWN_CA = "certificate-unknown-ca"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_REVOKED = "certificate-revoked"
    CERTIFICATE_NO_COMMON_NAME = "certificate-no-common-name"
    CERTIFICATE_WRONG_PURPOSE = "certificate-wrong-purpose"
    CERTIFICATE_WEAK_KEY = "certificate-weak-key"
    CERTIFICATE_INVALID = "certificate-invalid"
    CRL_EXPIRED = "crl-expired"
    CRL_UNUSABLE = "crl-unusable"
    TLS_FAILURE = "tls-failure"
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    HANDSHAKE_ABANDONED = "handshake-abandoned"
    PROTOCOL_VIOLATION = "protocol-violation"
    IDENTITY_CHANGED = "identity-changed"
    NO_SHARED_CIPHER = "no-shared-cipher"
    UNSUPPORTED_CLIENT = "unsupported-client"
    CREDENTIALS_MISSING = "credentials-missing"
    CHALLENGE_UNEXPECTED = "challenge-unexpected"
    USER_UNKNOWN = "user-unknown"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105
    ACCOUNT_DISABLED = "account-disabled"
    ACCOUNT_EXPIRED = "account-expired"
    ACCOUNT_LOCKED = "account-locked"
    PASSWORD_EXPIRED = "password-expired"  # noqa: S105
    MUST_CHANGE_PASSWORD = "must-change-password"  # noqa: S105
    LOGON_HOURS = "logon-hours"
    MFA_REQUIRED = "mfa-required"
    MFA_NOT_ENROLLED = "mfa-not-enrolled"
    MFA_CODE_WRONG = "mfa-code-wrong"
    MFA_CODE_REUSED = "mfa-code-reused"
    MFA_THROTTLED = "mfa-throttled"
    USERNAME_NOT_COMMON_NAME = "username-not-common-name"
    TOKEN_INVALID = "token-invalid"  # noqa: S105
    TOKEN_EXPIRED = "token-expired"  # noqa: S105
    LOGIN_THROTTLED = "login-throttled"
    LOGIN_UNANSWERED = "login-unanswered"
    TOO_MANY_LOGINS = "too-many-logins"
    DIRECTORY_TIMEOUT = "directory-timeout"
    DIRECTORY_UNAVAILABLE = "directory-unavailable"
    ADDRESS_POOL_FULL = "address-pool-full"
    SESSION_LIMIT = "session-limit"
    IDENTITY_SESSION_LIMIT = "identity-session-limit"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL_ERROR = "internal-error"


class End(StrEnum):
    """Why an established session ended (``connection-end-reason`` in the log)."""

    CLIENT_EXIT = "client-exit"
    CLIENT_TIMEOUT = "client-timeout"
    CLIENT_RECONNECTED = "client-reconnected"
    TCP_CLOSED = "tcp-closed"
    RENEGOTIATION_FAILED = "renegotiation-failed"
    CERTIFICATE_REVOKED = "certificate-revoked"
    CRL_EXPIRED = "crl-expired"
    ACCOUNT_DISABLED = "account-disabled"
    TERMINATED = "terminated"
    SESSION_TIMEOUT = "session-timeout"
    CONFIGURATION_CHANGED = "configuration-changed"
    SHUTDOWN = "shutdown"
    PROTOCOL_VIOLATION = "protocol-violation"
    KEY_EXHAUSTED = "key-exhausted"
    IDENTITY_SESSION_LIMIT = "identity-session-limit"


class ApiRefusal(StrEnum):
    """Why a request to the AWS-compatible API was refused before any operation was looked at."""

    SIGNATURE_MISSING = "signature-missing"
    SIGNATURE_MALFORMED = "signature-malformed"
    SIGNATURE_MISMATCH = "signature-mismatch"
    ACCESS_KEY_UNKNOWN = "access-key-unknown"
    REQUEST_EXPIRED = "request-expired"
    REQUEST_REPLAYED = "request-replayed"
    REQUEST_TOO_LARGE = "request-too-large"
    READ_ONLY_KEY = "read-only-key"
