"""What the stock client gets from a client connect handler of each kind: a program, a function, a server over HTTP.

Each lets in, refuses, fails, answers nonsense and does not answer.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers import certs

TEXT = "Ask for a new laptop at the helpdesk"
ANSWER = {"error-msg-on-denied-connection": TEXT, "posture-compliance-statuses": ["compliant"], "schema-version": "v3"}
PROGRAM = f"""#!/usr/bin/python3
import json, sys, time
name = json.load(sys.stdin)["common-name"]
if name == "failing":
    sys.exit(1)
if name == "slow":
    time.sleep(60)
print("maybe" if name == "mumbling" else json.dumps({{"allow": name == "alice", **{ANSWER!r}}}))
"""
MODULE = f"""
import time

def check(event):
    name = event["common-name"]
    if name == "slow":
        time.sleep(4)
    return "maybe" if name == "mumbling" else {{"allow": {{"alice": True, "bob": False}}[name], **{ANSWER!r}}}
"""
REASONS = {
    "bob": "client-connect-failed",
    "failing": "client-connect-handler-other-execution-error",
    "mumbling": "client-connect-handler-invalid-response",
    "slow": "client-connect-handler-timed-out",
}


STATUSES = {"failing": 500, "crowded": 429}
SERVER_REASONS = REASONS | {
    "crowded": "client-connect-handler-throttled",
    "hung-up-on": "client-connect-handler-service-error",
}


class Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["common-name"]
        if name == "hung-up-on":
            return
        if name == "slow":
            time.sleep(4)
        self.send_response(STATUSES.get(name, 200))
        self.end_headers()
        answer = b"maybe" if name == "mumbling" else json.dumps({"allow": name == "alice", **ANSWER}).encode()
        with contextlib.suppress(ConnectionError):  # who asked about the slow one is gone
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def program(open_directory: Path) -> str:
    path = open_directory / "posture"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return f'executable = "{path}"'


@pytest.fixture
def function(open_directory: Path) -> str:
    (open_directory / "posture_of_this_lab.py").write_text(MODULE)
    return f'python = "posture_of_this_lab:check"\npython_path = "{open_directory}"'


@pytest.fixture
def server(site) -> Iterator[str]:
    """On the gateway itself."""
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Answering, bind_and_activate=False)
    serving.socket.close()
    serving.socket = site.lab.gateway.socket()
    serving.socket.bind(("127.0.0.1", 0))
    serving.socket.listen()
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f'url = "http://127.0.0.1:{serving.socket.getsockname()[1]}/"'
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.mark.parametrize("kind", ["program", "function", "server"])
def test_each_kind_of_handler_decides_and_each_way_to_fail_denies(site, request, kind, ping):
    handler = f'[[handler]]\nname = "AWSClientVPN-posture"\ntimeout_s = 2\n{request.getfixturevalue(kind)}\n'
    gateway = site._gateway = site.lab.gateway_process(handler + site.toml('connect_handler = "AWSClientVPN-posture"'))
    site.connect(certs.client("alice"))
    assert ping() == 1.0
    (view,) = gateway.ctl_json("connection", "list")
    assert view["posture_compliance_statuses"] == ["compliant"]
    for name, reason in (SERVER_REASONS if kind == "server" else REASONS).items():
        client = site.connect(
            certs.client(name), name=name, wait=False, client=site.lab.clients[1], host="198.51.100.1"
        )
        client.wait_for(f"AUTH_FAILED,{TEXT}" if name == "bob" else "AUTH_FAILED")
        client.stop()
        assert client.connected_count == 0
        assert gateway.metrics()[f'cvpnd_authentication_failures_total{{endpoint="staff",reason="{reason}"}}'] == 1
    assert ping() == 1.0
