"""The AWS SDK for JavaScript, unmodified, against the daemon. ``make test-sdk`` installs it and runs this."""

from __future__ import annotations

import json
import os

import pytest

if not os.environ.get("SDK"):
    pytest.skip("make test-sdk runs this, which takes Node and the AWS SDK for JavaScript", allow_module_level=True)

from pathlib import Path

from helpers import certs, saml_idp
from helpers.lab import GatewayProcess, Lab

API = "http://127.0.0.1:8443"


def test_an_administrators_program_in_javascript_sees_what_aws_would_show_it() -> None:
    with Lab() as lab:
        directory = lab.directory / "gateway"
        directory.mkdir()
        toml = f'[api]\nlisten = "{API}"\n' + lab.networks_toml()
        gateway = GatewayProcess(lab.gateway, directory, toml, {})
        gateway.start()
        gateway.running.wait_for("ready: ")  # the admin socket answers before the API listens
        key = gateway.ctl_json("access-key", "create", "--role", "admin")
        given = {
            "api": API,
            "key": key["access_key_id"],
            "secret": key["secret_access_key"],
            "certificate": certs.server().certificate_pem.decode(),
            "privateKey": certs.server().private_key_pem.decode(),
            "chain": certs.authority().certificate_pem.decode(),
            "metadata": saml_idp.metadata(),
        }
        script = Path(__file__).with_name("aws_sdk.mjs")
        seen = json.loads(lab.gateway.run("node", script, input=json.dumps(given), timeout_s=60).stdout)
        assert gateway.ctl_json("endpoint", "list") == []
        gateway.stop()
    assert seen.pop("account").isdecimal()
    rules = seen.pop("rules")
    assert rules == {"pages": 3, "groups": [f"group {number} ä&=" for number in range(12)], "text": "plus + und ~"}
    assert seen == {
        "certificate": True,
        "tags": [{"Key": "made", "Value": "by JavaScript"}],
        "metadata": True,
        "streams": ["one"],
        "routes": ["10.20.0.0/16 associate", "172.16.0.0/16 add-route"],
        "banner": "Grüße & <willkommen>",
        "status": "available",
        "name": [{"Key": "Name", "Value": "js"}],
        "profile": True,
        "duplicate": "InvalidClientVpnDuplicateAuthorizationRule 400",
        "dryRun": "DryRunOperation 412",
        "slowClock": 1,
        "slowClockOfLogs": 1,
        "wrongSecret": "AuthFailure 401",
        "once": ["authorizing"] * 3,
        "onceOnly": "IdempotentParameterMismatch 400",
        "inUse": "DependencyViolation 400",
        "certificateInUse": "ResourceInUseException 400",
        "unknownProvider": "NoSuchEntityException 404",
        "unknownGroup": "ResourceNotFoundException 400",
        "disassociated": "disassociated",
        "deleted": "deleted",
    }
