"""What ``cvpnctl status`` finds wrong, from numbers alone."""

from dataclasses import replace

from helpers.exposition import BUSY, histogram

from cvpnd.ops.directory_metrics import DirectoryMetrics
from cvpnd.ops.endpoint_metrics import EndpointMetrics
from cvpnd.ops.log_writer import Loss
from cvpnd.ops.metrics import GatewayMetrics
from cvpnd.ops.problems import DAY_S, Problem, find_problems
from cvpnd.ops.recent_log import LogFilter, RecentLog

NOW = 1_700_000_000.0
WELL = EndpointMetrics(
    "staff",
    lease_pool_size=100,
    lease_pool_used=50,
    authorization_rules=1,
    crl_expires_at=NOW + 4 * DAY_S,
    server_certificate_expires_at=NOW + 15 * DAY_S,
    client_ca_expires_at=NOW + 31 * DAY_S,
)


def problems(endpoint: EndpointMetrics = WELL, **changes: object) -> list[Problem]:
    metrics = GatewayMetrics("0", "", 1, NOW, [endpoint], {}, {}, {})
    return find_problems(replace(metrics, **changes), NOW)  # type: ignore[arg-type]


def test_a_healthy_gateway_has_none() -> None:
    assert problems() == []


def test_each_fault_is_told_once_with_its_fix() -> None:
    faults = {
        "revocation list expires in 2.0 days": {"crl_expires_at": NOW + 2 * DAY_S},
        "revocation list has expired": {"crl_expires_at": NOW},
        "server certificate expires in 13.0 days": {"server_certificate_expires_at": NOW + 13 * DAY_S},
        "authority of its clients expires": {"client_ca_expires_at": NOW + DAY_S},
        "on disk cannot be used, those read before still are: a.crt: no": {"files_problem": "a.crt: no"},
        "revocation list: nobody signed it": {"files_problem": "nobody signed it", "crl_problem": "nobody signed it"},
        "no revocation list of CN=b": {"crl_gap": "it holds no revocation list of CN=b"},
        "91 of 100 client addresses": {"lease_pool_used": 91},
        "no authorization rule": {"authorization_rules": 0},
        "less than its authorization rules say": {"rules_in_force": False},
        "dropped 7 packets": {"socket_drops": 7},
    }
    for words, fault in faults.items():
        (found,) = problems(replace(WELL, **fault))  # type: ignore[arg-type]
        assert words in found.what and found.fix and found.subject == "endpoint staff"
    assert [p.what for p in problems(last_reload_problem="a.toml: no\nb: neither")] == [
        "the last reload was refused, an older configuration runs on: a.toml: no; b: neither"
    ]
    (astray,) = problems(last_reload_problem="nft: no", is_astray=True)
    assert astray.severity == "critical" and "what was before cannot be put back yet: nft: no" in astray.what
    (changed,) = problems(changed_files={"/etc/cvpnd/cvpnd.toml": NOW})
    assert changed.what.startswith("/etc/cvpnd/cvpnd.toml was changed at 2023-11-14 22:13:20 UTC, and is not reloaded")
    assert "cannot be read any more" in problems(changed_files={"/secret": None})[0].what
    assert len(problems(changed_files={"/etc/cvpnd/cvpnd.toml": NOW}, last_reload_problem="no")) == 1
    (waiting,) = problems(awaits_restart=("[api]", "daemon.workers"))
    assert "[api], daemon.workers changed in the file" in waiting.what and "restart" in waiting.fix
    (replaced,) = problems(api_certificate_replaced_at=NOW - DAY_S)
    assert (replaced.severity, replaced.subject) == ("warning", "API") and "2023-11-13 22:13:20" in replaced.what
    assert problems(api_certificate_replaced_at=NOW - 7 * DAY_S) == []
    assert problems(host_trouble="lan is down")[0].severity == "critical"
    (aside,) = problems(set_aside={"cvpn-endpoint-1": "its port is taken"})
    assert aside.severity == "critical" and "cannot be served here as it should be: its port is taken" in aside.what
    (older,) = problems(store_other_schema="0999")
    assert older.severity == "critical" and "schema 0999" in older.what and "upgraded together" in older.fix
    (lost,) = problems(store_outage="state.db: the disk is full", store_outage_since=NOW - 61)
    assert lost.severity == "critical" and "for 61 s it could not be used: state.db: the disk is full" in lost.what
    assert "by itself" in lost.fix
    (corrupt,) = problems(store_outage="state.db: malformed", store_outage_since=NOW - 61, store_is_corrupt=True)
    assert "by itself" not in corrupt.fix and "restore its backup" in corrupt.fix
    (ended,) = problems(endings_unstored=("user anna", "cvpn-connection-1"))
    assert ended.severity == "critical" and "not in the state database yet: user anna; cvpn-connection-1" in ended.what
    (clock,) = problems(clock_trouble="the clock was put back by 2.0 hours")
    assert (clock.severity, clock.subject) == ("warning", "clock") and "put back by 2.0 hours" in clock.what
    (handler,) = problems(handler_troubles={"AWSClientVPN-a": "/a can be changed by others; chmod go-w /a", "b": ""})
    assert (handler.severity, handler.subject) == ("critical", "handler AWSClientVPN-a") and "reload" in handler.fix
    loss = Loss(NOW - 60, "syslog udp://10.20.0.5:514", "Connection refused")
    (lost_entries,) = problems(connection_log_lost=6, connection_log_loss=loss)
    assert "6 entries could not be written, the last at 2023-11-14 22:12:20 UTC: syslog udp" in lost_entries.what
    assert problems(connection_log_lost=6, connection_log_loss=replace(loss, at=NOW - DAY_S)) == [], "long over"


