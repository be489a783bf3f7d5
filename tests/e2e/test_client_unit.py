"""The stock client as Debian's own unit runs it, with as few rights as people give it."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.desktop import GATEWAY, Unit, configure, desktop
from helpers.lab import TARGET_LEG, wait_until

from .test_devices import ends, live

JAIL = "/var/lib/openvpn-jail"
NOBODY = "user nobody\ngroup nogroup\npersist-key\n"


@pytest.mark.parametrize("rights", ["", NOBODY, f"{NOBODY}chroot {JAIL}\n"], ids=["root", "nobody", "jail"])
def test_client_of_the_unit_comes_back_with_what_rights_it_has(site: Any, tmp_path: Any, rights: str) -> None:
    gateway = site.start(f'remote = "{GATEWAY}"')
    with desktop(site.lab, tmp_path) as system:
        configure(system)
        (system.root / JAIL.lstrip("/") / "tmp").mkdir(parents=True)
        client = Unit(system, "staff", gateway.ctl("profile", "alice").stdout + rights)
        client.start()

        def ping() -> bool:
            return " 0% packet loss" in system.run("ping", "-c", "3", "-i", "0.2", TARGET_LEG.host, check=False).stdout

        assert ping()
        (before,) = live(gateway)
        gateway.stop()
        gateway.start()
        client.wait_connected(2)
        assert ping()
        (after,) = live(gateway)
        assert after["client_ip"] == before["client_ip"]
        client.stop()
        wait_until(lambda: ends(gateway)[-1:] == ["client-exit"], 10, "its goodbye")
        assert "cannot" not in client.log().lower(), client.log()
