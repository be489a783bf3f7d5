"""The SAML identity providers that logins know: those of the file and, where an endpoint sends people to one, those of
the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cvpnd.auth.saml.keeper import SamlKeeper, keep_fresh, prepare
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.config import Config
from cvpnd.reasons import End
from cvpnd.server.control import ControlPlane
from cvpnd.store import Store, StoreError


class IdentityProviders:
    """On the event loop's thread, by whoever may change the gateway."""

    def __init__(self, control: ControlPlane, store: Store) -> None:
        self.keeper = SamlKeeper(store, unavailable=StoreError)
        self._control = control
        self._store = store

    async def read(self, config: Config, *, again: bool, read: bool) -> None:
        """``again``: also those of the file, and ``read``: their files too that were read before. Raises
        ``StoreError``, ``DirectoryError``."""
        methods = [endpoint.user_method for endpoint in config.endpoints]
        federated = any(method is not None and method.is_federated for method in methods)
        if not federated and not config.saml_providers and self._control.saml is None:
            return
        if again:
            await asyncio.to_thread(self.keeper.read, config.saml_providers, again=read)
        stored = await asyncio.to_thread(self._store.saml_providers)
        await asyncio.to_thread(self.keeper.read_stored, {each.arn: each.metadata for each in stored})
        if self._control.saml is None:
            await asyncio.to_thread(prepare)
            key = await asyncio.to_thread(self._store.gateway_secret, "saml-state")
            self._control.saml = SamlLogins(self._store, key, self._control.clock.now, unavailable=StoreError)
        self._follow(self.keeper.providers())

    async def keep_metadata(self) -> None:
        """Runs until cancelled: reads the metadata of identity providers again when it is time."""
        await keep_fresh(self.keeper, self._follow)

    def _follow(self, found: Mapping[str, SamlProvider]) -> None:
        """Whom an identity provider let in goes when another one takes its place under its id."""
        saml = self._control.saml
        if saml is None:
            return
        saml.replace(found)
        for connection in self._control.table:
            if connection.established and connection.vouched_by is not None and saml.replaced(connection.vouched_by):
                self._control.halt(connection, End.IDENTITY_PROVIDER_CHANGED, "Log in again")
