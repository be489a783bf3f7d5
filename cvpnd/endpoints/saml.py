"""SAML identity providers by their metadata, which is kept as it was given. Those of the file are shown beside them,
and belong to the file."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from cvpnd.auth.saml.metadata import MetadataError, parse_metadata
from cvpnd.config import SamlProviderConfig
from cvpnd.endpoints.arns import saml_provider_arn
from cvpnd.endpoints.model import OperationError, SamlProviderView
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.store import Store, StoredSamlProvider

_NAME = re.compile(r"[\w._-]{1,128}", re.ASCII)


class SamlOperations(OperationsBase):
    async def list_saml_providers(self) -> list[SamlProviderView]:
        """In order of ARNs. An ARN that both have is the store's, as it was before the file had it."""
        found = {
            saml_provider_arn(each.id): await self._store(_view_of_file, self._stored, each)
            for each in self._gateway.config.saml_providers
        }
        found |= {each.arn: _view(each) for each in await self._store(self._stored.saml_providers)}
        return [found[arn] for arn in sorted(found)]

    async def show_saml_provider(self, arn: str) -> SamlProviderView:
        for view in await self.list_saml_providers():
            if view.arn == arn:
                return view
        raise OperationError("NoSuchEntity", f"there is no SAML provider {arn}")

    async def create_saml_provider(self, name: str, metadata: str) -> SamlProviderView:
        if not _NAME.fullmatch(name):
            raise OperationError("ValidationError", f"{name[:40]!r} cannot be a SAML provider's name")
        valid_until = _check(metadata)
        arn = saml_provider_arn(name)
        async with self._change() as change:
            for view in await self.list_saml_providers():
                if view.arn == arn:
                    where = f" in {self._gateway.config.path}" if view.origin == "file" else ""
                    raise OperationError("EntityAlreadyExists", f"SAML provider {name} exists already{where}")
            new = StoredSamlProvider(arn, metadata, valid_until, time.time())
            await self._store(self._stored.put_saml_provider, new)
            await self._put_in_force(change)
            return _view(new)

    async def update_saml_provider(self, arn: str, metadata: str) -> SamlProviderView:
        valid_until = _check(metadata)
        async with self._change() as change:
            before = await self._own(arn)
            new = StoredSamlProvider(arn, metadata, valid_until, before.created_at)
            await self._store(self._stored.put_saml_provider, new)
            await self._put_in_force(change)
            return _view(new)

    async def delete_saml_provider(self, arn: str) -> None:
        async with self._change() as change:
            await self._own(arn)
            for served in self._gateway.endpoints:
                if any(arn in (m.saml_provider, m.portal_saml_provider) for m in served.settings.authentication):
                    raise OperationError("DeleteConflict", f"{arn} is in use by endpoint {served.settings.name}")
            await self._store(self._stored.delete_saml_provider, arn)
            await self._put_in_force(change)

    async def _own(self, arn: str) -> StoredSamlProvider:
        """One that may be changed."""
        for stored in await self._store(self._stored.saml_providers):
            if stored.arn == arn:
                return stored
        view = await self.show_saml_provider(arn)
        raise OperationError(
            "IncorrectState", f"{view.arn} is declared in {self._gateway.config.path}; change it there, reload"
        )


def _check(metadata: str) -> float | None:
    """Until when it is good."""
    try:
        return parse_metadata(metadata).valid_until
    except MetadataError as error:
        raise OperationError("InvalidInput", f"the metadata document {error}") from None


def _view(stored: StoredSamlProvider) -> SamlProviderView:
    return SamlProviderView(stored.arn, stored.metadata, stored.valid_until, stored.created_at)


def _view_of_file(store: Store, config: SamlProviderConfig) -> SamlProviderView:
    """With the metadata of its file as it is now, or as it was fetched last."""
    text, valid_until = "", None
    if isinstance(config.metadata, Path):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = config.metadata.read_text()
    else:
        text = store.saml_metadata(config.id, config.metadata) or ""
    with contextlib.suppress(MetadataError):
        valid_until = parse_metadata(text, config.idp_entity_id).valid_until
    return SamlProviderView(saml_provider_arn(config.id), text, valid_until, None, "file")
