"""Metadata from files and URLs: read again, kept when it cannot be had, and never worse than what was there."""

from __future__ import annotations

import contextlib
import http.server
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from helpers import saml_idp

from cvpnd.auth.directory import DirectoryError
from cvpnd.auth.saml.keeper import AGAIN_AFTER_FAILURE_S, SamlKeeper
from cvpnd.config import SamlProviderConfig
from cvpnd.store import Store, StoreError

NEW = "https://idp.example.com/new"


class Site(http.server.BaseHTTPRequestHandler):
    body = b""
    status = 200
    pause_s = 0.0
    raw = b""
    """All that is said, in place of HTTP."""
    again = b""
    """What is said after that, for ever."""

    def do_GET(self) -> None:
        if type(self).raw:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(type(self).raw)
                while type(self).again:
                    time.sleep(0.01)
                    self.wfile.write(type(self).again)
            return
        self.send_response(type(self).status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        body, at_once = type(self).body, 200 if self.pause_s else 1 << 20
        with contextlib.suppress(ConnectionError):  # who has waited long enough
            for part in range(0, len(body), at_once):
                time.sleep(self.pause_s)
                self.wfile.write(body[part : part + at_once])

    do_CONNECT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Site.body, Site.status, Site.pause_s = saml_idp.metadata().encode(), 200, 0.0
    Site.raw = Site.again = b""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/metadata"
    Site.again = b""
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/state.db")
    yield opened
    opened.close()


class Clock:
    now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


def config(metadata: object, **more: object) -> SamlProviderConfig:
    return SamlProviderConfig.model_validate(
        {"id": "corp", "metadata": str(metadata), **more}, context={"directory": Path("/")}
    )


def entity_ids(keeper: SamlKeeper) -> dict[str, str]:
    return {name: provider.idp.entity_id for name, provider in keeper.providers().items()}


def test_metadata_of_a_url_is_refreshed_and_outlives_its_site(store, url, caplog):
    clock = Clock()
    keeper = SamlKeeper(store, clock)
    keeper.read([config(url)])
    assert entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}
    assert not keeper.refresh_due()
    Site.body = saml_idp.metadata(entity_id=NEW).encode()
    clock.now += 3600
    assert keeper.refresh_due() and entity_ids(keeper) == {"corp": NEW}
    for body, status in ((b"<html/>", 200), (b"", 500), (saml_idp.metadata().encode(), 302)):
        Site.body, Site.status = body, status
        clock.now += 3600
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert keeper.refresh_due() and entity_ids(keeper) == {"corp": NEW}
        assert "the latest good one stays" in caplog.text
        assert keeper.known()["corp"] == keeper.providers()["corp"]
        assert not keeper.refresh_due()
        clock.now += AGAIN_AFTER_FAILURE_S
    assert keeper.failures == {"corp": 3}
    restarted = SamlKeeper(store, clock)
    restarted.read([config(url)])
    assert entity_ids(restarted) == {"corp": NEW}, "what was fetched before the restart"
    elsewhere = SamlKeeper(store, clock)
    elsewhere.read([config(url + "/other")])
    assert elsewhere.known() == {"corp": None} and entity_ids(elsewhere) == {}, (
        "and nobody is let in by the metadata of another place"
    )


def test_a_clock_that_is_put_back_does_not_put_off_the_next_reading(store, url):
    clock = Clock()
    keeper = SamlKeeper(store, clock)
    keeper.read([config(url)])
    Site.body = saml_idp.metadata(entity_id=NEW).encode()
    clock.now -= 365 * 86_400
    assert keeper.refresh_due() and entity_ids(keeper) == {"corp": NEW}
    assert not keeper.refresh_due()


NO_HTTP = b"SSH-2.0-OpenSSH_9.2\r\n"
CUT_OFF = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n<a>"


@pytest.mark.parametrize("raw", [NO_HTTP, CUT_OFF], ids=["no-http", "cut-off"])
def test_a_site_that_answers_otherwise_than_http_is_named_and_what_was_known_stays(store, url, raw, caplog):
    clock = Clock()
    keeper = SamlKeeper(store, clock)
    keeper.read([config(url)])
    Site.raw = raw
    clock.now += 3600
    with caplog.at_level(logging.WARNING):
        assert keeper.refresh_due()
    assert url in caplog.text and "the latest good one stays" in caplog.text
    assert keeper.failures == {"corp": 1} and entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}
    started = SamlKeeper(store, clock)
    started.read([config(url)])
    assert entity_ids(started) == {"corp": saml_idp.ENTITY_ID}, "it was kept"


