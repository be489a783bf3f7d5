"""Logins in numbers, at a real OpenLDAP server: many at once, many wrong ones, many by token, some while it hangs.

``make test-logins`` runs them at full size, and those that take minutes."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import threading
import time
from collections import Counter

import pytest
from helpers.crowd import Crowd, errors, pushed_token
from helpers.lab import wait_until
from helpers.openldap import SLAPD
from helpers.totp import code_of, static

from cvpnd.auth.throttle import FREE_FAILURES, FREE_FAILURES_OF_SOURCE
from cvpnd.auth.tokens import PREFIX

pytestmark = pytest.mark.skipif(not SLAPD.exists() or os.geteuid() != 0, reason="make test unpacks slapd")

FULL = "LOGINS" in os.environ
takes_minutes = pytest.mark.skipif(not FULL, reason="make test-logins runs it")
PEOPLE = {f"user{number}": f"secret of {number}" for number in range(300)}
HUNG = {"directory-timeout", "directory-unavailable"}


def logins(gateway, result: str, method: str = "directory", endpoint: str = "staff") -> float:
    return gateway.metrics()[f'cvpnd_logins_total{{endpoint="{endpoint}",method="{method}",result="{result}"}}']


def asked(gateway) -> float:
    return gateway.metrics()['cvpnd_directory_seconds_count{directory="corp"}']


def refused(gateway, reason: str) -> float:
    return gateway.metrics()[f'cvpnd_authentication_failures_total{{endpoint="staff",reason="{reason}"}}']


def test_who_comes_at_the_same_time_gets_in_within_seconds(site, start_corp):
    """Three hundred, each of whom gives up after ten seconds."""
    count = 300 if FULL else 40
    people = dict(list(PEOPLE.items())[:count])
    start_corp(people, {"eng": list(people)[:10]})
    report = Crowd(site.lab, people.items(), "--timeout", "10", "--hold", "1").report()
    print(f"{count} logins: {report['connect_ms']} ms, {report['seconds']} s with the end")
    assert errors(report) == []
    assert len({result["address"] for result in report["results"]}) == count
    assert logins(site.gateway, "accepted") == asked(site.gateway) == count
    assert logins(site.gateway, "refused") == 0


@takes_minutes
@pytest.mark.timeout(240)
def test_a_directory_that_hangs_takes_no_packet_from_twenty_stock_clients_that_transfer(site, start_corp, connect):
    """Half of them send, the others receive, at a rate that two cores carry; each has a routing table of its own, as
    they are on two machines. Their accounts are due to be looked at every second."""
    hung_s, people = 30, list(PEOPLE.items())[:20]
    corp = start_corp({**dict(people), "bob": "right"}, {"eng": ["user0"]}, directory="recheck_s = 1\ntimeout_s = 2")
    machines = [(site.lab.clients[0], None), (site.lab.clients[1], "198.51.100.1")]
    transfers = []
    for number, (name, password) in enumerate(people):
        machine, host = machines[number % 2]
        own = {"client": machine, "name": name} | ({"host": host} if host else {})
        stock = connect(name, password, "--route-noexec", **own).wait_connected(30)
        machine.run("ip", "route", "add", "10.20.0.0/16", "dev", stock.interface, "table", str(100 + number))
        machine.run("ip", "rule", "add", "from", stock.address, "table", str(100 + number))
        transfers.append((machine, stock, ["-R"] if number % 4 >= 2 else []))
    running = [
        site.lab.start_iperf3(
            machine, 5300 + number, "-u", "-b", "400K", "-l", "1000", "-B", stock.address, *direction,
            seconds=hung_s + 10,
        )
        for number, (machine, stock, direction) in enumerate(transfers)
    ]  # fmt: skip
    corp.process.signal(signal.SIGSTOP)
    try:
        told = errors(Crowd(site.lab, 4 * [("bob", "right")], "--timeout", "40", client=1).report())
        time.sleep(hung_s)
    finally:
        corp.process.signal(signal.SIGCONT)
    assert len(told) == 4 and all(text.startswith("AUTH_FAILED,TEMP") for text in told), told
    assert HUNG & set(site.gateway.refusals())
    reports = [each.report() for each in running]
    packets, lost = (sum(report[key] for report in reports) for key in ("packets", "lost_packets"))
    print(f"{packets} packets of {len(reports)} transfers, {lost} lost")
    assert lost == 0 and packets > 20 * 40 * hung_s
    assert all(stock.connected_count == 1 for _, stock, _ in transfers)


@takes_minutes
@pytest.mark.timeout(300)
def test_stock_clients_that_reconnect_all_the_time_gain_none(site, start_corp, connect):
    """Twenty of them, by their tokens, a thousand times in all, until those are over: as long after the login as if
    they had stayed."""
    timeout_s, people = 110, list(PEOPLE.items())[:20]
    limits = f"session_timeout_s = {timeout_s}\ndisconnect_on_session_timeout = false"
    start_corp(dict(people), {"eng": ["user0"]}, endpoint=limits)
    expired, clients, begun = "AUTH_FAILED,SESSION: token expired", [], {}
    for number, (name, password) in enumerate(people):
        machine = {"client": site.lab.clients[1], "host": "198.51.100.1"} if number % 2 else {}
        clients.append(connect(name, password, "--route-noexec", name=name, **machine).wait_connected(30))
        begun[name] = time.monotonic()
    reconnects, ended = Counter(), {}
    last = time.monotonic() + timeout_s + 30
    while len(ended) < len(clients):
        assert time.monotonic() < last, f"{reconnects} have moved the end of {begun.keys() - ended.keys()}"
        for (name, _), client in zip(people, clients, strict=True):
            if name in ended:
                continue
            text = client.log()
            if expired in text:
                ended[name] = time.monotonic() - begun[name]
            elif text.count(client.COMPLETED) > reconnects[name]:
                reconnects[name] += 1
                client.process.signal(signal.SIGUSR1)
        time.sleep(0.05)
    print(f"{reconnects.total()} reconnects of {len(clients)} stock clients; tokens ended {min(ended.values()):.0f} to "
          f"{max(ended.values()):.0f} s after the login")  # fmt: skip
    assert reconnects.total() >= 1000 and logins(site.gateway, "accepted", "token") >= 1000 - len(clients)
    assert timeout_s - 2 <= min(ended.values()) and max(ended.values()) < timeout_s + 15
    assert "token-expired" in site.gateway.refusals()


def test_a_directory_that_hangs_touches_no_tunnel_and_says_so_to_who_waits(site, start_corp, connect):
    """Twenty clients ping without a pause, and their accounts are due to be looked at, while somebody else wants in."""
    hung_s = 30 if FULL else 7  # a look begins within 1 s or so, and asks two servers for 2 s each
    people = dict(list(PEOPLE.items())[:20])
    corp = start_corp(
        {**people, "bob": "right"}, {"eng": list(people)[:10]},
        endpoint="hand_window_s = 8", directory="recheck_s = 1\ntimeout_s = 2",
    )  # fmt: skip
    gateway = site.gateway
    transfers = Crowd(
        site.lab, people.items(), "--announce", "--ping", "10.20.0.10", "--ping-interval", "0.05",
        "--hold", str(hung_s + 3),
    )  # fmt: skip
    transfers.process.wait_for("all connected", 20)
    corp.process.signal(signal.SIGSTOP)
    begun = time.monotonic()
    try:
        waiting = Crowd(site.lab, [(name, "right") for name in 6 * ("bob", "carol")], "--timeout", "20", client=1)
        told = errors(waiting.report())
        assert len(told) == 12 and all(text.startswith("AUTH_FAILED,TEMP") for text in told), told
        wait_until(lambda: len([r for r in gateway.refusals() if r in HUNG]) == 12, 5)
        why = [entry for entry in gateway.connection_log() if entry["connection-attempt-failure-reason"] in HUNG]
        assert all("corp" in entry["detail"] or "ldap" in entry["detail"] for entry in why)
        assert {(entry["username"], entry["authentication-method"]) for entry in why} == {
            ("bob", "directory"), ("carol", "directory"),
        }  # fmt: skip
        assert gateway.metrics()['cvpnd_directory_server_up{directory="corp",server="ldap://localhost:3890"}'] == 0
        late = connect("bob", "right", client=site.lab.clients[1], host="198.51.100.1") if FULL else None
        time.sleep(max(0.0, begun + hung_s - time.monotonic()))
    finally:
        corp.process.signal(signal.SIGCONT)
    assert errors(Crowd(site.lab, [("bob", "right")], client=1).report()) == [], "and now it answers"
    if late is not None:  # it was told when to come again
        late.wait_for("Initialization Sequence Completed", 40)
    report = transfers.report()
    sent, answered = report["pings_sent"], report["pings_answered"]
    print(f"hung for {time.monotonic() - begun:.0f} s: {sent} pings, {answered} answers, {report['round_trip_ms']}")
    assert errors(report) == [] and answered == sent > 20 * 10 * hung_s
    metrics = gateway.metrics()
    slow = (
        metrics['cvpnd_directory_seconds_count{directory="corp"}']
        - metrics['cvpnd_directory_seconds_bucket{directory="corp",le="1.0"}']
    )
    assert slow >= 2, "its time is in the histogram, though nobody waited so long"
    wait_until(lambda: gateway.metrics()['cvpnd_directory_logins_pending{directory="corp"}'] == 0, 10)
    assert "accounts stay as they are" in gateway.log()
    assert not any(secret in gateway.log() for secret in ("secret of", "of the service"))


@pytest.mark.timeout(320)
def test_wrong_passwords_without_end_slow_their_source_alone(site, start_corp, connect, ping):
    """Whoever guesses at alice's account from one address holds up neither alice elsewhere nor a tunnel from there."""
    count, at_once = (5000, 100) if FULL else (60, 20)
    limit = "" if FULL else "strangers = { failed_logins_per_source_per_min = 30 }"
    start_corp({"alice": "right", "bob": "right"}, {"eng": ["alice"]}, daemon=limit)
    gateway = site.gateway
    bob = connect("bob", "right").wait_connected()
    pinging = site.lab.client.start_ping("10.20.0.10", 0.02)
    guesses = Crowd(
        site.lab, [("alice", f"guess {number}") for number in range(count)],
        "--timeout", "3", "--at-once", str(at_once),
    )  # fmt: skip
    wait_until(lambda: refused(gateway, "login-throttled"), 20)
    connect("alice", "right", client=site.lab.clients[1], host="198.51.100.1").wait_connected(5)
    assert ping("10.30.0.10", client=site.lab.clients[1]) == 1.0
    told = Counter(re.sub(r"\d+ s", "", error) for error in errors(guesses.report(280)))
    lost = pinging.finish()
    print(f"{count} guesses: {told}")
    metrics = gateway.metrics()
    turned_away = metrics.get('cvpnd_dropped_packets_total{plane="control",reason="failed_logins"}', 0)
    print(f"{turned_away:.0f} packets turned away at the door; {lost}")
    assert told.total() == count and lost.lost <= 1 and bob.connected_count == 1
    assert turned_away > 0 and refused(gateway, "login-throttled") > FREE_FAILURES
    assert FREE_FAILURES < asked(gateway) - 2 <= FREE_FAILURES + 10
    assert refused(gateway, "wrong-password") > 0
    assert logins(gateway, "accepted") == 2


