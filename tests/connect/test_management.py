"""What cvpn-connect answers openvpn, line by line as openvpn 2.6 writes them."""

from __future__ import annotations

import pytest

from cvpnd.connect.management import (
    AWS_ONLY,
    TRIAL,
    AskSecret,
    AwaitCallback,
    Conversation,
    GiveUp,
    OpenBrowser,
    Say,
    Tell,
)

NEED = ">PASSWORD:Need 'Auth' username/password"
LINK = "https://vpn.example.com/saml/login/abc"
IDP = "https://idp.example.com/sso?SAMLRequest=a%2Bb:c"
CHALLENGE = f">PASSWORD:Verification Failed: 'Auth' ['CRV1:R:instance-1/7/9:Ti9B:{IDP}']"
NOBODY = [Say('username "Auth" "N/A"'), Say('password "Auth" "N/A"')]
AS_AWS = [Say('username "Auth" "N/A"'), Say('password "Auth" "ACS::35001"')]


def test_a_link_is_opened_while_the_connection_waits() -> None:
    talk = Conversation()
    assert talk.hear(">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info") == []
    assert talk.hear(NEED) == NOBODY
    assert talk.hear(f">INFOMSG:WEB_AUTH:external,hidden:{LINK}") == [OpenBrowser(LINK)]
    assert talk.hear(">STATE:1700000000,CONNECTED,SUCCESS,10.100.0.2,192.0.2.1,1194,,") == [
        Tell("connected, with the address 10.100.0.2")
    ]
    assert Conversation().hear(f">INFOMSG:OPEN_URL:{LINK}") == [OpenBrowser(LINK)]


def test_where_there_is_no_link_it_asks_as_aws_s_client_and_brings_the_answer_once_asked() -> None:
    talk = Conversation()
    assert talk.hear(NEED) == NOBODY
    assert talk.hear(">PASSWORD:Verification Failed: 'Auth'") == []
    assert talk.hear(NEED) == AS_AWS
    assert talk.hear(CHALLENGE) == [Say(TRIAL)]
    assert talk.hear("Management Interface for OpenVPN 2.6.14 x86_64-pc-linux-gnu") == [AwaitCallback(IDP)]
    assert [talk.hear(line) for line in ("Commands:", "help : Print this message.", "END")] == [[], [], []]
    assert talk.hear(NEED) == [], "the browser is not back yet"
    assert talk.called_back("PHNhbWw+/w==") == [
        Say('username "Auth" "N/A"'),
        Say('password "Auth" "CRV1::instance-1/7/9::PHNhbWw%2B%2Fw%3D%3D"'),
    ]
    assert talk.hear(">PASSWORD:Verification Failed: 'Auth'") == [GiveUp("the server refused the login")]


def test_an_answer_that_comes_before_openvpn_asks_waits_for_that() -> None:
    talk = Conversation()
    for line in (NEED, ">PASSWORD:Verification Failed: 'Auth'", NEED, CHALLENGE, "Management Interface for OpenVPN"):
        talk.hear(line)
    assert talk.called_back("abc") == []
    assert talk.hear(NEED)[1] == Say('password "Auth" "CRV1::instance-1/7/9::abc"')


TOO_LONG = "ERROR: Options error: Parameter at TCP:0 is too long (256 chars max): "


@pytest.mark.parametrize("trial_is_asked_first", [True, False])
def test_what_openvpn_cannot_be_handed_is_said_before_anybody_logs_in(trial_is_asked_first: bool) -> None:
    talk = Conversation()
    for line in (NEED, ">PASSWORD:Verification Failed: 'Auth'", NEED):
        talk.hear(line)
    assert talk.hear(CHALLENGE) == [Say(TRIAL)]
    if not trial_is_asked_first:
        assert talk.hear(NEED) == []
    assert talk.hear(f"{TOO_LONG}{'x' * 500}") == [GiveUp(AWS_ONLY)]
    assert "[portal]" in AWS_ONLY


def test_an_error_of_openvpn_is_no_silence_and_shows_no_secret() -> None:
    (told,) = Conversation().hear(f"{TOO_LONG}sesame")
    assert told == GiveUp(
        "openvpn does not do what it is told: Options error: Parameter at TCP:0 is too long (256 chars max)"
    )
    (told,) = Conversation().hear("ERROR: password of type 'Auth' entered, but we need one of type 'Private Key'")
    assert isinstance(told, GiveUp) and "of type 'Private Key'" in told.reason


