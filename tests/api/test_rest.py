"""REST over a real Unix socket: each noun, each kind of refusal, and limits."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.memory_operations import ALICE, STAFF, MemoryOperations, admin_server

from cvpnd.api.rest import forms
from cvpnd.api.rest.app import build_admin_app
from cvpnd.api.rest.errors import status_of
from cvpnd.api.rest.forms import BODY_LIMIT


@pytest.fixture
def operations() -> MemoryOperations:
    return MemoryOperations()


@pytest.fixture
def client(operations: MemoryOperations, tmp_path: Path) -> Iterator[httpx.Client]:
    path = tmp_path / "admin.sock"
    with (
        admin_server(operations, path),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://cvpnd/v1") as client,
    ):
        yield client


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}
    return response.status_code, body["error"]["code"], body["error"]["message"]


def test_health_and_endpoints(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["endpoints"]) == ("ok", 1)
    assert client.get("/endpoints").json()["endpoints"] == [
        {
            "endpoint_id": STAFF.endpoint_id,
            "name": "staff",
            "status": "available",
            "client_cidr": "10.100.0.0/22",
            "listen": ["udp://0.0.0.0:1194", "tcp://0.0.0.0:443"],
            "split_tunnel": True,
            "connections": 2,
            "interface": "cvpn0",
            "origin": "file",
            "description": "",
            "dns_servers": [],
            "remote": "",
            "server_certificate": "",
            "client_certificate": "",
            "authentication": [{"type": "certificate-authentication"}],
            "security_groups": [],
            "session_timeout_s": 0,
            "disconnect_on_session_timeout": True,
            "login_banner": "",
            "self_service_url": "",
            "client_route_enforcement": False,
            "connect_handler": "",
            "connection_log": None,
            "vpc": "",
            "created_at": None,
            "tags": {},
            "client_cidr_v6": None,
            "settings": {},
        }
    ]


def test_connections_are_listed_shown_and_terminated(client: httpx.Client) -> None:
    listed = client.get("/connections", params={"endpoint": "staff"}).json()["connections"]
    assert [c["common_name"] for c in listed] == ["alice", "eve[bold]\x1b[2J\nforged"]
    shown = client.get(f"/connections/{ALICE.connection_id}").json()["connection"]
    assert (shown["ingress_bytes"], shown["ended_at"], shown["port"]) == (1_500_000, None, 50096)
    assert client.delete(f"/connections/{ALICE.connection_id}").json() == {"terminated": [ALICE.connection_id]}
    assert refusal(client.delete(f"/connections/{ALICE.connection_id}"))[:2] == (
        404,
        "InvalidClientVpnConnection.IdNotFound",
    )
    assert refusal(client.get(f"/connections/{ALICE.connection_id}"))[0] == 404


def test_a_user_is_terminated_by_name(client: httpx.Client) -> None:
    ended = client.post("/connections/terminate", json={"username": "alice", "endpoint": "staff"})
    assert ended.json() == {"terminated": [ALICE.connection_id]}
    again = client.post("/connections/terminate", json={"username": "alice"})
    assert refusal(again) == (
        404,
        "InvalidClientVpnConnection.UserNotFound",
        "alice is not connected here; tokens of their earlier logins are worth nothing from now on",
    )


def test_rules_are_added_and_removed_on_behalf_of_the_caller(
    client: httpx.Client, operations: MemoryOperations
) -> None:
    added = client.post("/rules", json={"endpoint": "staff", "network": "10.30.0.0/16", "group": "eng"})
    assert added.status_code == 201
    assert added.json()["rule"] == {
        "endpoint_id": STAFF.endpoint_id,
        "network": "10.30.0.0/16",
        "group": "eng",
        "description": "",
        "origin": "store",
        "status": "active",
    }
    assert operations.actors[-1].who == f"uid:{os.getuid()}"
    assert operations.actors[-1].source == f"admin-socket pid:{os.getpid()}"
    client.post("/rules", json={"endpoint": "staff", "network": "2001:DB8::/32", "all_groups": True}).raise_for_status()
    assert [r["network"] for r in client.get("/rules").json()["rules"]] == [
        "10.20.0.0/16",
        "10.30.0.0/16",
        "2001:db8::/32",
    ]
    gone = client.delete("/rules", params={"endpoint": "staff", "network": "10.30.0.0/16", "group": "eng"})
    assert gone.json()["rule"]["network"] == "10.30.0.0/16"
    gone = client.delete("/rules", params={"endpoint": "staff", "network": "2001:db8::/32", "all_groups": "true"})
    assert gone.status_code == 200
    assert len(operations.rules) == 1


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"endpoint": "staff", "network": "10.30.0.0/16"}, "give either a group or all_groups = true"),
        ({"endpoint": "staff", "network": "10.30.0.0/16", "group": "g", "all_groups": True}, "give either a group"),
        (
            {"endpoint": "staff", "network": "10.30.0.1/16", "group": "g"},
            "network: 10.30.0.1/16 has host bits set",
        ),
        ({"endpoint": "staff", "network": "everything", "group": "g"}, "network: 'everything' is not a network"),
        ({"endpoint": "staff", "network": 5, "group": "g"}, "network: Input should be a valid string"),
        ({"endpoint": "staff", "network": "10.30.0.0/16", "group": ""}, "group: String should have at least 1"),
        ({"endpoint": "staff", "network": "10.30.0.0/16", "group": "a\nb"}, "group: String should match pattern"),
        (
            {"endpoint": "staff", "network": "10.30.0.0/16", "all_groups": "true"},
            "all_groups: Input should be a valid",
        ),
        ({"endpoint": "staff", "network": "10.30.0.0/16", "group": "g", "description": "x" * 256}, "description: "),
        ({"endpoint": "staff", "network": "10.30.0.0/16", "grup": "g"}, "grup: Extra inputs are not permitted"),
        ({"network": "10.30.0.0/16", "group": "g"}, "endpoint: Field required"),
        (["endpoint"], "Input should be a valid dictionary"),
    ],
)
def test_a_wrong_rule_is_refused_by_field(
    client: httpx.Client, operations: MemoryOperations, body: object, complaint: str
) -> None:
    status, code, message = refusal(client.post("/rules", json=body))
    assert (status, code) == (400, "InvalidParameterValue")
    assert complaint in message
    assert len(operations.rules) == 1


def test_the_operations_refusals_keep_their_code_and_get_a_fitting_status(client: httpx.Client) -> None:
    rule = {"endpoint": "staff", "network": "10.20.0.0/16", "all_groups": True}
    assert refusal(client.post("/rules", json=rule))[:2] == (409, "InvalidClientVpnDuplicateAuthorizationRule")
    file_rule = {"endpoint": "staff", "network": "10.20.0.0/16", "all_groups": "true"}
    assert refusal(client.delete("/rules", params=file_rule))[:2] == (409, "IncorrectState")
    assert refusal(client.get("/rules", params={"endpoint": "x"}))[:2] == (404, "InvalidClientVpnEndpointId.NotFound")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InvalidParameterValue", 400),
        ("ClientVpnAuthorizationRuleLimitExceeded", 400),
        ("InvalidClientVpnSubnetId.DuplicateAz", 409),
        ("UnauthorizedOperation", 403),
        ("Unavailable", 503),
        ("InternalError", 500),
    ],
)
def test_statuses(code: str, status: int) -> None:
    assert status_of(code) == status


def test_routes(client: httpx.Client) -> None:
    assert client.get("/routes", params={"endpoint": STAFF.endpoint_id}).json()["routes"] == [
        {
            "endpoint_id": STAFF.endpoint_id,
            "destination": "10.20.0.0/16",
            "target": "subnet-a",
            "origin": "associate",
            "description": "",
            "status": "active",
        }
    ]


def test_client_keys(client: httpx.Client) -> None:
    (key,) = client.get("/client-keys", params={"endpoint": "staff"}).json()["client_keys"]
    assert (key["name"], key["serial"], key["status"]) == ("alice", "0A1B", "revoked")
    assert refusal(client.get("/client-keys", params={"endpoint": "nowhere"}))[0] == 404
    profile = client.post("/profiles", json={"name": "alice", "serial": "0a:1b"}).json()["profile"]
    assert "alice None openvpn False 0a:1b" in profile


def test_certificates(client: httpx.Client) -> None:
    issued = client.post("/certificates", json={"name": "bob", "days": 30})
    assert issued.status_code == 201
    assert issued.json() == {"certificate": "certificate of bob\n", "private_key": "key of bob\n"}
    revoked = client.post("/certificates/revoke", json={"serial": "0A1B"}).json()["certificate"]
    assert (revoked["name"], revoked["status"]) == ("alice", "revoked")
    statuses = {c["name"]: c["status"] for c in client.get("/certificates").json()["certificates"]}
    assert statuses == {"alice": "revoked", "bob": "valid"}
    assert refusal(client.post("/certificates/revoke", json={"name": "carol"}))[0] == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/certificates", {"name": "x" * 65}),
        ("/certificates", {"name": "x", "days": 0}),
        ("/certificates", {"name": "x", "days": "30"}),
        ("/certificates", {"name": "x", "days": True}),
        ("/certificates/revoke", {}),
        ("/certificates/revoke", {"name": "alice", "serial": "0A"}),
        ("/certificates/revoke", {"serial": "not hex"}),
        ("/profiles", {"name": "alice", "issue": True, "serial": "0A"}),
        ("/profiles", {"name": "alice", "serial": "not hex"}),
        ("/profiles", {"name": ""}),
    ],
)
def test_wrong_certificate_requests_are_refused(client: httpx.Client, path: str, body: object) -> None:
    assert refusal(client.post(path, json=body))[:2] == (400, "InvalidParameterValue")


def test_profiles(client: httpx.Client) -> None:
    made = client.post("/profiles", json={"name": "alice", "endpoint": "staff", "kind": "aws", "issue": True})
    assert made.json() == {"profile": "client\n# alice staff aws True\n"}
    assert client.post("/profiles", json={"name": "alice"}).json() == {
        "profile": "client\n# alice None openvpn False\n"
    }
    assert refusal(client.post("/profiles", json={"name": "alice", "kind": "fax"}))[0] == 400


def test_explain(client: httpx.Client) -> None:
    question = {"user": "alice", "destination": "10.20.1.1", "group": ["eng", "ops"]}
    allowed = client.get("/explain", params=question).json()["explanation"]
    assert allowed["allowed"] is True
    assert allowed["groups"] == ["eng", "ops"]
    assert allowed["rule"]["network"] == "10.20.0.0/16"
    assert allowed["route"]["target"] == "subnet-a"
    denied = client.get("/explain", params={"user": "alice", "destination": "8.8.8.8"}).json()["explanation"]
    assert (denied["allowed"], denied["rule"], denied["route"]) == (False, None, None)
    assert "user: Field required" in refusal(client.get("/explain", params={"destination": "8.8.8.8"}))[2]
    assert "given more than once" in refusal(client.get("/explain?user=a&user=b&destination=8.8.8.8"))[2]


def test_reload(client: httpx.Client, operations: MemoryOperations) -> None:
    assert client.post("/reload").json() == {"reload": {"revision": 1, "changed": ["staff"]}}
    assert operations.reloads == 1
    assert refusal(client.get("/reload"))[:2] == (405, "MethodNotAllowed")


def test_a_failure_inside_tells_the_caller_nothing_of_it(client: httpx.Client, operations: MemoryOperations) -> None:
    operations.broken = True
    response = client.get("/endpoints")
    assert refusal(response)[:2] == (500, "InternalError")
    assert "secret" not in response.text
    assert client.get("/routes").status_code == 200


def test_what_is_not_a_request_of_ours_is_refused(client: httpx.Client) -> None:
    assert refusal(client.get("/nothing"))[:2] == (404, "NoSuchPath")
    assert refusal(client.get("http://cvpnd/"))[:2] == (404, "NoSuchPath")
    assert refusal(client.put("/rules"))[:2] == (405, "MethodNotAllowed")
    assert refusal(client.get("/endpoints?typo=1"))[:2] == (400, "InvalidParameterValue")
    assert refusal(client.post("/rules", content="{}"))[:2] == (415, "UnsupportedMediaType")
    json_type = {"content-type": "application/json; charset=utf-8"}
    for malformed in (b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 10_000, '{"name": "bob"}'.encode("utf-16")):
        assert refusal(client.post("/rules", content=malformed, headers=json_type))[:2] == (400, "MalformedBody")


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (b'"name": "bob", "name": "eve"', "a key comes twice"),
        (b'"name": "bob", "\\u006eame": "eve"', "a key comes twice"),
        (b'"settings": {"x": 1, "x": 2}', "a key comes twice"),
        (b'"settings": {"x": NaN}', "NaN is no number"),
        (b'"settings": {"x": -Infinity}', "-Infinity is no number"),
        (b'"settings": {"x": 1e999}', "1e999 is too large a number"),
        (b'"settings": {"x": [-1.5E+400]}', "-1.5E+400 is too large a number"),
        (b'"name": "b\\ud800"', "half of a character"),
        (b'"settings": {"\\udc00": 1}', "half of a character"),
    ],
)
def test_what_two_readers_may_read_differently_is_refused(client: httpx.Client, members: bytes, told: str) -> None:
    """A proxy that looks at requests may take the first of two names, and has let another be done than is."""
    answer = client.post("/endpoints", content=b"{%s}" % members, headers={"content-type": "application/json"})
    status, code, message = refusal(answer)
    assert (status, code) == (400, "MalformedBody") and told in message


def test_a_character_in_two_escape_sequences_is_one(client: httpx.Client) -> None:
    body, json_type = b'{"name": "\\ud83d\\ude00"}', {"content-type": "application/json"}
    assert client.post("/certificates", content=body, headers=json_type).status_code == 201


def test_a_byte_order_mark_before_a_body_is_no_part_of_it(client: httpx.Client) -> None:
    """Windows PowerShell writes one into every file in UTF-8."""
    json_type = {"content-type": "application/json"}
    body = b"\xef\xbb\xbf" + b'{"name": "bob"}'
    assert client.post("/certificates", content=body, headers=json_type).status_code == 201
    twice = client.post("/certificates", content=body[:3] + body, headers=json_type)
    assert refusal(twice)[:2] == (400, "MalformedBody")


def test_a_body_over_the_limit_or_without_its_length_is_refused(client: httpx.Client) -> None:
    json_type = {"content-type": "application/json"}
    long = b'"' + b"x" * BODY_LIMIT + b'"'
    assert refusal(client.post("/rules", content=long, headers=json_type))[:2] == (413, "RequestTooLarge")
    unmeasured = client.post("/rules", content=iter([b"{}"]), headers=json_type)
    assert (unmeasured.status_code, unmeasured.text) == (411, "send Content-Length, and no Transfer-Encoding")
    assert client.get("/health").status_code == 200


def test_what_is_long_is_read_and_written_beside_the_event_loop(
    client: httpx.Client, operations: MemoryOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand rules that somebody listed kept all others waiting for most of a second."""
    threads: dict[str, set[str]] = {"read": set(), "written": set()}

    def noting(what: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            threads[what].add(threading.current_thread().name)
            return do(*arguments)

        return noted

    monkeypatch.setattr(forms, "read_json", noting("read", forms.read_json))
    monkeypatch.setattr(forms, "to_json", noting("written", forms.to_json))
    assert client.post("/rules", json={"endpoint": "staff", "network": "10.99.0.0/16", "group": "a"}).status_code == 201
    (loop,) = threads["read"]
    assert threads["written"] == {loop}
    many = [{"network": f"10.{n >> 8}.{n & 255}.0/24", "group": "a", "colour": "red"} for n in range(2000)]
    refused = refusal(client.post("/rules/import", json={"endpoint": "staff", "rules": many}))
    assert refused[:2] == (400, "InvalidParameterValue") and len(threads["read"]) == 2
    operations.rules *= 1000
    listed = client.get("/rules").json()["rules"]
    assert len(listed) == len(operations.rules) and len(threads["written"]) == 2
    assert listed[0] in client.get("/rules").json()["rules"]


def test_a_body_that_does_not_come_is_waited_for_no_longer(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvpnd.api.rest.forms.BODY_S", 0.2)
    come = threading.Event()

    def late() -> Iterator[bytes]:
        yield b"{"
        come.wait(1)
        yield b"}"

    headers = {"Content-Type": "application/json", "Content-Length": "2"}
    answer = client.post("/rules", content=late(), headers=headers)
    assert refusal(answer)[:2] == (408, "RequestTimeout")


def test_openapi_describes_every_route_and_every_form_in_it(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/([^\"]+)", text):
        assert name in document["components"]["schemas"], name
    assert document["paths"]["/v1/rules"]["post"]["requestBody"]["required"] is True
    parameters = {each["name"]: each["required"] for each in document["paths"]["/v1/rules"]["delete"]["parameters"]}
    assert parameters == {"endpoint": True, "network": True, "group": False, "all_groups": False}
    (mount,) = build_admin_app(MemoryOperations()).routes
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    routes = {(f"/v1{route.path}", route.method) for route in mount.routes if route.path != "/openapi.json"}
    assert described == routes