def test_a_token_ends_when_it_was_said_and_is_good_for_its_owner_alone(site, start_corp):
    """A thousand reconnects, twenty of them at a time, are answered with the very token that they showed."""
    guests = site.toml().partition("[[endpoint]]")[2].replace('"staff"', '"guests"').replace(":1194", ":1195")
    guests = guests.replace(":443", ":444").replace("10.100.0.0", "10.101.0.0")
    guests = re.sub(
        "authentication = .*",
        'authentication = [{ type = "directory-service-authentication", directory = "corp" }]',
        guests,
    ).replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
    start_corp(
        {"alice": "right", "bob": "right"}, {"eng": ["alice"]}, endpoint="session_timeout_s = 36000",
        more=f"[[endpoint]]\n{guests}",
    )  # fmt: skip
    gateway = site.gateway
    (first,) = Crowd(site.lab, [("alice", "right")]).report()["results"]
    token = pushed_token(first)
    assert token.startswith(PREFIX) and asked(gateway) == 1
    clients, rounds = (20, 50) if FULL else (10, 2)
    report = Crowd(site.lab, clients * [("alice", token)], "--rounds", str(rounds), "--goodbyes").report()
    assert errors(report) == [] and {pushed_token(result) for result in report["results"]} == {token}
    assert asked(gateway) == 1 and logins(gateway, "accepted", "token") == clients * rounds

    raw = base64.b64decode(token.removeprefix(PREFIX))
    flipped = [raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :] for at in range(0, len(raw), 4)]
    edited = [("alice", PREFIX + base64.b64encode(each).decode()) for each in flipped]
    for users, where in (([*edited, ("bob", token), ("mallory", token)], "1194"), ([("alice", token)], "1195")):
        before = len(gateway.refusals())
        told = errors(Crowd(site.lab, users, "--remote", f"{site.lab.gateway_address}:{where}").report())
        assert told == len(users) * ["AUTH_FAILED,SESSION: token expired"]
        reasons = Counter(reason for reason in gateway.refusals()[before:] if reason != "NA")
        unknown = sum(user == "mallory" for user, _ in users)
        assert reasons == Counter({"token-invalid": len(users) - unknown, "user-unknown": unknown})
    assert {entry["authentication-method"] for entry in gateway.connection_log()[-1:]} == {"token"}
    assert (
        logins(gateway, "refused", "token", "guests") == 1 and logins(gateway, "accepted", "token") == clients * rounds
    )


