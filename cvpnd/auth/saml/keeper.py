"""Where the metadata of identity providers comes from: a file or a URL that the configuration names, or the store.

It is read again at its interval, and sooner after a failure. What cannot be read, or is not good, changes nothing: the
latest good metadata stays until it says itself that it is over, also that of a URL over a restart of the daemon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cvpnd.auth.directory import DirectoryError
from cvpnd.auth.saml.fetch import fetch
from cvpnd.auth.saml.metadata import MIN_RSA_BITS, IdpMetadata, MetadataError, parse_metadata
from cvpnd.auth.saml.provider import SamlProvider, program_is_there
from cvpnd.config import SamlProviderConfig

log = logging.getLogger(__name__)

AGAIN_AFTER_FAILURE_S = 60.0


class Cache(Protocol):
    """What was fetched last (``store``)."""

    def saml_metadata(self, provider: str, url: str) -> str | None: ...
    def keep_saml_metadata(self, provider: str, url: str, metadata: str, now: float) -> None: ...


@dataclass(slots=True)
class _Source:
    config: SamlProviderConfig
    signing_key: RSAPrivateKey | None
    provider: SamlProvider | None = None
    again_at: float = 0.0


class SamlKeeper:
    """On the event loop's thread, but for what it says that is for others."""

    def __init__(
        self, cache: Cache, clock: Callable[[], float] = time.time, unavailable: type[Exception] = OSError
    ) -> None:
        """``unavailable``: what ``cache`` raises while it cannot be asked."""
        self._cache = cache
        self._clock = clock
        self._unavailable = unavailable
        self._sources: dict[str, _Source] = {}
        self._settled: dict[str, _Source] = {}
        """Those of the latest configuration that came in force."""
        self._texts: dict[str, str] = {}
        self._stored: dict[str, SamlProvider] = {}
        self.failures: Counter[str] = Counter()
        """How often metadata could not be read, by id."""

    def known(self) -> dict[str, SamlProvider | None]:
        """By id or ARN; None: nothing is known of it."""
        ours = {name: source.provider for name, source in self._sources.items()}
        return {**{arn: self._stored.get(arn) for arn in self._texts}, **ours}

    def providers(self) -> dict[str, SamlProvider]:
        """By id or ARN: those whose metadata is there."""
        ours = {name: source.provider for name, source in self._sources.items() if source.provider is not None}
        return {**self._stored, **ours}

    def read(self, configs: Iterable[SamlProviderConfig], *, again: bool = True) -> None:
        """Files at once, and URLs that nothing is known of; from a thread. Not ``again``: what was read before, now or
        for what is ``settled``, stays, whatever has become of its files. Raises ``DirectoryError``: a file is wrong. A
        URL that does not answer is no mistake of the operator's, who may start the gateway all the same."""
        sources = {}
        for config in configs:
            before = self._known_of(config)
            if before is not None and not again:
                sources[config.id] = before
                continue
            source = sources[config.id] = _Source(config, _signing_key(config))
            if before is not None and not isinstance(config.metadata, Path):
                source.provider = before.provider and replace(before.provider, signing_key=source.signing_key)
            if source.provider is None:
                self._refresh(source, strict=isinstance(config.metadata, Path))
        self._sources = sources
        self.failures = Counter({name: count for name, count in self.failures.items() if name in sources})

    def settle(self) -> None:
        """What was read last is in force, and all that goes with it: should the next change fail, back to this."""
        self._settled = self._sources

    def _known_of(self, config: SamlProviderConfig) -> _Source | None:
        both = self._settled.get(config.id), self._sources.get(config.id)  # the former is refreshed when it is due
        return next((each for each in both if each is not None and each.config == config), None)

    def read_stored(self, stored: Mapping[str, str]) -> None:
        """By ARN; from a thread."""
        if stored == self._texts:
            return
        found = {}
        for arn, text in stored.items():
            try:
                found[arn] = SamlProvider(arn, parse_metadata(text))
            except MetadataError as error:
                log.warning("SAML provider %s lets nobody in: its metadata %s", arn, error)
        self._texts, self._stored = dict(stored), found

    def refresh_due(self) -> bool:
        """Read again what is due; from a thread. Whether ``providers`` may be others now."""
        now = self._clock()  # it may have been put back: then what was to come in an hour would come in years
        due = [each for each in self._sources.values() if not now < each.again_at <= now + each.config.refresh_s]
        for source in due:
            self._refresh(source)
        return bool(due)

    def _refresh(self, source: _Source, *, strict: bool = False) -> None:
        config, now = source.config, self._clock()
        source.again_at = now + config.refresh_s
        try:
            idp = parse_metadata(self._text(source), config.idp_entity_id)
            if idp.expired(now):
                raise MetadataError("has expired (validUntil)")
        except (MetadataError, OSError, ValueError) as error:
            if strict:
                raise DirectoryError(f"saml_provider {config.id}: {config.metadata} {_words(error)}") from None
            self.failures[config.id] += 1
            source.again_at = now + min(AGAIN_AFTER_FAILURE_S, config.refresh_s)
            if source.provider is None and (last := self._last(config)) is not None:
                source.provider = _provider(source, last)
            what = "the latest good one stays" if source.provider is not None else "nobody can log in there"
            log.warning("SAML provider %s: the metadata of %s %s; %s", config.id, config.metadata, _words(error), what)
            return
        if idp.wants_signed_requests and source.signing_key is None:
            log.warning("SAML provider %s: %s wants signed requests; name a signing_key", config.id, idp.entity_id)
        source.provider = _provider(source, idp)

    def _text(self, source: _Source) -> bytes:
        config = source.config
        if isinstance(config.metadata, Path):
            return config.metadata.read_bytes()
        text = fetch(config.metadata, config.metadata_ca)
        parse_metadata(text, config.idp_entity_id)  # what is not good is not kept
        now = self._clock()
        try:
            self._cache.keep_saml_metadata(config.id, config.metadata, text.decode(), now)
        except self._unavailable as error:  # keys that are withdrawn in it are so all the same
            log.warning("SAML provider %s: its metadata is not kept for the next start: %s", config.id, error)
            source.again_at = now + min(AGAIN_AFTER_FAILURE_S, config.refresh_s)
        return text

    def _last(self, config: SamlProviderConfig) -> IdpMetadata | None:
        if isinstance(config.metadata, Path):
            return None
        try:
            found = self._cache.saml_metadata(config.id, config.metadata)
            return None if found is None else parse_metadata(found, config.idp_entity_id)
        except (MetadataError, self._unavailable):
            return None


