"""What the store remembers for a while is remembered by the steady clock, whatever day the wall clock says it is."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from cvpnd.secret import Secret
from cvpnd.store import Store
from cvpnd.store.radius_codes import CLOCKS_DIFFER_S
from cvpnd.store.revoked_logins import KEPT_S
from cvpnd.store.saml_logins import KEPT_LONGER_S
from cvpnd.store.schema import MIGRATIONS

YEARS_S = 40 * 365 * 86_400.0


@pytest.fixture
def wrong_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask for it."""
    monkeypatch.setattr(time, "time", lambda: YEARS_S * 3)


def test_the_steady_clock_goes_on_where_the_latest_of_all_gateways_was(url: str) -> None:
    with closing(Store.open(url)) as one, closing(Store.open(url)) as other:
        assert one.keep_clock(0.0, 1000.0).seconds == 0.0
        one.keep_clock(50.0, 1050.0)
        before = other.keep_clock(7.0, 900.0)
        assert (before.seconds, before.wall) == (50.0, 1050.0)
    with closing(Store.open(url)) as again:
        before = again.keep_clock(0.0, 2000.0)
        assert (before.seconds, before.wall) == (50.0, 900.0)


@pytest.mark.usefixtures("wrong_day")
def test_marks_of_users_stay_and_those_of_single_logins_until_no_token_can_be_good(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.revoke_logins({"user anna": b"first ", "login 00": b"second"}, 100.0)
        store.revoke_logins({"account corp bob": b"third "}, 100.0 + KEPT_S)
        assert store.revoked_logins() == {
            "user anna": (b"first ", 100.0),
            "login 00": (b"second", 100.0),
            "account corp bob": (b"third ", 100.0 + KEPT_S),
        }
        store.revoke_logins({"user anna": b"again "}, 101.0 + KEPT_S)
        assert store.revoked_logins() == {
            "user anna": (b"again ", 101.0 + KEPT_S),
            "account corp bob": (b"third ", 100.0 + KEPT_S),
        }


@pytest.mark.usefixtures("wrong_day")
def test_codes_and_answers_of_identity_providers_are_remembered_by_it(url: str, key_file: Path) -> None:
    code = Secret(b"123456")
    with closing(Store.open(url, key_file)) as store:
        assert store.take_radius_code("corp", "anna", code, 400.0, 100.0)
        for now in (100.0, 399.0, 400.0 + CLOCKS_DIFFER_S - 1):
            assert not store.take_radius_code("corp", "anna", code, now + 300, now)
        assert store.take_radius_code("corp", "anna", code, 900.0, 400.0 + CLOCKS_DIFFER_S)
        assert store.spend_saml("assertion a", 400.0, 100.0)
        assert store.spend_saml("assertion b", 400.0, 399.0 + KEPT_LONGER_S)
        assert not store.spend_saml("assertion a", 400.0, 399.0 + KEPT_LONGER_S)


def test_nothing_is_forgotten_by_the_upgrade_whatever_its_clock_says(url: str, path: Path, key_file: Path) -> None:
    """Written by the release before, with a clock that was years behind or ahead."""
    path.parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0012")
        for subject, at in (("user anna", 1.0), ("login 00", 1e9 + YEARS_S)):
            connection.execute(text("INSERT INTO revoked_login VALUES (:subject, :at)"), {"subject": subject, "at": at})
        connection.execute(text("INSERT INTO saml_spent VALUES ('assertion a', 5)"))
        connection.execute(text("INSERT INTO api_request VALUES ('signed', 'sender', 5)"))
    engine.dispose()
    with closing(Store.open(url, key_file)) as store:
        marks = store.revoked_logins()
        assert set(marks) == {"user anna", "login 00"} and len({mark for mark, _ in marks.values()}) == 2
        assert all(len(mark) == 6 and at == 0.0 for mark, at in marks.values())
        assert store.keep_clock(0.0, 0.0).seconds == 0.0
        store.revoke_logins({"user bob": b"marked"}, 60.0)
        assert "login 00" in store.revoked_logins()
        assert not store.spend_saml("assertion a", 400.0, 60.0)
        assert store.see_request("signed", "another", 60.0, kept_s=600) is not None
