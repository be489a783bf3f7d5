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
    HANDSHAKE_GAVE_WAY = "handshake-gave-way"
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
    ACCOUNT_UNCHECKED = "account-unchecked"
    PASSWORD_EXPIRED = "password-expired"  # noqa: S105
    MUST_CHANGE_PASSWORD = "must-change-password"  # noqa: S105
    LOGON_HOURS = "logon-hours"
    MFA_REQUIRED = "mfa-required"
    MFA_NOT_ENROLLED = "mfa-not-enrolled"
    MFA_CODE_WRONG = "mfa-code-wrong"
    MFA_CODE_REUSED = "mfa-code-reused"
    MFA_REJECTED = "mfa-rejected"
    MFA_THROTTLED = "mfa-throttled"
    RADIUS_UNAVAILABLE = "radius-unavailable"
    RADIUS_UNVERIFIED = "radius-unverified"
    USERNAME_NOT_COMMON_NAME = "username-not-common-name"
    TOKEN_INVALID = "token-invalid"  # noqa: S105
    TOKEN_EXPIRED = "token-expired"  # noqa: S105
    WAITING_FOR_ASSERTION = "waiting-for-assertion"
    """No refusal yet: the client was sent to its identity provider, and comes back."""
    SAML_CLIENT_UNSUITED = "saml-client-unsuited"
    SAML_UNAVAILABLE = "saml-unavailable"
    SAML_METADATA_EXPIRED = "saml-metadata-expired"
    SAML_REQUEST_UNKNOWN = "saml-request-unknown"
    SAML_REQUEST_EXPIRED = "saml-request-expired"
    SAML_REQUEST_USED = "saml-request-used"
    SAML_OTHER_ADDRESS = "saml-other-address"
    SAML_TOO_LARGE = "saml-too-large"
    SAML_MALFORMED = "saml-malformed"
    SAML_DOCTYPE = "saml-doctype"
    SAML_COMMENT = "saml-comment"
    SAML_ENCRYPTED = "saml-encrypted"
    SAML_NOT_ONE_ASSERTION = "saml-not-one-assertion"
    SAML_UNSIGNED = "saml-unsigned"
    SAML_WRAPPED = "saml-wrapped"
    SAML_SIGNATURE_METHOD = "saml-signature-method"
    SAML_SIGNATURE_INVALID = "saml-signature-invalid"
    SAML_NO_SUCCESS = "saml-no-success"
    SAML_WRONG_ISSUER = "saml-wrong-issuer"
    SAML_WRONG_DESTINATION = "saml-wrong-destination"
    SAML_WRONG_RECIPIENT = "saml-wrong-recipient"
    SAML_WRONG_AUDIENCE = "saml-wrong-audience"
    SAML_WRONG_REQUEST = "saml-wrong-request"
    SAML_NOT_YET_VALID = "saml-not-yet-valid"
    SAML_EXPIRED = "saml-expired"
    SAML_REPLAYED = "saml-replayed"
    SAML_NO_NAME = "saml-no-name"
    SAML_NO_ATTRIBUTES = "saml-no-attributes"
    LOGIN_THROTTLED = "login-throttled"
    LOGIN_UNANSWERED = "login-unanswered"
    LOGIN_DECLINED = "login-declined"
    BROWSER_MISMATCH = "browser-mismatch"
    TOO_MANY_LOGINS = "too-many-logins"
    DIRECTORY_TIMEOUT = "directory-timeout"
    DIRECTORY_UNAVAILABLE = "directory-unavailable"
    DATABASE_UNAVAILABLE = "database-unavailable"
    CLIENT_CONNECT_FAILED = "client-connect-failed"
    """The client connect handler said no. AWS's word, as the next five are, for a handler that gave no valid answer."""
    CLIENT_CONNECT_HANDLER_TIMED_OUT = "client-connect-handler-timed-out"
    CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR = "client-connect-handler-other-execution-error"
    CLIENT_CONNECT_HANDLER_THROTTLED = "client-connect-handler-throttled"
    CLIENT_CONNECT_HANDLER_INVALID_RESPONSE = "client-connect-handler-invalid-response"
    CLIENT_CONNECT_HANDLER_SERVICE_ERROR = "client-connect-handler-service-error"
    ADDRESS_POOL_FULL = "address-pool-full"
    SESSION_LIMIT = "session-limit"
    IDENTITY_SESSION_LIMIT = "identity-session-limit"
    TERMINATED = "terminated"
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
    CERTIFICATE_UNKNOWN_CA = "certificate-unknown-ca"
    CRL_EXPIRED = "crl-expired"
    ACCOUNT_DISABLED = "account-disabled"
    IDENTITY_PROVIDER_CHANGED = "identity-provider-changed"
    ACCOUNT_UNCHECKED = "account-unchecked"
    TERMINATED = "terminated"
    SESSION_TIMEOUT = "session-timeout"
    IDLE_TIMEOUT = "idle-timeout"
    CONFIGURATION_CHANGED = "configuration-changed"
    DEVICE_LOST = "device-lost"
    SHUTDOWN = "shutdown"
    PROTOCOL_VIOLATION = "protocol-violation"
    KEY_EXHAUSTED = "key-exhausted"
    IDENTITY_SESSION_LIMIT = "identity-session-limit"


_BEFORE_KEYS = {
    **{end: Refusal.HANDSHAKE_ABANDONED for end in End},
    **{end: Refusal(end) for end in End if end in set(map(str, Refusal))},
    End.IDENTITY_PROVIDER_CHANGED: Refusal.SAML_WRONG_ISSUER,
    End.SESSION_TIMEOUT: Refusal.TOKEN_EXPIRED,
    End.CONFIGURATION_CHANGED: Refusal.SHUTTING_DOWN,
    End.DEVICE_LOST: Refusal.SHUTTING_DOWN,
    End.SHUTDOWN: Refusal.SHUTTING_DOWN,
}


def of_attempt(reason: Refusal | End) -> Refusal:
    """What it is called where no session has begun: login has said yes, and its client never had a key."""
    return reason if isinstance(reason, Refusal) else _BEFORE_KEYS[reason]


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
    TOO_MANY_CONNECTIONS = "too-many-connections"  # of one source, or of all; closed before anything was read


class PortalRefusal(StrEnum):
    """Why a page of the portal was refused; what an identity provider's answer is refused for is the login's."""

    LINK_UNKNOWN = "link-unknown"
    LINK_USED = "link-used"
    BROWSER_MISMATCH = "browser-mismatch"
    RELAY_STATE_UNKNOWN = "relay-state-unknown"
    ASSERTION_REFUSED = "assertion-refused"
    CONSENT_FORGED = "consent-forged"
    SELF_SERVICE_UNKNOWN = "self-service-unknown"
    LOGIN_REFUSED = "login-refused"
    DATABASE_UNAVAILABLE = "database-unavailable"
    SESSION_UNKNOWN = "session-unknown"
    FORM_FORGED = "form-forged"
    REQUEST_MALFORMED = "request-malformed"
    REQUEST_TOO_LARGE = "request-too-large"
    REQUEST_TOO_SLOW = "request-too-slow"
    TOO_MANY_REQUESTS = "too-many-requests"
    TOO_MANY_CONNECTIONS = "too-many-connections"  # of one source, or of all; closed before anything was read
