"""How any step of a login says no, and what the client is told then."""

from __future__ import annotations

from cvpnd.reasons import Refusal

HANDLER_TEXT = "Error establishing connection. Please contact your administrator."
"""AWS's, where the client connect handler gave no valid answer."""
SAML_TEXT = "The answer of your identity provider was not accepted here, connect again or ask your administrator"
"""Whatever is wrong with it: the log has the reason."""
CLIENT_TEXT = {
    Refusal.ADDRESS_POOL_FULL: "No free address on the server, try again later",
    Refusal.SESSION_LIMIT: "Too many sessions, try again later",
    Refusal.IDENTITY_SESSION_LIMIT: "Too many sessions of this user, try again later",
    Refusal.TOO_MANY_LOGINS: "Too many logins at this moment, try again later",
    Refusal.DIRECTORY_TIMEOUT: "The login service does not answer, try again later",
    Refusal.DIRECTORY_UNAVAILABLE: "The login service does not answer, try again later",
    Refusal.DATABASE_UNAVAILABLE: "The login service does not answer, try again later",
    Refusal.SAML_UNAVAILABLE: "The login service does not answer, try again later",
    Refusal.CLIENT_CONNECT_HANDLER_TIMED_OUT: HANDLER_TEXT,
    Refusal.CLIENT_CONNECT_HANDLER_THROTTLED: HANDLER_TEXT,
    Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR: HANDLER_TEXT,
    Refusal.RADIUS_UNAVAILABLE: "The login service does not answer, try again later",
    Refusal.RADIUS_UNVERIFIED: "The login service does not answer, try again later",
    Refusal.SHUTTING_DOWN: "The server is restarting",
}
"""What a refused client is told beyond ``AUTH_FAILED``; for any other reason, nothing. These are also the ones that
pass: a client that can is told to try again by itself."""
FINAL_TEXT = {
    **{refusal: SAML_TEXT for refusal in Refusal if refusal.startswith("saml-")},
    Refusal.LOGIN_THROTTLED: "Too many failed logins, try again later",
    Refusal.LOGIN_UNANSWERED: "Nobody completed the login in time",
    Refusal.LOGIN_DECLINED: "The login was declined in the browser",
    Refusal.SAML_TOO_LARGE: "The SAML response is larger than 128 kB, ask your administrator to have fewer groups sent",
    Refusal.SAML_REQUEST_EXPIRED: "The login took too long, connect again",
    Refusal.SAML_OTHER_ADDRESS: "The login began at another address, connect again",
    Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR: HANDLER_TEXT,
    Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE: HANDLER_TEXT,
    Refusal.TOKEN_INVALID: "SESSION: token expired",
    Refusal.TOKEN_EXPIRED: "SESSION: token expired",
}
"""The same for those that wait for a person: a client that came back by itself would only fail again. One whose token
was refused forgets it and comes back with the password, or asks for it."""


class Denied(Exception):
    def __init__(self, refusal: Refusal, detail: str = "", *, text: str = "") -> None:
        """``text``: what the client is told in place of what it is told for the refusal."""
        super().__init__(detail or str(refusal))
        self.refusal = refusal
        self.detail = detail
        self.text = text