HEADER, PROVISIONAL = b"HTTP/1.1 200 OK\r\nServer: ", b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(("raw", "again"), [(HEADER, b"a"), (PROVISIONAL, PROVISIONAL)], ids=["a-header", "a-promise"])
def test_a_site_that_never_comes_to_its_body_keeps_the_metadata_of_no_other_from_being_read(
    store, url, raw, again, monkeypatch
):
    """And no gateway from starting."""
    monkeypatch.setattr("cvpnd.auth.saml.fetch.FETCHED_IN_S", 0.3)
    Site.raw, Site.again = raw, again
    keeper = SamlKeeper(store, Clock())
    reading = threading.Thread(target=keeper.read, args=([config(url)],), daemon=True)
    reading.start()
    reading.join(5)
    assert not reading.is_alive() and keeper.failures == {"corp": 1} and keeper.known() == {"corp": None}


def test_a_proxy_that_never_comes_to_an_end_keeps_no_gateway_from_starting(store, url, monkeypatch):
    monkeypatch.setattr("cvpnd.auth.saml.fetch.FETCHED_IN_S", 0.3)
    monkeypatch.setenv("https_proxy", url)
    monkeypatch.setenv("no_proxy", "")
    Site.raw, Site.again = HEADER, b"a"
    keeper = SamlKeeper(store, Clock())
    reading = threading.Thread(target=keeper.read, args=([config(NEW)],), daemon=True)
    reading.start()
    reading.join(5)
    assert not reading.is_alive() and keeper.failures == {"corp": 1}


@pytest.mark.parametrize("how", ["a byte now and then", "more than there may be", "no answer"])
def test_a_site_that_is_slow_large_or_gone_is_noticed_and_what_was_known_stays(store, url, how, monkeypatch, caplog):
    clock = Clock()
    keeper = SamlKeeper(store, clock)
    keeper.read([config(url)])
    monkeypatch.setattr("cvpnd.auth.saml.fetch.FETCHED_IN_S", 0.2)
    if how == "a byte now and then":
        Site.pause_s, says = 0.05, "timed out|not complete within 0.2 s"  # as the last byte of time falls
    elif how == "more than there may be":
        monkeypatch.setattr("cvpnd.auth.saml.fetch.FETCHED_IN_S", 20)
        Site.body, says = b"<a>" + bytes(10_000_001), "is larger than 10000000 bytes"
    else:
        Site.pause_s, says = 0.6, "timed out"
    clock.now += 3600
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING):
        keeper.refresh_due()
    assert time.monotonic() - begun < 5
    assert re.search(says, caplog.text) and "the latest good one stays" in caplog.text
    assert keeper.failures == {"corp": 1} and entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}


def test_metadata_that_has_expired_is_not_taken_and_what_was_good_ends_by_itself(store, url):
    clock = Clock()
    keeper = SamlKeeper(store, clock)
    until = f'validUntil="{saml_idp.moment(clock.now + 5000)}"'
    Site.body = saml_idp.metadata(attributes=until).encode()
    keeper.read([config(url)])
    (provider,) = keeper.providers().values()
    assert not provider.idp.expired(clock.now) and provider.idp.expired(clock.now + 5000)
    past = f'validUntil="{saml_idp.moment(clock.now - 5)}"'
    Site.body = saml_idp.metadata(entity_id=NEW, attributes=past).encode()
    clock.now += 3600
    keeper.refresh_due()
    assert entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}


def test_a_file_that_is_wrong_is_said_at_once_and_one_that_goes_wrong_changes_nothing(store, tmp_path):
    clock, path = Clock(), tmp_path / "idp.xml"
    keeper = SamlKeeper(store, clock)
    path.write_text("<a/>")
    with pytest.raises(DirectoryError, match=r"saml_provider corp: .*idp.xml describes no SAML"):
        keeper.read([config(path)])
    path.write_text(saml_idp.metadata())
    keeper.read([config(path)])
    path.unlink()
    clock.now += 3600
    assert keeper.refresh_due() and entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}
    with pytest.raises(DirectoryError, match="cannot be read: No such file"):
        keeper.read([config(path)])
    assert entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}


def test_what_was_read_of_a_file_stays_where_it_is_not_to_be_read_again(store, tmp_path):
    path = tmp_path / "metadata.xml"
    path.write_text(saml_idp.metadata())
    keeper = SamlKeeper(store, Clock())
    keeper.read([config(path)], again=False)
    path.write_text("<html/>")
    keeper.read([config(path)], again=False)
    assert entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}
    for other in (config(path, clock_skew_s=1), config(path)):
        with pytest.raises(DirectoryError, match=str(path)):
            keeper.read([other], again=other == config(path))
    assert entity_ids(keeper) == {"corp": saml_idp.ENTITY_ID}