def test_a_directory_is_critical_when_no_server_of_it_answers() -> None:
    def told(kind: str, **servers: bool) -> list[str]:
        return [p.severity for p in problems(**{kind: [DirectoryMetrics("corp", 0, histogram(), servers)]})]

    for kind in ("directories", "radius"):
        assert told(kind, a=True, b=True) == []
        assert told(kind, a=True, b=False) == ["warning"]
        assert told(kind, a=False, b=False) == ["critical"]


def test_the_critical_ones_come_first() -> None:
    expired = replace(WELL, authorization_rules=0, crl_expires_at=NOW - 1)
    assert [p.severity for p in problems(expired, last_reload_problem="no")] == ["critical", "warning", "warning"]
    assert find_problems(BUSY, NOW)[0].severity == "critical"


def entry(**values: str) -> dict[str, str]:
    blank = dict.fromkeys(
        ("endpoint-name", "client-vpn-endpoint-id", "username", "common-name", "connection-attempt-status",
         "connection-attempt-failure-reason", "connection-end-reason"), "NA",
    )  # fmt: skip
    return blank | {name.replace("_", "-"): value for name, value in values.items()}


def test_the_recent_log_is_followed_by_number_and_filtered() -> None:
    log = RecentLog(most=3)
    for number in range(5):
        log.add(entry(username=f"user{number}", endpoint_name="staff"))
    assert [each["username"] for each in log.after(0, LogFilter(), 10)] == ["user2", "user3", "user4"]
    assert [each["username"] for each in log.after(4, LogFilter(), 10)] == ["user4"]
    assert [each["username"] for each in log.after(0, LogFilter(), 1)] == ["user4"]
    assert log.after(log.newest, LogFilter(), 10) == []
    log.add(
        entry(common_name="eve", connection_attempt_status="failed", connection_attempt_failure_reason="crl-expired")
    )
    for wanted in (LogFilter(user="eve"), LogFilter(reason="crl-expired"), LogFilter(failed=True)):
        assert [each["common-name"] for each in log.after(0, wanted, 10)] == ["eve"]
    assert len(log.after(0, LogFilter(endpoint="staff"), 10)) == 2
    assert log.after(0, LogFilter(endpoint="staff", failed=True), 10) == []