async def keep_fresh(keeper: SamlKeeper, changed: Callable[[Mapping[str, SamlProvider]], None]) -> NoReturn:
    """Runs until cancelled."""
    while True:
        await asyncio.sleep(1)
        if await asyncio.to_thread(keeper.refresh_due):
            changed(keeper.providers())


def _provider(source: _Source, idp: IdpMetadata) -> SamlProvider:
    config = source.config
    made = SamlProvider(
        config.id, idp, config.entity_id, source.signing_key, config.clock_skew_s, float(config.login_time_s)
    )
    return made if source.provider is None else replace(source.provider, idp=idp)


def _signing_key(config: SamlProviderConfig) -> RSAPrivateKey | None:
    if config.signing_key is None:
        return None
    at = f"saml_provider {config.id}: signing_key {config.signing_key}"
    try:
        key = load_pem_private_key(config.signing_key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise DirectoryError(f"{at} cannot be read: {_words(error)}") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_RSA_BITS:
        raise DirectoryError(f"{at} is no RSA key of at least {MIN_RSA_BITS} bits; make one with openssl genrsa 2048")
    return key


def _words(error: Exception) -> str:
    return f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def prepare() -> None:
    """Load pysaml2 now, in this thread, and not within somebody's login. Raises ``DirectoryError``."""
    if not program_is_there():
        raise DirectoryError("logins by SAML need the program xmlsec1, which is not there; apt-get install xmlsec1")
    import cvpnd.auth.saml.opinion
    import cvpnd.auth.saml.request  # noqa: F401
