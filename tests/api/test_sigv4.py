"""Signatures as botocore makes them, and every way to bend them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from helpers.mutants import Mutant

from cvpnd.api.aws import sigv4
from cvpnd.api.aws.app import BODY_S
from cvpnd.api.aws.sigv4 import (
    HONEST_REPEAT_S,
    REMEMBERED_S,
    SKEW_S,
    Claim,
    Headers,
    Refused,
    check_repeat,
    read_claim,
    verify,
)
from cvpnd.reasons import ApiRefusal
from cvpnd.store import SeenRequest

KEY, SECRET = "AKIAEXAMPLE0000001", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
BODY = b"Action=DescribeClientVpnEndpoints&Version=2016-11-15"


def signed(body: bytes = BODY, secret: str = SECRET, service: str = "ec2", **headers: str) -> list[tuple[str, str]]:
    """A request's headers, signed by botocore."""
    given = {"Host": "127.0.0.1:8443", "Content-Type": "application/x-www-form-urlencoded; charset=utf-8", **headers}
    request = AWSRequest("POST", "http://127.0.0.1:8443/", headers=given, data=body)
    SigV4Auth(Credentials(KEY, secret), service, "eu-central-1").add_auth(request)
    return [(name.lower(), value) for name, value in request.headers.items()]


def now() -> datetime:
    return datetime.now(UTC)


def judge(headers: Headers, body: bytes = BODY, at: datetime | None = None) -> Claim:
    claim = read_claim(headers, at or now())
    verify(claim, SECRET.encode(), headers, body)
    return claim


def reason(headers: Headers, body: bytes = BODY, at: datetime | None = None) -> ApiRefusal:
    with pytest.raises(Refused) as refused:
        judge(headers, body, at)
    return refused.value.reason


def changed(headers: Headers, name: str, value: str) -> list[tuple[str, str]]:
    return [(key, value if key == name else old) for key, old in headers]


def without(headers: Headers, name: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in headers if key != name]


def test_what_botocore_signs_is_accepted_with_whom_and_what_it_names() -> None:
    claim = judge(signed())
    assert (claim.key_id, claim.region, claim.service) == (KEY, "eu-central-1", "ec2")


@pytest.mark.parametrize("body", [b"", b"x" * 100_000, b"\x00\xff\n"])
def test_any_body_is_signed_as_it_is(body: bytes) -> None:
    judge(signed(body), body)


def test_runs_of_spaces_in_a_signed_header_do_not_matter() -> None:
    headers = signed(**{"X-Amz-Target": "CertificateManager.ListCertificates", "X-Amz-Meta": "a   b"})
    judge(changed(headers, "x-amz-meta", " a b  "))


@pytest.mark.parametrize("at", range(0, len(BODY), 7))
def test_no_byte_of_the_body_can_be_changed(at: int) -> None:
    bent = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
    assert reason(signed(), bent) is ApiRefusal.SIGNATURE_MISMATCH


@pytest.mark.parametrize("body", [BODY + b"&DryRun=false", BODY[:-1], b""])
def test_nothing_can_be_added_to_the_body_or_taken_away(body: bytes) -> None:
    assert reason(signed(), body) is ApiRefusal.SIGNATURE_MISMATCH


def test_the_secret_must_be_the_keys() -> None:
    assert reason(signed(secret=SECRET[:-1] + "Z")) is ApiRefusal.SIGNATURE_MISMATCH
    assert reason(signed(secret="")) is ApiRefusal.SIGNATURE_MISMATCH


@pytest.mark.parametrize("name", ["host", "content-type", "x-amz-target"])
def test_no_signed_header_can_be_changed_or_left_out(name: str) -> None:
    headers = signed(**{"X-Amz-Target": "CertificateManager.ListCertificates"})
    assert reason(changed(headers, name, "other")) is ApiRefusal.SIGNATURE_MISMATCH
    assert reason(without(headers, name)) in (ApiRefusal.SIGNATURE_MISMATCH, ApiRefusal.SIGNATURE_MALFORMED)