def test_what_was_read_of_files_that_are_gone_is_gone_back_to_once_another_configuration_is_not_to_be(store, tmp_path):
    path, key = tmp_path / "metadata.xml", tmp_path / "key.pem"
    path.write_text(saml_idp.metadata())
    key.write_text(saml_idp.key("gateway").private)
    settled, keeper = config(path, signing_key=str(key)), SamlKeeper(store, Clock())
    keeper.read([settled], again=False)
    keeper.settle()
    before = keeper.providers()
    for refused in ([], [config(path, clock_skew_s=1)], []):  # the last while it could not be gone back
        keeper.read(refused)
    path.unlink(), key.unlink()
    keeper.read([settled], again=False)
    assert keeper.providers() == before
    keeper.read([])
    keeper.settle()
    with pytest.raises(DirectoryError, match=str(key)):
        keeper.read([settled], again=False)


def test_settings_reach_the_provider_and_those_of_the_store_have_the_usual_ones(store, tmp_path):
    path, key = tmp_path / "idp.xml", tmp_path / "key.pem"
    path.write_text(saml_idp.metadata())
    key.write_text(saml_idp.key("gateway").private)
    keeper = SamlKeeper(store, Clock())
    arn = "arn:aws:iam::123456789012:saml-provider/corp"
    settings = {"entity_id": "urn:x", "clock_skew_s": 7, "login_time_s": 60, "signing_key": str(key)}
    keeper.read([config(path, **settings)])
    keeper.read_stored({arn: saml_idp.metadata(entity_id=NEW), f"{arn}2": "<a/>"})
    ours, theirs = keeper.providers()["corp"], keeper.providers()[arn]
    assert (ours.entity_id, ours.skew_s, ours.login_time_s) == ("urn:x", 7, 60.0) and ours.signing_key is not None
    assert (theirs.entity_id, theirs.signing_key) == ("urn:amazon:webservices:clientvpn", None)
    assert set(keeper.providers()) == {"corp", arn}
    keeper.read([config(path, **settings | {"clock_skew_s": 9})])
    keeper.read_stored({})
    assert {name: provider.skew_s for name, provider in keeper.providers().items()} == {"corp": 9}
    key.write_text(saml_idp.key("weak", 1024).private)
    with pytest.raises(DirectoryError, match=r"signing_key .* is no RSA key"):
        keeper.read([config(path, **settings)])


def test_a_new_signing_key_counts_beside_metadata_of_a_url_that_stays(store, url, tmp_path):
    path = tmp_path / "key.pem"
    keeper = SamlKeeper(store, Clock())
    for name in ("gateway", "another"):
        path.write_text(saml_idp.key(name).private)
        keeper.read([config(url, signing_key=str(path))])
        key = keeper.providers()["corp"].signing_key
        assert key is not None
        assert key.private_numbers() == load_pem_private_key(path.read_bytes(), None).private_numbers()


def test_keys_that_are_withdrawn_are_so_while_nothing_can_be_kept(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that failed for a moment let the old keys count until the metadata was due again, an hour later, and
    those of a file beside it as well."""
    (tmp_path / "beside.xml").write_text(saml_idp.metadata())
    beside = SamlProviderConfig.model_validate(
        {"id": "beside", "metadata": str(tmp_path / "beside.xml")}, context={"directory": Path("/")}
    )
    clock = Clock()
    keeper = SamlKeeper(store, clock, unavailable=StoreError)
    keeper.read([beside, config(url)])
    (tmp_path / "beside.xml").write_text(saml_idp.metadata(entity_id=NEW))
    Site.body = saml_idp.metadata(entity_id=NEW).encode()
    clock.now += 3601
    keep, down = store.keep_saml_metadata, True

    def fails_for_a_moment(*row: object) -> None:
        if down:
            raise StoreError("database or disk is full")
        keep(*row)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "keep_saml_metadata", fails_for_a_moment)
    assert keeper.refresh_due()
    assert entity_ids(keeper) == {"beside": NEW, "corp": NEW}
    assert not keeper.refresh_due()
    down = False
    clock.now += AGAIN_AFTER_FAILURE_S
    assert keeper.refresh_due()
    restarted = SamlKeeper(store, clock, unavailable=StoreError)
    Site.status = 500
    restarted.read([config(url)])
    assert entity_ids(restarted) == {"corp": NEW}, "kept at last"
