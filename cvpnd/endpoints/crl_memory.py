"""Which revocation lists were in force of the file's endpoints, through a restart: the store knows.

Those of managed endpoints are in the store themselves. Gateways on one store that name the same file for the same
endpoint share what is known of it: the latest that any of them had in force."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Mapping

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.crl import CrlEdition, CrlSource
from cvpnd.config import EndpointConfig
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.steady_clock import SteadyClock
from cvpnd.store import Store, StoredCrlEdition, StoreError

log = logging.getLogger(__name__)

SAID_AGAIN_S = 86_400.0
"""That a file is still in use."""
TRIED_AGAIN_S = 30.0

_Editions = Mapping[CrlSource, CrlEdition]


class CrlMemory:
    """Synchronous; call it from a thread, one at a time."""

    def __init__(self, store: Store, clock: SteadyClock) -> None:
        self._store = store
        self._clock = clock
        self._said: dict[str, tuple[CertificateTrust, float]] = {}
        """By endpoint id, of which trust the store knows, and until when it need not be told again."""
        self._not_before = 0.0

    def known(self, endpoint: EndpointConfig) -> _Editions:
        """Raises ``StoreError``."""
        method = endpoint.certificate_method
        if method is None or method.crl is None:
            return {}
        return {CrlSource(e.source): _edition(e) for e in self._store.crl_editions(endpoint.id, str(method.crl))}

    def keep(self, endpoints: Iterable[ServedEndpoint]) -> None:
        """What is in force of them now, which are all of the file's. A store that cannot take it is asked again."""
        now, told = self._clock.now(), self._said
        self._said = {}
        for served in endpoints:
            trust, until = served.trust, 0.0
            if served.id in told and told[served.id][0] is trust:
                until = told[served.id][1]
            if now >= max(until, self._not_before):
                try:
                    self._write(served.settings, trust.lists)
                    until = now + SAID_AGAIN_S
                except StoreError as error:
                    self._not_before = now + TRIED_AGAIN_S
                    if self._store.outage is None:  # else that is said already
                        log.warning("which revocation lists are in force cannot be kept: %s", error)
            self._said[served.id] = (trust, until)

    def _write(self, endpoint: EndpointConfig, lists: _Editions) -> None:
        method = endpoint.certificate_method
        if method is None or method.crl is None:
            return
        transaction = self._store.begin()
        try:
            with transaction.joined():
                latest = dict(lists)
                for source, edition in self.known(endpoint).items():
                    if source in lists and lists[source].older_than(edition):  # another gateway's file is newer
                        latest[source] = edition
                rows = [
                    StoredCrlEdition(source, each.issuer_text, each.this_update.timestamp(), each.number)
                    for source, each in latest.items()
                ]
                self._store.put_crl_editions(endpoint.id, str(method.crl), rows, self._clock.now())
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()


def _edition(stored: StoredCrlEdition) -> CrlEdition:
    this_update = datetime.datetime.fromtimestamp(stored.this_update, datetime.UTC)
    return CrlEdition(stored.issuer, this_update, stored.number)
