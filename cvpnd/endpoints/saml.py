"""SAML identity providers by their metadata, which is kept as it was given. Nothing here reads XML that strangers
wrote: what it says is looked at where a login needs it."""

from __future__ import annotations

import re
import time

from cvpnd.endpoints.imports import ACCOUNT
from cvpnd.endpoints.model import OperationError, SamlProviderView
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.store import StoredSamlProvider

LONGEST_METADATA = 10_000_000
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
        _check(metadata)
        arn = f"arn:aws:iam::{ACCOUNT}:saml-provider/{name}"
        async with self._change():
            if any(view.arn == arn for view in await self.list_saml_providers()):
                raise OperationError("EntityAlreadyExists", f"SAML provider {name} exists already")
            new = StoredSamlProvider(arn, metadata, None, time.time())
            await self._store(self._stored.put_saml_provider, new)
            return _view(new)

    async def update_saml_provider(self, arn: str, metadata: str) -> SamlProviderView:
        _check(metadata)
        async with self._change():
            before = await self.show_saml_provider(arn)
            new = StoredSamlProvider(arn, metadata, None, before.created_at)
            await self._store(self._stored.put_saml_provider, new)
            return _view(new)

    async def delete_saml_provider(self, arn: str) -> None:
        async with self._change():
            await self.show_saml_provider(arn)
            await self._store(self._stored.delete_saml_provider, arn)


def _check(metadata: str) -> None:
    if len(metadata) > LONGEST_METADATA or "EntityDescriptor" not in metadata or "<!DOCTYPE" in metadata:
        raise OperationError("InvalidInput", "this is no SAML metadata document of an identity provider")


def _view(stored: StoredSamlProvider) -> SamlProviderView:
    return SamlProviderView(stored.arn, stored.metadata, stored.valid_until, stored.created_at)