def test_a_second_value_of_a_signed_header_is_not_overlooked() -> None:
    headers = signed(**{"X-Amz-Target": "CertificateManager.ListCertificates"})
    second = ("x-amz-target", "CertificateManager.DeleteCertificate")
    assert reason([*headers, second]) is ApiRefusal.SIGNATURE_MISMATCH
    assert reason([second, *headers]) is ApiRefusal.SIGNATURE_MISMATCH


def test_what_steers_the_request_must_be_signed() -> None:
    """An unsigned X-Amz-Target could be exchanged by whoever carries the request."""
    headers = signed()
    assert (
        reason([*headers, ("x-amz-target", "CertificateManager.DeleteCertificate")]) is ApiRefusal.SIGNATURE_MALFORMED
    )
    assert reason([*headers, ("x-amz-security-token", "t")]) is ApiRefusal.SIGNATURE_MALFORMED
    authorization = dict(headers)["authorization"]
    for name in ("host;", ";x-amz-date"):
        bent = changed(headers, "authorization", authorization.replace(name, ""))
        assert reason(bent) is ApiRefusal.SIGNATURE_MALFORMED


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("eu-central-1", "us-east-1", ApiRefusal.SIGNATURE_MISMATCH),
        ("/ec2/", "/acm/", ApiRefusal.SIGNATURE_MISMATCH),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", ApiRefusal.SIGNATURE_MALFORMED),
        ("AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 ", ApiRefusal.SIGNATURE_MALFORMED),
        ("aws4_request", "aws4_other", ApiRefusal.SIGNATURE_MALFORMED),
        ("Signature=", "Signature=0", ApiRefusal.SIGNATURE_MALFORMED),
        ("content-type;host", "host;content-type", ApiRefusal.SIGNATURE_MALFORMED),
        ("content-type;host", "content-type;host;host", ApiRefusal.SIGNATURE_MALFORMED),
    ],
)
def test_the_scope_cannot_be_changed(old: str, new: str, expected: ApiRefusal) -> None:
    headers = signed()
    authorization = dict(headers)["authorization"]
    assert old in authorization
    assert reason(changed(headers, "authorization", authorization.replace(old, new))) is expected


def test_an_unsigned_request_and_two_signatures_are_refused() -> None:
    headers = signed()
    assert reason(without(headers, "authorization")) is ApiRefusal.SIGNATURE_MISSING
    assert reason([*headers, ("authorization", "Basic YTpi")]) is ApiRefusal.SIGNATURE_MALFORMED
    assert reason(changed(headers, "authorization", "Basic YTpi")) is ApiRefusal.SIGNATURE_MALFORMED


@pytest.mark.parametrize("seconds", [SKEW_S + 2, -SKEW_S - 2, 86_400, -86_400 * 365])
def test_a_clock_that_is_off_is_told_so(seconds: float) -> None:
    assert reason(signed(), at=now() + timedelta(seconds=seconds)) is ApiRefusal.REQUEST_EXPIRED


@pytest.mark.parametrize("seconds", [SKEW_S - 2, -SKEW_S + 2])
def test_a_clock_that_is_a_little_off_will_do(seconds: float) -> None:
    judge(signed(), at=now() + timedelta(seconds=seconds))


@pytest.mark.parametrize("stamp", ["", "yesterday", "20260101T000000", "20269999T000000Z"])
def test_a_time_that_is_none_is_refused(stamp: str) -> None:
    assert reason(changed(signed(), "x-amz-date", stamp)) is ApiRefusal.SIGNATURE_MALFORMED


def test_a_newer_time_cannot_be_put_on_an_old_signature() -> None:
    headers, later = signed(), now() + timedelta(seconds=60)
    assert reason(changed(headers, "x-amz-date", f"{later:%Y%m%dT%H%M%SZ}")) is ApiRefusal.SIGNATURE_MISMATCH


