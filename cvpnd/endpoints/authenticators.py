"""Authenticator apps of users, of any directory. Whoever's is replaced or removed has to log in again: tokens of
before are worth nothing, as a lost telephone may be behind it."""

from __future__ import annotations

import time

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused, problem_with_user_name
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.totp import new_recovery_codes, new_secret, provisioning_uri, recovery_digest
from cvpnd.endpoints.model import AuthenticatorView, EnrolmentView, OperationError
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.secret import Secret
from cvpnd.store import StoredAuthenticator

ISSUER = "cvpnd"


class AuthenticatorOperations(OperationsBase):
    async def list_authenticators(self) -> list[AuthenticatorView]:
        enrolled = await self._store(self._stored.enrolled_users)
        return [AuthenticatorView(e.directory, e.username, e.recovery_codes, e.created_at) for e in enrolled]

    async def enrol_authenticator(self, directory: str, name: str, issuer: str = ISSUER) -> EnrolmentView:
        """What is answered is kept nowhere else in the clear: show it once. In place of what the user had."""
        account = await self._user(directory, name)
        if not issuer.strip() or not issuer.isprintable() or ":" in issuer:
            raise OperationError("InvalidParameterValue", f"{issuer[:64]!r} is no name of an issuer")
        secret, codes, now = new_secret(), new_recovery_codes(), time.time()
        digests = tuple(recovery_digest(secret, Secret.of_text(code)) for code in codes)
        async with self._change():
            new = StoredAuthenticator(directory, account.name, secret, 0, digests, now, account.person)
            if await self._store(self._stored.enrol, new):
                await self._end_logins(directory, account.name)
        return EnrolmentView(directory, account.name, provisioning_uri(secret, account.name, issuer), tuple(codes))

    async def remove_authenticator(self, directory: str, name: str) -> None:
        """The user cannot log in where a code is asked, until there is another."""
        async with self._change():
            if not await self._store(self._stored.remove_authenticator, directory, name):
                raise OperationError("NoSuchEntity.NotFound", f"{name} of directory {directory} has no authenticator")
            await self._end_logins(directory, name)

    async def _user(self, directory: str, name: str) -> Account:
        users = self._gateway.control.users
        if directory not in users.pending():
            raise OperationError("NoSuchEntity.NotFound", f"there is no directory {directory}")
        if (problem := problem_with_user_name(name)) is not None:
            raise OperationError("InvalidParameterValue", f"the name {problem}")
        account = await users.look_again(directory, name)
        if isinstance(account, Refused):
            raise OperationError("NoSuchEntity.NotFound", f"{name} of directory {directory}: {account.detail}")
        return account

    async def _end_logins(self, directory: str, name: str) -> None:
        control = self._gateway.control
        marks = RevokedLogins.new_marks({RevokedLogins.of_account(directory, name)})
        await self._store(self._stored.revoke_logins, marks, control.clock.now())
        control.revoked_logins.add(marks, control.clock.now())
