"""The file as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, PrivateAttr, model_validator

from cvpnd.config.connection_log import LogFilesConfig
from cvpnd.config.daemon import (
    ApiConfig,
    AuditConfig,
    DaemonConfig,
    ManagedConfig,
    MetricsConfig,
    PkiConfig,
    QuotasConfig,
    StatusFileConfig,
)
from cvpnd.config.directories import DirectoryConfig, LocalUserConfig
from cvpnd.config.endpoint import EndpointConfig
from cvpnd.config.handlers import HandlerConfig
from cvpnd.config.mfa import inherit_mfa
from cvpnd.config.networks import DEFAULT_GROUP, EgressConfig, SecurityGroupConfig, SubnetConfig, VpcConfig
from cvpnd.config.portal import PortalConfig
from cvpnd.config.radius import RadiusConfig
from cvpnd.config.saml import SamlProviderConfig
from cvpnd.config.table import Table

READ_AT_START = ("metrics", "status_file", "api", "portal")
"""Tables; of [daemon] too, all but the limits of strangers."""


class Config(Table):
    path: Path
    """The file itself, not a key of it."""
    _digest: str = PrivateAttr("")
    daemon: DaemonConfig = DaemonConfig()
    metrics: MetricsConfig = MetricsConfig()
    status_file: StatusFileConfig = StatusFileConfig()
    api: ApiConfig = ApiConfig()
    portal: PortalConfig = PortalConfig()
    audit: AuditConfig = AuditConfig()
    managed: ManagedConfig = ManagedConfig()
    quotas: QuotasConfig = QuotasConfig()
    pki: PkiConfig = PkiConfig()
    vpcs: tuple[VpcConfig, ...] = Field(default=(), alias="vpc")
    subnets: tuple[SubnetConfig, ...] = Field(default=(), alias="subnet")
    security_groups: tuple[SecurityGroupConfig, ...] = Field(default=(), alias="security_group")
    local_users: tuple[LocalUserConfig, ...] = ()
    directories: tuple[DirectoryConfig, ...] = Field(default=(), alias="directory")
    saml_providers: tuple[SamlProviderConfig, ...] = Field(default=(), alias="saml_provider")
    handlers: tuple[HandlerConfig, ...] = Field(default=(), alias="handler")
    connection_log: LogFilesConfig = LogFilesConfig()
    radius: tuple[RadiusConfig, ...] = ()
    endpoints: tuple[EndpointConfig, ...] = Field(default=(), alias="endpoint")

    @model_validator(mode="before")
    @classmethod
    def _inherit_mfa(cls, data: Any) -> Any:
        """Whatever else is wrong in the tables is told afterwards."""
        if not isinstance(data, dict) or not isinstance(data.get("endpoint"), list):
            return data
        tables = data["directory"] if isinstance(data.get("directory"), list) else []
        factors = {str(each.get("id")): each["mfa"] for each in tables if isinstance(each, dict) and "mfa" in each}
        endpoints = [
            {**each, "authentication": inherit_mfa(each["authentication"], factors)}
            if isinstance(each, dict) and "authentication" in each
            else each
            for each in data["endpoint"]
        ]
        return {**data, "endpoint": endpoints}

    @property
    def digest(self) -> str:
        """Of the file, as it was read."""
        return self._digest

    def awaits_restart(self, started: Config) -> tuple[str, ...]:
        """What of this file the daemon that ``started`` with another goes by only once it starts anew."""
        tables = [table for table in READ_AT_START if getattr(self, table) != getattr(started, table)]
        keys = [key for key in DaemonConfig.model_fields if key != "strangers"]
        changed = [key for key in keys if getattr(self.daemon, key) != getattr(started.daemon, key)]
        return (*(f"[{table}]" for table in tables), *(f"daemon.{key}" for key in changed))

    def handler(self, name: str) -> HandlerConfig:
        """Raises KeyError."""
        for handler in self.handlers:
            if handler.name == name:
                return handler
        raise KeyError(name)

    def vpc(self, vpc_id: str) -> VpcConfig:
        """Raises KeyError."""
        return _find(self.vpcs, vpc_id)

    def subnet(self, subnet_id: str) -> SubnetConfig:
        """Raises KeyError."""
        return _find(self.subnets, subnet_id)

    def has_subnet(self, subnet_id: str) -> bool:
        return any(subnet.id == subnet_id for subnet in self.subnets)

    @property
    def all_security_groups(self) -> tuple[SecurityGroupConfig, ...]:
        """Those of the file, and each vpc's own."""
        return (*self.security_groups, *(SecurityGroupConfig.default(vpc.id) for vpc in self.vpcs))

    def security_groups_of(self, endpoint: EndpointConfig, vpc: str = "") -> tuple[SecurityGroupConfig, ...]:
        """``vpc``: which it belongs to as long as it is associated with no subnet. None if it belongs to none."""
        if endpoint.associate and self.has_subnet(endpoint.associate[0].subnet):
            vpc = self.subnet(endpoint.associate[0].subnet).vpc
        known = {group.id: group for group in self.all_security_groups}
        if vpc:
            known[DEFAULT_GROUP] = SecurityGroupConfig.default(vpc)
        wanted = endpoint.security_groups or (DEFAULT_GROUP,)
        return tuple(dict.fromkeys(known[each] for each in wanted if each in known))

    def egress_of(self, endpoint: EndpointConfig) -> tuple[EgressConfig, ...] | None:
        """What its security groups together let through. None: they keep nothing back."""
        groups = self.security_groups_of(endpoint)
        if any(group.is_default for group in groups) or not (groups or endpoint.security_groups):
            return None  # one that has a name and is not known lets nothing through
        return tuple(each for group in groups for each in group.egress)

    def endpoint(self, name_or_id: str) -> EndpointConfig:
        """Raises KeyError."""
        for endpoint in self.endpoints:
            if name_or_id in (endpoint.name, endpoint.id):
                return endpoint
        raise KeyError(name_or_id)


_T = TypeVar("_T", VpcConfig, SubnetConfig)


def _find(tables: tuple[_T, ...], wanted: str) -> _T:
    for table in tables:
        if table.id == wanted:
            return table
    raise KeyError(wanted)
