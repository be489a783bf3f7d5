"""SAML identity providers by their metadata, which is kept as it was given."""

from __future__ import annotations

import re
import time

from cvpnd.auth.saml.metadata import MetadataError, parse_metadata
from cvpnd.endpoints.imports import ACCOUNT
from cvpnd.endpoints.model import OperationError, SamlProviderView
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.store import StoredSamlProvider

_NAME = re.compile(r"[\w._-]{1,128}", re.ASCII)


class SamlOperations(OperationsBase):
    async def list_saml_providers(self) -> list[SamlProviderView]:
        return [_view(each) for each in await self._store(self._stored.saml_providers)]

    async def show_saml_provider(self, arn: str) -> SamlProviderView:
        for view in await self.list_saml_providers():
            if view.arn == arn:
                return view
        raise OperationError("NoSuchEntity", f"there is no SAML provider {arn}")

    async def create_saml_provider(self, name: str, metadata: str) -> SamlProviderView:
        if not _NAME.fullmatch(name):
            raise OperationError("ValidationError", f"{name[:40]!r} cannot be a SAML provider's name")
        valid_until = _check(metadata)
        arn = f"arn:aws:iam::{ACCOUNT}:saml-provider/{name}"
        async with self._change() as change:
            if any(view.arn == arn for view in await self.list_saml_providers()):
                raise OperationError("EntityAlreadyExists", f"SAML provider {name} exists already")
            new = StoredSamlProvider(arn, metadata, valid_until, time.time())
            await self._store(self._stored.put_saml_provider, new)
            await self._put_in_force(change)
            return _view(new)

    async def update_saml_provider(self, arn: str, metadata: str) -> SamlProviderView:
        valid_until = _check(metadata)
        async with self._change() as change:
            before = await self.show_saml_provider(arn)
            new = StoredSamlProvider(arn, metadata, valid_until, before.created_at)
            await self._store(self._stored.put_saml_provider, new)
            await self._put_in_force(change)
            return _view(new)

    async def delete_saml_provider(self, arn: str) -> None:
        async with self._change() as change:
            await self.show_saml_provider(arn)
            for served in self._gateway.endpoints:
                if any(arn in (m.saml_provider, m.portal_saml_provider) for m in served.settings.authentication):
                    raise OperationError("DeleteConflict", f"{arn} is in use by endpoint {served.settings.name}")
            await self._store(self._stored.delete_saml_provider, arn)
            await self._put_in_force(change)


def _check(metadata: str) -> float | None:
    """Until when it is good."""
    try:
        return parse_metadata(metadata).valid_until
    except MetadataError as error:
        raise OperationError("InvalidInput", f"the metadata document {error}") from None


def _view(stored: StoredSamlProvider) -> SamlProviderView:
    return SamlProviderView(stored.arn, stored.metadata, stored.valid_until, stored.created_at)
