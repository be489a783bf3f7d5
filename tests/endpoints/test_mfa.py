"""A second factor is the endpoint's to say, else its directory's, wherever the endpoint was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvpnd.config import Config
from cvpnd.endpoints.managed import compose
from cvpnd.store import StoredEndpoint

FACTORS = {"corp": "radius", "labs": "off"}
CASES = [
    ("corp", {}, "radius"),
    ("corp", {"mfa": "off"}, "off"),
    ("corp", {"mfa": "totp"}, "totp"),
    ("labs", {}, "off"),
]


@pytest.mark.parametrize(("directory", "said", "wanted"), CASES)
def test_of_the_file_and_made_at_run_time(directory: str, said: dict[str, str], wanted: str) -> None:
    method = {"type": "directory-service-authentication", "directory": directory, **said}
    certificate = {"certificate": Path("server.crt"), "private_key": Path("server.key")}
    table = {"client_cidr": "10.100.0.0/22", "listen": ["udp://0.0.0.0:1194"], "authentication": [method]}
    stored = StoredEndpoint("cvpn-endpoint-0123456789abcdef0", "made", table, "arn", "", "", 0.0)
    made = compose(stored, {**certificate, "chain": None, "client_ca": None, "crl": None}, mfa=FACTORS)
    ldap = {"type": "openldap", "servers": ["ldaps://x"], "bind": "direct", "user_base": "dc=x"}
    config = Config.model_validate(
        {
            "path": Path("cvpnd.toml"),
            "directory": [{"id": name, "mfa": mfa, **ldap} for name, mfa in FACTORS.items()],
            "endpoint": [{**table, "name": "declared", "server_certificate": certificate}],
        }
    )
    for endpoint in (made, *config.endpoints):
        assert endpoint.user_method is not None and endpoint.user_method.mfa == wanted