@takes_minutes
@pytest.mark.timeout(300)
def test_nobody_is_asked_a_second_time_while_keys_change_every_eight_seconds_nor_after_a_restart(
    site, start_corp, ping, tmp_path
):
    """A person sits at the management interface, as with a graphical client, and sees every question there is."""
    start_corp({"alice": "right"}, {"eng": ["alice"]}, mfa="totp")
    gateway = site.gateway
    enrolment = gateway.ctl_json("user", "totp", "enrol", "alice", "--directory", "corp")
    profile = site.profile(name="person")
    text = re.sub("(?m)^(cert|key) .*\n", "", profile.read_text())
    profile.write_text(text + 'auth-user-pass\nstatic-challenge "Enter MFA code" 1\nmanagement-query-passwords\n')
    seen: list[str] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "person"))
        listening.listen()
        listening.settimeout(15)
        management = ("--management", tmp_path / "person", "unix", "--management-client")
        client = site.lab.openvpn(profile, "--reneg-sec", "8", *management)
        person, _ = listening.accept()
    with person, person.makefile("rw") as dialogue:
        reader = threading.Thread(target=lambda: [seen.append(line) for line in dialogue])
        reader.start()
        wait_until(lambda: any(line.startswith(">PASSWORD:Need") for line in seen), 15)
        answer = static("right", code_of(enrolment))
        dialogue.write(f'username "Auth" "alice"\npassword "Auth" "{answer}"\n')
        dialogue.flush()
        client.wait_connected()
        pinging = site.lab.client.start_ping("10.30.0.10", 0.05)
        time.sleep(120)
        lost = pinging.finish()
        renewed = gateway.metrics()['cvpnd_renegotiations_total{endpoint="staff"}']
        questions = asked(gateway)
        gateway.stop()
        gateway.start()
        client.wait_connected(60, times=2)
        assert ping("10.30.0.10") == 1.0
        client.stop()
        reader.join(10)
    print(f"{renewed:.0f} keys in two minutes, {lost}")
    assert renewed >= 13 and lost.lost <= 1
    assert [line for line in seen if line.startswith(">PASSWORD:Need")] == [
        ">PASSWORD:Need 'Auth' username/password SC:1,Enter MFA code\n"
    ]
    assert questions == 2, "for the enrolment and for the login"
    assert logins(gateway, "accepted", "token") == 1


