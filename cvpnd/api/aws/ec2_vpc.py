"""EC2: the networks that the TOML file declares, to look at."""

from __future__ import annotations

from collections.abc import Mapping

from cvpnd.api.aws.call import Answer, Call, filtered
from cvpnd.config import EgressConfig, SecurityGroupConfig, SubnetConfig, VpcConfig
from cvpnd.endpoints.arns import ACCOUNT
from cvpnd.endpoints.model import OperationError


def _no_tags(_: object) -> Mapping[str, str]:
    """The file gives its networks none: a filter of tags fits none of them."""
    return {}


async def describe_vpcs(call: Call) -> Answer:
    vpcs: list[VpcConfig] = list(call.operations.vpcs())
    if wanted := call.get("VpcIds"):
        for each in wanted:
            if all(each != vpc.id for vpc in vpcs):
                raise OperationError("InvalidVpcID.NotFound", f"The vpc ID '{each}' does not exist")
        vpcs = [vpc for vpc in vpcs if vpc.id in wanted]
    vpcs = await filtered(
        vpcs,
        call.get("Filters", ()),
        {
            "vpc-id": lambda vpc: [vpc.id],
            "cidr": lambda vpc: [str(_main_cidr(vpc))],
            "cidr-block-association.cidr-block": lambda vpc: [str(c) for c in vpc.cidr if c.version == 4],
            "state": lambda _vpc: ["available"],
            "is-default": lambda _vpc: ["false"],
            "isDefault": lambda _vpc: ["false"],
            "owner-id": lambda _vpc: [ACCOUNT],
        },
        _no_tags,
    )
    page, token = call.page(vpcs)
    return {"Vpcs": [_vpc(vpc) for vpc in page], "NextToken": token}


def _main_cidr(vpc: VpcConfig) -> object:
    return next((cidr for cidr in vpc.cidr if cidr.version == 4), None)


def _vpc(vpc: VpcConfig) -> Answer:
    main = _main_cidr(vpc)
    return {
        "VpcId": vpc.id,
        "State": "available",
        "OwnerId": ACCOUNT,
        "IsDefault": False,
        "CidrBlock": None if main is None else str(main),
        "CidrBlockAssociationSet": [
            {"CidrBlock": str(cidr), "CidrBlockState": {"State": "associated"}}
            for cidr in vpc.cidr
            if cidr.version == 4
        ],
        "Ipv6CidrBlockAssociationSet": [
            {"Ipv6CidrBlock": str(cidr), "Ipv6CidrBlockState": {"State": "associated"}}
            for cidr in vpc.cidr
            if cidr.version == 6
        ],
    }


async def describe_subnets(call: Call) -> Answer:
    subnets: list[SubnetConfig] = list(call.operations.subnets())
    if wanted := call.get("SubnetIds"):
        for each in wanted:
            if all(each != subnet.id for subnet in subnets):
                raise OperationError("InvalidSubnetID.NotFound", f"The subnet ID '{each}' does not exist")
        subnets = [subnet for subnet in subnets if subnet.id in wanted]
    subnets = await filtered(
        subnets,
        call.get("Filters", ()),
        {
            "subnet-id": lambda subnet: [subnet.id],
            "vpc-id": lambda subnet: [subnet.vpc],
            "cidr": lambda subnet: [str(subnet.cidr)],
            "cidr-block": lambda subnet: [str(subnet.cidr)],
            "availability-zone": lambda subnet: [subnet.zone],
            "availabilityZone": lambda subnet: [subnet.zone],
            "state": lambda _subnet: ["available"],
            "default-for-az": lambda _subnet: ["false"],
            "owner-id": lambda _subnet: [ACCOUNT],
        },
        _no_tags,
    )
    page, token = call.page(subnets)
    return {"Subnets": [_subnet(subnet) for subnet in page], "NextToken": token}


def _subnet(subnet: SubnetConfig) -> Answer:
    v6 = subnet.cidr_v6
    return {
        "SubnetId": subnet.id,
        "VpcId": subnet.vpc,
        "State": "available",
        "OwnerId": ACCOUNT,
        "CidrBlock": str(subnet.cidr),
        "AvailabilityZone": subnet.zone,
        "AvailableIpAddressCount": max(0, subnet.cidr.num_addresses - 5),
        "Ipv6CidrBlockAssociationSet": []
        if v6 is None
        else [{"Ipv6CidrBlock": str(v6), "Ipv6CidrBlockState": {"State": "associated"}}],
    }


async def describe_security_groups(call: Call) -> Answer:
    groups = [view.group for view in await call.operations.list_security_groups()]
    if wanted := call.get("GroupIds"):
        for each in wanted:
            if all(each != group.id for group in groups):
                raise OperationError("InvalidGroup.NotFound", f"The security group '{each}' does not exist")
        groups = [group for group in groups if group.id in wanted]
    if wanted := call.get("GroupNames"):
        for each in wanted:
            if all(each != group.name for group in groups):
                raise OperationError("InvalidGroup.NotFound", f"The security group '{each}' does not exist")
        groups = [group for group in groups if group.name in wanted]
    groups = await filtered(
        groups,
        call.get("Filters", ()),
        {
            "group-id": lambda group: [group.id],
            "group-name": lambda group: [group.name],
            "vpc-id": lambda group: [group.vpc],
            "description": lambda group: [group.description],
            "owner-id": lambda _group: [ACCOUNT],
        },
        _no_tags,
    )
    page, token = call.page(groups)
    return {"SecurityGroups": [_security_group(group) for group in page], "NextToken": token}


def _security_group(group: SecurityGroupConfig) -> Answer:
    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc,
        "OwnerId": ACCOUNT,
        "IpPermissions": [],
        "IpPermissionsEgress": [_permission(egress) for egress in group.egress],
    }


def _permission(egress: EgressConfig) -> Answer:
    described = {"Description": egress.description or None}
    v4 = egress.network.version == 4
    return {
        "IpProtocol": "-1" if egress.protocol == "all" else egress.protocol,
        "FromPort": None if egress.ports is None else egress.ports.first,
        "ToPort": None if egress.ports is None else egress.ports.last,
        "IpRanges": [{"CidrIp": str(egress.network), **described}] if v4 else [],
        "Ipv6Ranges": [] if v4 else [{"CidrIpv6": str(egress.network), **described}],
    }


HANDLERS = {
    "DescribeVpcs": describe_vpcs,
    "DescribeSubnets": describe_subnets,
    "DescribeSecurityGroups": describe_security_groups,
}
