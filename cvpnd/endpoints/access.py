"""Access keys of the API, and tags."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from cvpnd.endpoints.gateway import Gateway
from cvpnd.endpoints.model import AccessKeyView, OperationError
from cvpnd.endpoints.operations import Change, OperationsBase, check_tags
from cvpnd.store import SeenRequest, StoredAccessKey

Role = Literal["admin", "read-only"]
ROLES: tuple[Role, ...] = get_args(Role)
LOOKED_UP_FOR_S = 5.0
"""How long keys are remembered, if no change makes this gateway look again."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a signature is verified with."""

    key_id: str
    name: str
    role: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Credential({self.key_id})"


using: ContextVar[Credential | None] = ContextVar("using", default=None)
"""The key that the request which is served was signed with."""


class AccessOperations(OperationsBase):
    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._credentials: dict[str, Credential] = {}
        self._credentials_until = float("-inf")
        self._changes = 0

    async def list_access_keys(self) -> list[AccessKeyView]:
        stored = await self._store(self._stored.access_keys)
        return [AccessKeyView(each.id, each.name, each.role, each.created_at) for each in stored]

    async def create_access_key(self, role: str, name: str = "") -> tuple[AccessKeyView, str]:
        """The key and its secret, which is told to nobody again."""
        if role not in ROLES:
            raise OperationError("InvalidParameterValue", f"{role} is no role; choose {' or '.join(ROLES)}")
        key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
        secret = base64.b64encode(secrets.token_bytes(30)).decode()
        new = AccessKeyView(key_id, name, role, time.time())
        async with self._change():
            await self._store(self._stored.add_access_key, _as_stored(new), secret.encode())
        self._look_again()
        return new, secret

    async def delete_access_key(self, key_id: str) -> None:
        async with self._change():
            if not await self._store(self._stored.delete_access_key, key_id):
                raise OperationError("NoSuchEntity.NotFound", f"there is no access key {key_id}")
        self._look_again()

    async def is_good(self, credential: Credential) -> bool:
        """Still: a request may take its time, on its way or until it is its turn."""
        return await self.credential(credential.key_id, time.monotonic()) == credential

    @asynccontextmanager
    async def _change(self, *, following: bool = True) -> AsyncIterator[Change]:
        async with super()._change(following=following) as change:
            if (credential := using.get()) is not None and not await self.is_good(credential):
                raise OperationError("AuthFailure", "The provided access credentials could not be validated")
            yield change

    def _look_again(self) -> None:
        self._credentials_until = float("-inf")
        self._changes += 1

    async def _follow(self) -> None:
        self._look_again()
        await super()._follow()

    async def credential(self, key_id: str, now: float) -> Credential | None:
        """``now`` on a monotonic clock. Unknown ids cost no look into the store."""
        while now >= self._credentials_until:
            changes = self._changes
            secrets_by_id = await self._store(self._stored.access_secrets)
            found = {
                each.id: Credential(each.id, each.name, each.role, secrets_by_id[each.id])
                for each in await self._store(self._stored.access_keys)
                if each.id in secrets_by_id
            }
            if changes == self._changes:  # else a key that is gone may be among them
                self._credentials, self._credentials_until = found, now + LOOKED_UP_FOR_S
        return self._credentials.get(key_id)

    async def see_request(self, signature: str, sender: str, now: float, *, kept_s: float) -> SeenRequest | None:
        """How a change with this signature was seen first; None: just now. ``now``: ``steady_now``."""
        async with self._changing:
            return await self._store(self._stored.see_request, signature, sender, now, kept_s=kept_s)

    # -- tags -----------------------------------------------------------------------------------------------

    async def list_tags(self) -> Mapping[str, Mapping[str, str]]:
        """By resource: endpoint ids and certificate ARNs."""
        return await self._store(self._stored.tags)

    async def set_tags(self, resource: str, tags: Mapping[str, str]) -> None:
        check_tags(tags)
        async with self._change():
            resource = await self._resource(resource)
            there = (await self._store(self._stored.tags)).get(resource, {})
            check_tags({**there, **tags})
            await self._store(self._stored.set_tags, resource, tags)

    async def remove_tags(self, resource: str, keys: Collection[str] | None) -> None:
        """None: all of them. Keys that are not there are no error."""
        async with self._change():
            await self._store(self._stored.remove_tags, await self._resource(resource), keys)

    async def _resource(self, resource: str) -> str:
        """As it is in the store: an endpoint's name is not."""
        if resource.startswith("arn:"):
            if all(each.arn != resource for each in await self._store(self._stored.imported_certificates)):
                raise OperationError("ResourceNotFoundException", f"there is no certificate {resource}")
            return resource
        served, _ = await self._managed(resource)
        return served.id


def _as_stored(view: AccessKeyView) -> StoredAccessKey:
    return StoredAccessKey(view.access_key_id, view.name, view.role, view.created_at)
