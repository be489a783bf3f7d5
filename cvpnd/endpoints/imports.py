"""What managed endpoints are given as PEM: imported certificates with their keys, and revocation lists."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cvpnd.auth.crl import parse_crls, read_crl
from cvpnd.auth.crl_scope import UNREADABLE
from cvpnd.auth.files import ServerKey
from cvpnd.auth.names import canonical_name
from cvpnd.endpoints.arns import ACCOUNT, LOCAL_REGION
from cvpnd.endpoints.managed import client_authorities
from cvpnd.endpoints.model import ImportedCertificateView, OperationError
from cvpnd.endpoints.operations import OperationsBase, check_tags
from cvpnd.store import StoredCertificate, StoredEndpoint


class ImportOperations(OperationsBase):
    async def list_imported_certificates(self) -> list[ImportedCertificateView]:
        endpoints = await self._store(self._stored.managed_endpoints)
        tags = await self._store(self._stored.tags)
        return [
            _view(each, endpoints, tags.get(each.arn, {}))
            for each in await self._store(self._stored.imported_certificates)
        ]

    async def show_imported_certificate(self, arn: str) -> ImportedCertificateView:
        for view in await self.list_imported_certificates():
            if view.arn == arn:
                return view
        raise OperationError("ResourceNotFoundException", f"there is no certificate {arn}")

    async def import_certificate(
        self,
        certificate: bytes,
        private_key: bytes,
        chain: bytes = b"",
        *,
        arn: str | None = None,
        region: str = LOCAL_REGION,
        tags: Mapping[str, str] | None = None,
    ) -> ImportedCertificateView:
        """PEM all three. With ``arn`` in place of the one that has it, which endpoints then show at once."""
        check_tags(tags or {})
        checked = await asyncio.to_thread(_check_certificate, certificate, private_key, chain)
        async with self._change() as change:
            now = time.time()
            if arn is None:
                new = replace(
                    checked,
                    arn=f"arn:aws:acm:{region}:{ACCOUNT}:certificate/{uuid.uuid4()}",
                    created_at=now,
                    imported_at=now,
                )
            else:
                before = await self.show_imported_certificate(arn)
                new = replace(checked, arn=arn, created_at=before.created_at, imported_at=now)
                if before.in_use_by and client_authorities(_stored(before)) and not client_authorities(new):
                    raise OperationError(
                        "ValidationException", f"{arn} is whom endpoints trust, and the new one has no authority in it"
                    )
            await self._store(self._stored.put_certificate, new, _plain_key(private_key))
            if tags:
                await self._store(self._stored.set_tags, new.arn, tags)
            view = await self.show_imported_certificate(new.arn)
            if view.in_use_by:
                await self._put_in_force(change)
            return view

    async def delete_imported_certificate(self, arn: str) -> None:
        async with self._change():
            view = await self.show_imported_certificate(arn)
            if view.in_use_by:
                raise OperationError("ResourceInUseException", f"{arn} is in use by {', '.join(view.in_use_by)}")
            await self._store(self._stored.delete_certificate, arn)

    # -- revocation lists -----------------------------------------------------------------------------------

    async def import_crl(self, endpoint: str, pem: str, *, older: bool = False) -> None:
        """Sessions of whoever it revokes have ended when this returns. ``older``: it may go back behind the one that is
        in force."""
        async with self._change() as change:
            _, stored = await self._managed(endpoint)
            if not stored.client_certificate:
                raise OperationError("InvalidParameterValue", f"endpoint {stored.name} asks clients for no certificate")
            certificates = {each.arn: each for each in await self._store(self._stored.imported_certificates)}
            authorities = client_authorities(certificates[stored.client_certificate])
            before = None if older else stored.crl
            entries = await asyncio.to_thread(_check_crl, pem, authorities, before)
            quota = self._gateway.config.quotas.crl_entries
            if entries > quota:
                raise OperationError(
                    "ClientVpnCertificateRevocationListLimitExceeded",
                    f"the list has {entries} entries; more than quotas.crl_entries in {self._gateway.config.path}",
                )
            await self._store(self._stored.set_crl, stored.id, pem, time.time())
            await self._put_in_force(change)

    async def export_crl(self, endpoint: str) -> str | None:
        """None if there never was one."""
        _, stored = await self._managed(endpoint)
        return stored.crl


def _check_certificate(certificate: bytes, private_key: bytes, chain: bytes) -> StoredCertificate:
    """Raises ``OperationError``. The key is looked at, and not kept."""
    own = _certificates(certificate, "certificate")
    if len(own) != 1:
        raise OperationError("ValidationException", "certificate: give one certificate, and the others as its chain")
    rest = _certificates(chain, "certificate chain") if chain.strip() else []
    try:
        key = load_pem_private_key(private_key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise OperationError("ValidationException", "private key: is no PEM private key without a passphrase") from None
    if not isinstance(key, ServerKey):
        raise OperationError("ValidationException", "private key: use ECDSA, RSA or Ed25519")
    if key.public_key() != own[0].public_key():
        raise OperationError("ValidationException", "private key: is not the key of the certificate")
    issuer = own[0].issuer
    if rest and issuer != own[0].subject and all(each.subject != issuer for each in rest):
        raise OperationError("ValidationException", "certificate chain: the certificate's issuer is not in it")
    return StoredCertificate(arn="", certificate=_pem(own), chain=_pem(rest), created_at=0, imported_at=0)


def _certificates(data: bytes, what: str) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise OperationError("ValidationException", f"{what}: is no complete PEM certificate") from None
    try:
        for each in certificates:
            canonical_name(each.subject), canonical_name(each.issuer), each.public_key()
    except UNREADABLE:
        raise OperationError("ValidationException", f"{what}: has a name or a key of an unknown kind") from None
    return certificates


def _pem(certificates: list[x509.Certificate]) -> str:
    """Without the text around them, as easy-rsa writes it."""
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)


def _plain_key(private_key: bytes) -> bytes:
    key = load_pem_private_key(private_key, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _check_crl(pem: str, authorities: str, before: str | None) -> int:
    """How many entries it has. ``before``: what it may not go back behind. Raises ``OperationError``."""
    bundle = x509.load_pem_x509_certificates(authorities.encode())
    try:
        data = pem.encode("ascii")
        found = read_crl(data, bundle)
        entries = sum(len(each) for each in parse_crls(data))
    except UNREADABLE:
        raise OperationError("InvalidParameterValue", "is not a complete certificate revocation list in PEM") from None
    if found.problem is not None:
        raise OperationError("InvalidParameterValue", found.problem)
    if before is not None:
        problem = found.goes_back_from(read_crl(before.encode(), bundle).editions())
        if problem is not None:
            raise OperationError(
                "InvalidParameterValue", f"crl-goes-back: {problem}; if that is meant: cvpnctl crl import --older"
            )
    return entries


def _stored(view: ImportedCertificateView) -> StoredCertificate:
    return StoredCertificate(view.arn, view.certificate, view.chain, view.created_at, view.imported_at)


def _view(
    stored: StoredCertificate, endpoints: list[StoredEndpoint], tags: Mapping[str, str]
) -> ImportedCertificateView:
    users = tuple(e.id for e in endpoints if stored.arn in (e.server_certificate, e.client_certificate))
    return ImportedCertificateView(
        stored.arn, stored.certificate, stored.chain, stored.created_at, stored.imported_at, users, tags
    )