def test_who_was_refused_by_a_person_is_not_sent_to_the_browser_again() -> None:
    talk = Conversation()
    talk.hear(NEED)
    talk.hear(f">INFOMSG:WEB_AUTH::{LINK}")
    assert talk.hear(">PASSWORD:Verification Failed: 'Auth' ['The login was declined in the browser']") == [
        GiveUp("the server refused the login: The login was declined in the browser")
    ]


def test_a_login_that_ended_begins_anew_and_a_passing_refusal_is_openvpn_s_own() -> None:
    talk = Conversation()
    for line in (NEED, f">INFOMSG:WEB_AUTH::{LINK}", ">STATE:1,CONNECTED,SUCCESS,10.0.0.2,192.0.2.1"):
        talk.hear(line)
    assert talk.hear(">PASSWORD:Verification Failed: 'Auth' ['TEMP[backoff 7]:later']") == []
    assert talk.hear(">PASSWORD:Verification Failed: 'Auth' ['SESSION: token expired']") == [
        Tell("the login has expired")
    ]
    assert talk.hear(NEED) == NOBODY
    assert talk.hear(f">INFOMSG:WEB_AUTH::{LINK}") == [OpenBrowser(LINK)]


@pytest.mark.parametrize(
    "url",
    [
        "http://vpn.example.com/", "file:///etc/passwd", "javascript:alert(1)", "--help", "", "https://", "https:///x",
        "https://a b/", "https://a/\x1b[2J", "https://[", "HTTPS", "https://ex\u00e4mple.com/",
        "https://a/`id`", 'https://a/"', "https://a/<x>", "https://a\\b/", "https://a/|x", "https://bank.example@evil.example/",
    ],
)  # fmt: skip
def test_a_server_cannot_make_it_open_anything_but_an_https_address(url: str) -> None:
    (action,) = Conversation().hear(f">INFOMSG:WEB_AUTH::{url}")
    assert isinstance(action, GiveUp)
    talk = Conversation()
    for line in (NEED, ">PASSWORD:Verification Failed: 'Auth'", NEED):
        talk.hear(line)
    (action,) = talk.hear(f">PASSWORD:Verification Failed: 'Auth' ['CRV1:R:s:Ti9B:{url}']")
    assert isinstance(action, GiveUp)


@pytest.mark.parametrize("state", ["a\\b", 'a"b', "$(id)", "a b", "\u00e4"])
def test_what_a_server_puts_into_its_challenge_stays_in_its_quotes(state: str) -> None:
    talk = Conversation()
    for line in (NEED, ">PASSWORD:Verification Failed: 'Auth'", NEED):
        talk.hear(line)
    assert talk.hear(f">PASSWORD:Verification Failed: 'Auth' ['CRV1:R,E:{state}:%%%:{IDP}']") == [Say(TRIAL)]
    assert talk.hear("Management Interface for OpenVPN 2.7_patched") == [AwaitCallback(IDP)]
    talk.hear(NEED)
    (_, said) = talk.called_back("x")
    assert isinstance(said, Say)
    quoted = state.replace("\\", "\\\\").replace('"', '\\"')
    assert said.line == f'password "Auth" "CRV1::{quoted}::x"'


def test_other_secrets_are_asked_of_the_person_and_quoted() -> None:
    talk = Conversation()
    assert talk.hear(">PASSWORD:Need 'Private Key' password") == [AskSecret("Private Key")]
    assert talk.secret("Private Key", 'a"b\\c') == [Say('password "Private Key" "a\\"b\\\\c"')]
    assert talk.hear(">PASSWORD:Verification Failed: 'Private Key'") == [
        Tell("openvpn does not take the secret for Private Key")
    ]
    assert talk.hear(">FATAL:Cannot open TUN/TAP dev") == [GiveUp("Cannot open TUN/TAP dev")]


@pytest.mark.parametrize("line", ["", ">", ">STATE:", ">STATE:1,WAIT,,,", ">PASSWORD:Auth-Token:x", "SUCCESS: x"])
def test_what_it_does_not_know_it_leaves_alone(line: str) -> None:
    assert Conversation().hear(line) == []


def test_a_challenge_that_nobody_asked_for_is_not_answered() -> None:
    talk = Conversation()
    talk.hear(NEED)
    assert isinstance(talk.hear(CHALLENGE)[0], GiveUp)
