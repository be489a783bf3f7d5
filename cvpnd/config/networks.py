"""``[[vpc]]``, ``[[subnet]]``, ``[[security_group]]``: what is around this host, and what clients may reach of it."""

from __future__ import annotations

import hashlib
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cvpnd.config.table import Table
from cvpnd.config.values import (
    LOCAL,
    AddressV4,
    AddressV6,
    Identifier,
    Interface,
    Network,
    NetworkV4,
    NetworkV6,
    PortRange,
    Printable,
)

DEFAULT_GROUP = "default"


class VpcConfig(Table):
    id: Identifier
    cidr: tuple[Network, ...] = Field(min_length=1)


class SubnetConfig(Table):
    """A network this host has a leg in."""

    id: Identifier
    vpc: str
    cidr: NetworkV4
    cidr_v6: NetworkV6 | None = None
    interface: Interface
    gateway: AddressV4 | None = None
    gateway_v6: AddressV6 | None = None
    zone: Printable = ""

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str) -> str:
        if value == LOCAL:
            raise ValueError(f'"{LOCAL}" is the route target for client-to-client; choose another id')
        return value

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self.cidr,) if self.cidr_v6 is None else (self.cidr, self.cidr_v6)


class EgressConfig(Table):
    """What a security group lets clients reach."""

    network: Network
    protocol: Literal["all", "tcp", "udp", "icmp"] = "all"
    ports: PortRange = None
    """None: all of them."""
    description: Printable = ""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.ports is not None and self.protocol not in ("tcp", "udp"):
            raise ValueError(f'has ports and protocol "{self.protocol}"; write protocol = "tcp" or "udp"')
        return self


class SecurityGroupConfig(Table):
    id: Identifier
    vpc: str
    description: Printable = ""
    egress: tuple[EgressConfig, ...] = ()

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str) -> str:
        if value == DEFAULT_GROUP:
            raise ValueError(
                f'"{DEFAULT_GROUP}" is the group that each vpc has without declaring it; choose another id'
            )
        return value

    @classmethod
    def default(cls, vpc: str) -> Self:
        """What a vpc has without declaring it: everything is let through. Its id is the same on every gateway."""
        everything = tuple(EgressConfig.model_validate({"network": network}) for network in ("0.0.0.0/0", "::/0"))
        group_id = f"sg-{hashlib.sha256(vpc.encode()).hexdigest()[:17]}"
        return cls(id=group_id, vpc=vpc, description="default VPC security group", egress=everything)

    @property
    def is_default(self) -> bool:
        return self.id == self.default(self.vpc).id

    @property
    def name(self) -> str:
        return DEFAULT_GROUP if self.is_default else self.id
