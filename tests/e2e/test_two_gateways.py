"""Two gateways on one PostgreSQL, each on a host of its own: a change at one is in force at the other before a second
is over, and of two that contradict each other one is refused in words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError
from helpers import certs
from helpers.lab import CLIENT_LEGS, Lab, wait_until
from helpers.postgresql import PostgreSql, installed
from helpers.shared_state import PROMPT_S, Host, followed, token_of

from cvpnd.auth.passwords import hash_password
from cvpnd.store import Store, StoredLocalUser

GRACE_S = 3.0
"""That clients are given in a change."""


OWN = """
[[endpoint]]
name = "own"
client_cidr = "10.112.0.0/22"
listen = ["udp://0.0.0.0:1301"]
server_certificate = { certificate = "server.crt", private_key = "server.key" }
authentication = [{ type = "certificate-authentication", client_ca = "ca.crt" }]
associate = ["subnet-a"]
"""


@pytest.mark.skipif(
    not installed(), reason="PostgreSQL is not installed (Debian package postgresql), or this is not root"
)
def test_a_change_at_one_gateway_is_in_force_at_the_other(tmp_path: Path) -> None:
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        here, there = Host(left, state, key), Host(right, state, key)
        endpoint = here.serve_people("alice")
        followed("a new endpoint", lambda: [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"])
        network = here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})["network"]
        rule = {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True}
        here.done("POST", "/rules", rule)
        followed("a network", lambda: there.get("/endpoints/lab")["endpoint"]["status"] == "available")
        followed("a rule", lambda: there.get("/rules")["rules"])
        client = there.client()
        assert there.passes()
        here.done("DELETE", "/rules", **{**rule, "all_groups": "true"})
        followed("a rule that is gone", lambda: there.get("/rules")["rules"] == [])
        assert not there.passes()
        here.done("POST", "/rules", rule)
        followed("the rule again", lambda: there.get("/rules")["rules"])
        assert there.passes()
        _contradict(here, there)
        here.done("PATCH", "/users/alice", {"disabled": True})
        followed("a disabled user's end", lambda: "account-disabled" in str(there.get("/connections")))
        client.stop()
        here.done("PATCH", "/users/alice", {"disabled": False})
        time.sleep(1)  # nothing that is shown tells when she may come back there
        client = there.client()

        credentials = here.done("POST", "/access-keys", {"role": "admin"})
        at_the_other = there.ec2(credentials)
        revoked = certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client()]))
        here.done("PUT", "/endpoints/lab/crl", {"pem": revoked.decode()})
        followed("a revoked certificate's end", lambda: "certificate-revoked" in str(there.get("/connections")))
        client.stop()

        with there.lab.gateway.entered():
            here.done("DELETE", "/networks", endpoint="lab", network="subnet-a")
            (shown,) = at_the_other.describe_client_vpn_target_networks(
                ClientVpnEndpointId=endpoint, AssociationIds=[network["association_id"]]
            )["ClientVpnTargetNetworks"]
            assert shown["Status"]["Code"] == "disassociated"
            here.done("DELETE", "/endpoints/lab")

            def status() -> str:
                found = at_the_other.describe_client_vpn_endpoints(ClientVpnEndpointIds=[endpoint])
                return str(found["ClientVpnEndpoints"][0]["Status"]["Code"])

            followed("a deleted endpoint", lambda: status() == "deleted")
            here.done("DELETE", "/access-keys/" + credentials["access_key"]["access_key_id"])

            def key_is_known() -> bool:
                try:
                    return bool(status())
                except ClientError as error:
                    assert error.response["Error"]["Code"] == "AuthFailure"
                    return False

            followed("a deleted access key", lambda: not key_is_known())
        for host in (here, there):
            host.gateway.stop()


@pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")
def test_who_is_ended_at_one_gateway_is_ended_at_the_other_and_while_the_database_is_gone_as_soon_as_it_is_back(
    tmp_path: Path,
) -> None:
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        here, there = Host(left, state, key), Host(right, state, key)
        endpoint = here.serve_people("alice", "bob")
        here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})
        followed("the endpoint", lambda: "'available'" in str(there.get("/endpoints")))

        def end(username: str, at: Host = here) -> httpx.Response:
            return at.rest.post("/connections/terminate", json={"username": username})

        alice = here.client()
        elsewhere = there.client()
        assert end("Alice").is_success, "however it is spelled"
        alice.wait_for("Terminated by the administrator")
        elsewhere.wait_for("Terminated by the administrator")
        for client in (alice, elsewhere):
            client.stop()
        elsewhere = there.client()
        with closing(Store.open(state, key)) as store:  # between two looks of the gateway, which never sees her gone
            another = StoredLocalUser("alice", hash_password("right"), (), False, time.time())
            transaction = store.begin()
            with transaction.joined():
                assert store.remove_local_user("alice")
                store.add_local_user(another)
            transaction.commit()
        elsewhere.wait_for("Account disabled")
        elsewhere.stop()
        token, bobs = token_of("alice", state, key, endpoint), token_of("bob", state, key, endpoint)
        there.client(password=token).stop()
        elsewhere = there.client(user="bob")
        server.stop()
        told = end("alice")
        assert told.status_code == 503 and "other gateways on the same database do not know it yet" in told.text
        assert "do the same at each of them" in told.text
        here.client(password=token, wait=False).wait_for("AUTH_FAILED,SESSION: token expired")
        assert end("bob").status_code == 503
        time.sleep(1)
        assert elsewhere.process.running, "what the guide says of it"
        assert end("bob", there).status_code == 503
        elsewhere.wait_for("Terminated by the administrator")
        there.client(user="bob", password=bobs, wait=False).wait_for("AUTH_FAILED,SESSION: token expired")
        elsewhere = there.client(password=token)
        server.start()
        elsewhere.wait_for("Terminated by the administrator", 30)
        there.client(password=token, wait=False).wait_for("AUTH_FAILED,SESSION: token expired")
        for host in (here, there):
            host.client(user="bob", password=bobs, wait=False).wait_for("AUTH_FAILED,SESSION: token expired")
        ended = [
            each["details"]["username"] for each in there.get("/audit")["records"] if "username" in each["details"]
        ]
        assert sorted(ended) == ["Alice", "alice", "bob", "bob"], "each of the administrators"
        for host in (here, there):
            host.gateway.stop()


def _contradict(here: Host, there: Host) -> None:
    """The same rule at both at once, five times: one is told that it is there, and both have it."""
    begin = threading.Barrier(2)

    def add(host: Host, network: str) -> str:
        begin.wait(PROMPT_S)
        return host.rest.post("/rules", json={"endpoint": "lab", "network": network, "group": "staff"}).text

    with ThreadPoolExecutor(2) as pool:
        for number in range(5):
            told = list(pool.map(add, (here, there), [f"10.2{number}.0.0/16"] * 2))
            refused = ["InvalidClientVpnDuplicateAuthorizationRule" in each for each in told]
            assert sorted(refused) == [False, True], told
    rules = here.get("/rules")["rules"]
    assert len(rules) == 6
    followed("the rules of both", lambda: sorted(map(str, there.get("/rules")["rules"])) == sorted(map(str, rules)))


@pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")
def test_what_one_gateway_cannot_serve_keeps_it_from_no_other_change(tmp_path: Path) -> None:
    """An endpoint that another gateway has made, on a port that something else has here."""
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        here, there = Host(left, state, key), Host(right, state, key)
        arn = here.import_certificate()
        trust = {"server_certificate": arn, "client_certificate": arn}
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1}
        made = {"client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        here.done("POST", "/endpoints", {"name": "lab", **made})
        followed("an endpoint", lambda: [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"])
        here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})
        here.done("POST", "/users", {"name": "alice", "password": "right"})
        rule = {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True}
        here.done("POST", "/rules", rule)
        followed("a rule", lambda: there.get("/rules")["rules"])
        followed("a user", lambda: there.get("/users")["users"])
        client = there.client()
        wait_until(there.passes, PROMPT_S, "traffic")

        occupant = there.occupy(1300)
        here.done("POST", "/endpoints", {**made, "name": "taken", "client_cidr": "10.104.0.0/22", "port": 1300})
        followed("that it cannot be served", there.problems)
        (problem,) = there.problems()
        assert problem["severity"] == "critical" and "1300" in problem["what"]
        assert [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"] and there.passes()
        there.done("PATCH", "/users/alice", {"disabled": True})
        there.done("POST", "/rules", {**rule, "network": "10.30.0.0/16"})
        here.done("DELETE", "/rules", **{**rule, "all_groups": "true"})
        followed("a rule that is gone", lambda: len(there.get("/rules")["rules"]) == 1)
        assert not there.passes()
        revoked = certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client()]))
        there.done("PUT", "/endpoints/lab/crl", {"pem": revoked.decode()})
        wait_until(
            lambda: "certificate-revoked" in str(there.get("/connections")), PROMPT_S, "a revoked certificate's end"
        )
        client.stop()
        assert there.gateway.log().count("it cannot be served here") == 1, "it is said once"
        there.gateway.kill()
        there.gateway.start()
        assert [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"], "it starts without it"
        assert there.gateway.log().count("it cannot be served here") == 1

        occupant.kill()
        here.done("POST", "/users", {"name": "bob", "password": "right"})
        followed("an endpoint that can be served now", lambda: len(there.get("/endpoints")["endpoints"]) == 2)
        assert not there.problems()
        for host in (here, there):
            host.gateway.stop()


@pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")
def test_whom_another_gateway_revokes_is_out_also_where_the_endpoint_is_set_aside(tmp_path: Path) -> None:
    """It moves to a port that something else has here, and so stays on its old one: in all else it follows."""
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        handler = '[[handler]]\nname = "AWSClientVPN-here"\nurl = "https://127.0.0.1:9/"\n'
        here, there = Host(left, state, key, handler), Host(right, state, key)
        own = here.import_certificate()
        trusted = here.import_certificate()
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1}
        trust = {"server_certificate": own, "client_certificate": trusted}
        made = {"name": "lab", "client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        here.done("POST", "/endpoints", made)
        here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})
        here.done("POST", "/rules", {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True})
        followed("a rule", lambda: there.get("/endpoints")["endpoints"] and there.get("/rules")["rules"])
        there.occupy(1300)
        here.done("PATCH", "/endpoints/lab", {"port": 1300})
        followed("that it cannot be served", there.problems)
        (set_aside,) = there.problems()
        assert "goes on listening where it did" in set_aside["what"]

        client = there.client()
        wait_until(there.passes, PROMPT_S, "traffic")
        here.done("PUT", "/endpoints/lab/crl", {"pem": _list(certs.client())})
        followed("a revoked certificate's end", lambda: "certificate-revoked" in str(there.get("/connections")))
        client.stop()
        client = there.client(wait=False)
        wait_until(lambda: there.refused("certificate-revoked"), PROMPT_S, "that a revoked one is not let in")
        client.stop()

        here.done("PUT", "/endpoints/lab/crl", {"pem": _list(number=2)})
        time.sleep(3)  # nothing that is shown there tells when the new list is in force
        client = there.client()
        other = certs.authority("Another CA")
        pem = {"certificate": other.certificate_pem.decode(), "private_key": other.private_key_pem.decode()}
        here.done("POST", "/imported-certificates", {**pem, "arn": trusted})
        followed("an authority's end", lambda: "certificate-unknown-ca" in str(there.get("/connections")))
        client.stop()
        client = there.client(wait=False)
        wait_until(lambda: there.refused("certificate-unknown-ca"), PROMPT_S, "that its people are not let in")
        client.stop()

        here.done("PATCH", "/endpoints/lab", {"settings": {"connect_handler": "AWSClientVPN-here"}})
        followed("that nobody there can be asked who gets in", lambda: there.get("/endpoints")["endpoints"] == [])
        (set_aside,) = there.problems()
        assert "AWSClientVPN-here" in set_aside["what"] and "nobody gets in by it" in set_aside["what"]
        for host in (here, there):
            host.gateway.stop()


@pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")
def test_a_rule_of_another_gateway_waits_for_the_firewall_that_belongs_to_it(
    tmp_path: Path, faulty_nft: Callable[[str], Path]
) -> None:
    broken = faulty_nft("echo planted >&2 && exit 1")
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        path = f"{broken.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        here, there = Host(left, state, key), Host(right, state, key, PATH=path)
        arn = here.import_certificate()
        trust = {"server_certificate": arn, "client_certificate": arn}
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1}
        made = {"name": "lab", "client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        here.done("POST", "/endpoints", made)
        here.done("POST", "/endpoints", {**made, "name": "two", "client_cidr": "10.104.0.0/22", "port": 1300})
        here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})
        old = {"endpoint": "lab", "network": "10.30.0.0/16", "all_groups": True}
        here.done("POST", "/rules", old)
        followed("a rule", lambda: len(there.get("/endpoints")["endpoints"]) == 2 and there.get("/rules")["rules"])
        there.client()

        broken.touch()
        here.done("POST", "/networks", {"endpoint": "two", "subnet": "subnet-a"})
        here.done("POST", "/rules", {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True})
        here.done("DELETE", "/rules", **{**old, "all_groups": "true"})

        def reach_less() -> bool:
            return any(
                "less than its authorization rules" in e["what"] for e in there.get("/status")["status"]["problems"]
            )

        wait_until(reach_less, 20, "that it cannot be put in force is told")
        assert not there.passes()
        broken.unlink()
        wait_until(lambda: not reach_less() and there.passes(), 20, "the rule, once nft works again")
        for host in (here, there):
            host.gateway.stop()


@pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")
def test_nobody_waits_for_another_gateway_to_give_its_clients_time(tmp_path: Path) -> None:
    """It has a client, who is told to come back and given seconds to hear it, in the middle of what it follows."""
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        here, there = Host(left, state, key), Host(right, state, key)
        arn = here.import_certificate()
        trust = {"server_certificate": arn, "client_certificate": arn}
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1}
        made = {"name": "lab", "client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        here.done("POST", "/endpoints", made)
        followed("an endpoint", lambda: there.get("/endpoints")["endpoints"])
        there.client()
        here.done("PATCH", "/endpoints/lab", {"port": 1300})  # nobody is told here
        rule = {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True}
        longest, number, begun = 0.0, 0, time.monotonic()
        while time.monotonic() < begun + GRACE_S:
            asked = time.monotonic()
            here.done("POST", "/rules", rule)
            here.done("DELETE", "/rules", **{**rule, "all_groups": "true"})
            longest, number = max(longest, time.monotonic() - asked), number + 2
        here.done("POST", "/rules", rule)
        print(f"{number} changes meanwhile, of which the longest took {longest:.2f} s")
        assert longest < GRACE_S, "nobody waits until its clients have heard"
        moved = ["udp://0.0.0.0:1300"]
        followed("the new port", lambda: [e["listen"] for e in there.get("/endpoints")["endpoints"]] == [moved])
        followed("the rule", lambda: there.get("/rules")["rules"])
        for host in (here, there):
            host.gateway.stop()


@pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")
def test_an_endpoint_of_its_own_file_that_cannot_listen_keeps_a_gateway_from_no_change(tmp_path: Path) -> None:
    """Its device is lost and cannot be had again at once, and meanwhile something else takes its port."""
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        here, there = Host(left, state, key), Host(right, state, key, OWN)
        arn = here.import_certificate()
        wait_until(lambda: there.get("/endpoints")["endpoints"], PROMPT_S, "its own endpoint")
        devices = [f"cvpn{number}" for number in range(1, 40)]
        for device in devices:
            there.lab.gateway.run("ip", "tuntap", "add", device, "mode", "tun")
        there.lab.gateway.run("ip", "link", "delete", "cvpn0")
        wait_until(lambda: there.get("/endpoints")["endpoints"] == [], PROMPT_S, "its end")
        occupant = there.occupy(1301)
        for device in devices:
            there.lab.gateway.run("ip", "link", "delete", device)

        trust = {"server_certificate": arn, "client_certificate": arn}
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1}
        made = {"name": "lab", "client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        here.done("POST", "/endpoints", made)
        followed("an endpoint", lambda: [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"])
        (problem,) = there.problems()
        assert "own" in problem["what"] and "1301" in problem["what"] and "nobody gets in by it" in problem["what"]
        there.done("POST", "/rules", {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True})
        refused = there.rest.post("/reload")
        assert refused.status_code == 400 and "1301" in refused.text
        occupant.kill()
        there.done("POST", "/reload")
        assert {e["name"] for e in there.get("/endpoints")["endpoints"]} == {"lab", "own"}
        here.done("POST", "/users", {"name": "bob", "password": "right"})
        followed("that all is well", lambda: not there.problems())
        for host in (here, there):
            host.gateway.stop()


def _list(*revoked: certs.TestCertificate, number: int = 1) -> str:
    return certs.crl_pem(certs.certificate_revocation_list(revoked=revoked, number=number)).decode()
