"""What the REST skin needs of the service layer (``endpoints.service.Operations``), as a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cvpnd.endpoints.model import (
    CertificateView,
    ClientKeyView,
    ConnectionView,
    EndpointView,
    Explanation,
    RouteView,
    RuleView,
)


class IssuedCertificate(Protocol):
    """A certificate and its key, both PEM. The key exists nowhere else."""

    @property
    def certificate(self) -> bytes: ...
    @property
    def private_key(self) -> bytes: ...


class Operations(Protocol):
    """All raise ``OperationError`` for a refusal. ``endpoint`` is a name or an id."""

    async def list_endpoints(self) -> Sequence[EndpointView]: ...

    async def list_connections(self, endpoint: str | None = None) -> Sequence[ConnectionView]: ...

    async def terminate_connections(
        self, *, connection_id: str | None = None, username: str | None = None, endpoint: str | None = None
    ) -> Sequence[str]: ...

    async def list_rules(self, endpoint: str | None = None) -> Sequence[RuleView]: ...

    async def authorize(self, endpoint: str, network: str, group: str | None, description: str) -> RuleView: ...

    async def revoke(self, endpoint: str, network: str, group: str | None) -> RuleView: ...

    async def list_routes(self, endpoint: str | None = None) -> Sequence[RouteView]: ...

    async def list_certificates(self) -> Sequence[CertificateView]: ...

    async def issue_certificate(self, name: str, days: int) -> IssuedCertificate: ...

    async def revoke_certificate(self, name: str | None, serial: str | None) -> CertificateView: ...

    async def list_client_keys(self, endpoint: str | None = None) -> Sequence[ClientKeyView]: ...

    async def profile(
        self, name: str, *, endpoint: str | None, kind: str, issue: bool, serial: str | None = None
    ) -> str: ...

    async def explain(
        self, who: str, destination: str, endpoint: str | None, groups: tuple[str, ...]
    ) -> Explanation: ...

    async def reload(self) -> Mapping[str, Any]: ...