def test_a_change_is_taken_once_and_again_only_from_the_connection_that_signs_within_the_same_second() -> None:
    first = SeenRequest("198.51.100.1 4000", 1000.0)
    check_repeat(None, "198.51.100.1 4000", 1000.0)
    check_repeat(first, "198.51.100.1 4000", 1001.0)  # the same parameters within one second: the same signature
    for sender, seconds in (
        ("198.51.100.1 4001", 0.0),
        ("198.51.100.1 4001", 0.1),
        ("203.0.113.1 4000", 1.0),
        ("198.51.100.1 4000", HONEST_REPEAT_S + 0.1),
        ("198.51.100.1 4000", REMEMBERED_S - 1),
    ):
        with pytest.raises(Refused) as refused:
            check_repeat(first, sender, 1000.0 + seconds)
        assert refused.value.reason is ApiRefusal.REQUEST_REPLAYED
    assert REMEMBERED_S >= 2 * SKEW_S + BODY_S, "by then read_claim refuses it, and nobody waits for its body any more"


# -- each compare taken out ---------------------------------------------------------------------------------


def says_no(do: Callable[[], object]) -> bool:
    """A mutant's refusal is of the mutant's own class."""
    try:
        do()
    except Exception as error:
        if type(error).__name__ == "Refused":
            return True
        raise
    return False


def only_what_was_signed_gets_in() -> None:
    def refused(headers: Headers, body: bytes = BODY, at: datetime | None = None, secret: str = SECRET) -> bool:
        return says_no(lambda: sigv4.verify(sigv4.read_claim(headers, at or now()), secret.encode(), headers, body))

    headers = signed()
    assert not refused(headers)
    assert refused(headers, BODY + b"&")
    assert refused(headers, secret="other")
    assert refused([*headers, ("x-amz-target", "CertificateManager.DeleteCertificate")])
    assert refused(without(headers, "authorization"))
    for seconds in (-SKEW_S - 2, SKEW_S + 2):
        assert refused(headers, at=now() + timedelta(seconds=seconds))


def a_change_is_taken_once() -> None:
    first = SeenRequest("one", 1000.0)

    def refused(sender: str, now: float) -> bool:
        return says_no(lambda: sigv4.check_repeat(first, sender, now))

    assert not says_no(lambda: sigv4.check_repeat(None, "one", 1000.0))
    assert not refused("one", 1000.5)
    assert refused("other", 1000.5)
    assert refused("one", 1010.0)


MUTANTS = [
    ("verify", "if not hmac.compare_digest(", "if hmac.compare_digest("),
    ("verify", "if not hmac.compare_digest(", "if len(claim.signature) != 64 and not hmac.compare_digest("),
    ("verify", "digest = hashlib.sha256(body).hexdigest()", 'digest = hashlib.sha256(b"").hexdigest()'),
    ("read_claim", "if abs(now - signed_at) > ", "if abs(now - signed_at) < "),
    ("read_claim", "if abs(now - signed_at) > ", "if now - signed_at > "),
    ("read_claim", "if abs(now - signed_at) > ", "if signed_at - now > "),
    ("read_claim", "if name not in signed or name not in present:", "if name not in present:"),
    ("check_repeat", "first.sender == sender and ", ""),
    ("check_repeat", " and now - first.at <= HONEST_REPEAT_S", ""),
    ("check_repeat", "raise Refused(ApiRefusal.REQUEST_REPLAYED", "str(ApiRefusal.REQUEST_REPLAYED"),
]


@pytest.mark.parametrize(("function", "old", "new"), MUTANTS)
def test_without_a_compare_somebody_gets_in(function: str, old: str, new: str) -> None:
    holds = a_change_is_taken_once if function == "check_repeat" else only_what_was_signed_gets_in
    holds()
    with Mutant(sigv4, function, old, new).in_place(), pytest.raises((AssertionError, TypeError, IndexError)):
        holds()
