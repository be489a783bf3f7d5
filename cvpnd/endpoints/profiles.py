"""Client certificates of the gateway's own authority, and profiles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from cvpnd.endpoints.model import CertificateView, ClientKeyView, OperationError
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.endpoints.protection import issue_client_key
from cvpnd.pki.authority import Authority
from cvpnd.pki.files import PkiError
from cvpnd.pki.index import CertificateRecord, certificates, format_serial, parse_serial
from cvpnd.pki.issue import CLIENT_DAYS, IssuedCertificate, issue_client
from cvpnd.pki.revocation import revoke, sign_again_if_due
from cvpnd.profile import ProfileError, render_export, render_profile
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.store import StoredClientKey
from cvpnd.wire.wrap.client_key import ClientKeyMetadata

P = ParamSpec("P")
T = TypeVar("T")


class ProfileOperations(OperationsBase):
    async def list_certificates(self) -> list[CertificateView]:
        return [_certificate_view(record) for record in await self._pki(certificates, await self._authority())]

    async def issue_certificate(self, name: str, days: int) -> IssuedCertificate:
        return await self._pki(issue_client, await self._authority(), name, days)

    async def revoke_certificate(self, name: str | None, serial: str | None) -> CertificateView:
        """On the CRL, and its live sessions ended, when this returns. Of several the newest is answered."""
        async with self._changing:
            records = await self._pki(revoke, await self._authority(), name=name, serial=serial)
            if problems := await self._gateway.reload_trust():
                raise OperationError(
                    "InternalError",
                    f"{records[0].name} is on the CRL, but endpoints go on with the one before until this is mended: "
                    + "; ".join(map(str, problems)),
                )
            return _certificate_view(records[0])

    async def list_client_keys(self, endpoint: str | None = None) -> list[ClientKeyView]:
        """tls-crypt-v2 keys that were handed out, and whether they are accepted now."""
        chosen = {served.id: served for served in self._chosen(endpoint)}
        stored = await self._store(self._stored.client_keys)
        return [_client_key_view(chosen[key.endpoint_id], key) for key in stored if key.endpoint_id in chosen]

    async def profile(
        self, name: str, *, endpoint: str | None, kind: str, issue: bool, serial: str | None = None
    ) -> str:
        """The ``.ovpn`` text. With ``issue`` it holds a new certificate and its key, which is nowhere else; without, it
        refers to the files of somebody who has them. Where the endpoint has tls-crypt-v2 it holds a new client key that
        belongs to that certificate: the new one, the one with that ``serial``, or the newest that we issued."""
        served = self._only_endpoint(endpoint)
        own_keys = served.protection.server_key is not None
        if serial is not None and not own_keys:
            raise OperationError("InvalidParameterCombination", f"{served.settings.name} has no tls_crypt_v2")
        render = partial(render_profile, served.settings, served.trust, name, kind=kind)
        try:
            if issue:
                render(client_key=b"" if own_keys else None)  # what cannot be rendered is not issued
                issued = await self.issue_certificate(name, CLIENT_DAYS)
                client_key = await self._issue_client_key(served, name, issued.serial) if own_keys else None
                return render(certificate=issued.certificate, private_key=issued.private_key, client_key=client_key)
            number = await self._serial(name, serial) if own_keys else None
            render(client_key=None if number is None else b"")
            return render(client_key=None if number is None else await self._issue_client_key(served, name, number))
        except ProfileError as error:
            raise OperationError("InvalidParameterValue", str(error)) from error

    async def export_profile(self, endpoint: str) -> str:
        """What all its clients share: complete once a certificate and its key are appended."""
        served = self._endpoint(endpoint)
        try:
            return await asyncio.to_thread(render_export, served.settings, served.trust)
        except ProfileError as error:
            raise OperationError("InvalidParameterValue", str(error)) from error

    async def _serial(self, name: str, serial: str | None) -> int | None:
        """Of the certificate that a client key is to belong to; None where nobody knows."""
        if serial is not None:
            return await self._pki(parse_serial, serial)
        if self._gateway.config.pki.directory is None:
            return None
        records = await self._pki(certificates, await self._authority(), name)
        return next((record.serial for record in records if record.status == "valid"), None)

    async def _issue_client_key(self, served: ServedEndpoint, name: str, serial: int) -> bytes:
        server_key = served.protection.server_key
        assert server_key is not None  # noqa: S101 - looked at by the caller
        await self._store(self._stored.add_client_key, StoredClientKey(served.id, name, serial, time.time()))
        return issue_client_key(server_key, name, serial)

    async def keep_crl_fresh(self) -> None:
        """Sign our own CRL again long before it expires, which would lock everybody out. The daemon calls it hourly."""
        if self._gateway.config.pki.directory is not None:
            async with self._changing:
                await self._pki(sign_again_if_due, await self._authority())

    async def _pki(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(do, *args, **kwargs)
        except PkiError as error:
            raise OperationError("InvalidParameterValue", str(error)) from error
        except OSError as error:
            raise OperationError("InternalError", str(error)) from error

    async def _authority(self) -> Authority:
        directory = self._gateway.config.pki.directory
        if directory is None:
            raise OperationError(
                "UnsupportedOperation",
                f"this gateway has no certificate authority; name its directory in {self._gateway.config.path}: "
                "[pki] directory",
            )
        return await self._pki(Authority.open, directory)


def _certificate_view(record: CertificateRecord) -> CertificateView:
    return CertificateView(
        name=record.name,
        serial=record.serial_hex,
        not_before=record.not_before.timestamp(),
        not_after=record.not_after.timestamp(),
        status=record.status,
    )


def _client_key_view(served: ServedEndpoint, key: StoredClientKey) -> ClientKeyView:
    status = "unused"
    if served.protection.server_key is not None:
        metadata = ClientKeyMetadata(key.name, key.serial, int(key.created_at))
        refused = served.protection.check_client_key(metadata.serialise())
        status = "valid" if refused is None else str(refused).removeprefix("client_key_").replace("_", "-")
    return ClientKeyView(served.id, key.name, format_serial(key.serial), key.created_at, status)