@takes_minutes
@pytest.mark.parametrize("site", [4], indirect=True)
def test_unknown_users_and_wrong_passwords_cannot_be_told_apart(site, start_corp):
    """By what is answered, and by when: of all pairs of one of each kind, about as often the one is later as the
    other. Each source is given up on before it has failed too often."""
    start_corp(PEOPLE, {"eng": list(PEOPLE)[:10]})
    each = FREE_FAILURES_OF_SOURCE // 2 - 1
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    answers = set()
    for client in range(4):
        known = [(f"user{client * each + number}", "wrong") for number in range(each)]
        unknown = [(f"nobody{client * each + number}", "wrong") for number in range(each)]
        mixed = [pair for pairs in zip(known, unknown, strict=True) for pair in pairs]
        report = Crowd(site.lab, mixed, "--spread", "5", client=client).report()
        answers |= set(errors(report))
        for (name, _), result in zip(mixed, report["results"], strict=True):
            times["known" if name.startswith("user") else "unknown"].append(result["refused_ms"])
    pairs = [(one, other) for one in times["known"] for other in times["unknown"]]
    later = sum(one > other for one, other in pairs) / len(pairs)
    medians = {kind: sorted(values)[len(values) // 2] for kind, values in times.items()}
    print(f"{len(times['known'])} of each, medians {medians} ms, the known one is later in {later:.0%} of all pairs")
    assert answers == {"AUTH_FAILED"}
    assert refused(site.gateway, "wrong-password") == refused(site.gateway, "user-unknown") == 4 * each
    assert 0.3 < later < 0.7, "four times the standard deviation of a fair one"
