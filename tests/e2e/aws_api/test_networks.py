"""Networks, routes, rules and tags by boto3: each action with what can be set read back, and each documented error
provoked."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from helpers.aws_api import Api, code_of


def test_associations_carry_their_rules(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn)}

    def associate(subnet: str, **more: Any) -> dict[str, Any]:
        return api.ec2.associate_client_vpn_target_network(**name, SubnetId=subnet, **more)

    assert code_of(lambda: associate("subnet-none")) == "InvalidSubnetID.NotFound"
    assert code_of(lambda: associate("subnet-small")) == "InvalidParameterValue"
    assert code_of(lambda: associate("subnet-a", AvailabilityZone="a")) == "UnsupportedOperation"
    first = associate("subnet-a", ClientToken="t")
    again = associate("subnet-a", ClientToken="t")
    assert (first["Status"]["Code"], again["AssociationId"]) == ("associating", first["AssociationId"])
    assert code_of(lambda: associate("subnet-a")) == "InvalidClientVpnDuplicateAssociationException"
    assert code_of(lambda: associate("subnet-a2")) == "InvalidClientVpnSubnetId.DuplicateAz"
    assert code_of(lambda: associate("subnet-b")) == "InvalidParameterValue"
    second = associate("subnet-c")
    networks = api.ec2.describe_client_vpn_target_networks(**name)["ClientVpnTargetNetworks"]
    assert [(n["TargetNetworkId"], n["VpcId"], n["Status"]["Code"]) for n in networks] == [
        ("subnet-a", "vpc-main", "associated"),
        ("subnet-c", "vpc-main", "associated"),
    ]
    shown = api.describe(name["ClientVpnEndpointId"])
    assert (shown["Status"]["Code"], shown["VpcId"]) == ("available", "vpc-main")
    assert [n["NetworkId"] for n in shown["AssociatedTargetNetworks"]] == ["subnet-a", "subnet-c"]
    assert code_of(lambda: api.ec2.delete_client_vpn_endpoint(**name)) == "DependencyViolation"
    only = api.ec2.describe_client_vpn_target_networks(**name, AssociationIds=[second["AssociationId"]])
    assert len(only["ClientVpnTargetNetworks"]) == 1
    by_vpc = [{"Name": "vpc-id", "Values": ["vpc-o*"]}]
    assert api.ec2.describe_client_vpn_target_networks(**name, Filters=by_vpc)["ClientVpnTargetNetworks"] == []
    gone = api.ec2.disassociate_client_vpn_target_network(**name, AssociationId=first["AssociationId"])
    assert gone["Status"]["Code"] == "disassociating"
    assert (
        code_of(lambda: api.ec2.disassociate_client_vpn_target_network(**name, AssociationId=first["AssociationId"]))
        == "InvalidClientVpnAssociationIdNotFound"
    )


def test_routes(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn)}

    def create(cidr: str, subnet: str, **more: Any) -> dict[str, Any]:
        return api.ec2.create_client_vpn_route(**name, DestinationCidrBlock=cidr, TargetVpcSubnetId=subnet, **more)

    def delete(cidr: str, **more: Any) -> dict[str, Any]:
        return api.ec2.delete_client_vpn_route(**name, DestinationCidrBlock=cidr, **more)

    assert code_of(lambda: create("10.50.0.0/16", "subnet-a")) == "InvalidClientVpnActiveAssociationNotFound"
    api.ec2.associate_client_vpn_target_network(**name, SubnetId="subnet-a")
    second = api.ec2.associate_client_vpn_target_network(**name, SubnetId="subnet-c")["AssociationId"]
    assert create("10.50.0.0/16", "subnet-a", Description="branch")["Status"]["Code"] == "creating"
    create("10.50.0.0/16", "subnet-c")
    create("10.100.0.0/22", "local")
    routes = api.ec2.describe_client_vpn_routes(**name)["Routes"]
    assert [(r["DestinationCidr"], r["TargetSubnet"], r["Origin"], r["Status"]["Code"]) for r in routes] == [
        ("10.20.0.0/16", "subnet-a", "associate", "active"),
        ("10.20.0.0/16", "subnet-c", "associate", "active"),
        ("10.50.0.0/16", "subnet-a", "add-route", "active"),
        ("10.50.0.0/16", "subnet-c", "add-route", "active"),
        ("10.100.0.0/22", "local", "add-route", "active"),
    ]
    assert routes[2]["Description"] == "branch"
    assert code_of(lambda: create("10.50.0.0/16", "subnet-a")) == "InvalidClientVpnDuplicateRoute"
    assert code_of(lambda: create("10.20.0.0/16", "subnet-a")) == "InvalidClientVpnDuplicateRoute"
    assert code_of(lambda: create("10.100.1.0/24", "subnet-a")) == "InvalidParameterValue"
    assert code_of(lambda: create("10.99.0.0/24", "local")) == "InvalidParameterValue"
    assert code_of(lambda: create("10.51.0.0/16", "subnet-a")) == "ClientVpnRouteLimitExceeded"
    assert code_of(lambda: delete("10.20.0.0/16", TargetVpcSubnetId="subnet-a")) == "OperationNotPermitted"
    assert code_of(lambda: delete("10.77.0.0/16")) == "InvalidClientVpnRouteNotFound"
    assert code_of(lambda: delete("10.50.0.0/16")) == "MissingParameter"
    filters = [{"Name": "origin", "Values": ["add-route"]}, {"Name": "target-subnet", "Values": ["subnet-?"]}]
    assert len(api.ec2.describe_client_vpn_routes(**name, Filters=filters)["Routes"]) == 2
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert code_of(lambda: api.ec2.describe_client_vpn_routes(**name, Filters=unknown)) == "InvalidParameterValue"
    table = api.gateway.namespace.run("ip", "route", "show", "table", "all").stdout
    assert "10.50.0.0/16 " in table
    api.ec2.disassociate_client_vpn_target_network(**name, AssociationId=second)
    (network,) = api.ec2.describe_client_vpn_target_networks(**name, AssociationIds=[second])["ClientVpnTargetNetworks"]
    assert (network["AssociationId"], network["Status"]["Code"]) == (second, "disassociated")
    assert len(api.ec2.describe_client_vpn_target_networks(**name)["ClientVpnTargetNetworks"]) == 1
    left = [r["TargetSubnet"] for r in api.ec2.describe_client_vpn_routes(**name)["Routes"]]
    assert left == ["subnet-a", "subnet-a", "local"], "manual routes go with their association"


def test_rules_and_pages(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn)}

    def authorize(cidr: str, **whom: Any) -> dict[str, Any]:
        return api.ec2.authorize_client_vpn_ingress(**name, TargetNetworkCidr=cidr, **whom)

    everybody = {"AuthorizeAllGroups": True}
    assert authorize("10.20.0.0/16", **everybody, Description="all")["Status"]["Code"] == "authorizing"
    for group in ("eng", "ops"):
        authorize("10.20.0.0/16", AccessGroupId=group)
    assert (
        code_of(lambda: authorize("10.20.0.0/16", AccessGroupId="eng")) == "InvalidClientVpnDuplicateAuthorizationRule"
    )
    assert code_of(lambda: authorize("10.21.0.0/16")) == "InvalidParameterCombination"
    assert code_of(lambda: authorize("10.21.0.0/16", AccessGroupId="g", **everybody)) == "InvalidParameterCombination"
    assert code_of(lambda: authorize("10.21.0.1/16", **everybody)) == "InvalidParameterValue"
    assert code_of(lambda: authorize("10.21.0.0", **everybody)) == "InvalidParameterValue"
    for words in ({"Description": "x" * 256}, {"Description": "two\nlines"}):
        assert code_of(lambda words=words: authorize("10.21.0.0/16", **everybody, **words)) == "InvalidParameterValue"
    for group in ("a\x00b", "g" * 256):
        assert code_of(lambda group=group: authorize("10.21.0.0/16", AccessGroupId=group)) == "InvalidParameterValue"
    assert code_of(lambda: authorize("10.21.0.0/16", **everybody, DryRun=True)) == "DryRunOperation"
    for number in (21, 22):
        authorize(f"10.{number}.0.0/16", **everybody)
    assert code_of(lambda: authorize("10.23.0.0/16", **everybody)) == "ClientVpnAuthorizationRuleLimitExceeded"
    rules = api.ec2.describe_client_vpn_authorization_rules(**name)["AuthorizationRules"]
    assert [(r["DestinationCidr"], r["GroupId"], r["AccessAll"], r["Status"]["Code"]) for r in rules][:3] == [
        ("10.20.0.0/16", "", True, "active"),
        ("10.20.0.0/16", "eng", False, "active"),
        ("10.20.0.0/16", "ops", False, "active"),
    ]
    assert rules[0]["Description"] == "all"
    assert (
        code_of(lambda: api.ec2.describe_client_vpn_authorization_rules(**name, MaxResults=5, NextToken="bent"))
        == "InvalidNextToken"
    )
    pages = api.ec2.get_paginator("describe_client_vpn_authorization_rules").paginate(
        **name, PaginationConfig={"PageSize": 5}
    )
    assert [len(page["AuthorizationRules"]) for page in pages] == [5]

    def revoke(cidr: str, **whom: Any) -> dict[str, Any]:
        return api.ec2.revoke_client_vpn_ingress(**name, TargetNetworkCidr=cidr, **whom)

    assert revoke("10.20.0.0/16", RevokeAllGroups=True)["Status"]["Code"] == "revoking"
    missing = "InvalidClientVpnEndpointAuthorizationRuleNotFound"
    assert code_of(lambda: revoke("10.20.0.0/16", RevokeAllGroups=True)) == missing
    revoke("10.20.0.0/16", AccessGroupId="eng")
    by_group = [{"Name": "group-id", "Values": ["ops"]}]
    (left,) = api.ec2.describe_client_vpn_authorization_rules(**name, Filters=by_group)["AuthorizationRules"]
    assert left["DestinationCidr"] == "10.20.0.0/16"


def test_the_networks_of_the_file(api: Api) -> None:
    assert [vpc["VpcId"] for vpc in api.ec2.describe_vpcs()["Vpcs"]] == ["vpc-main", "vpc-other"]
    in_other = [{"Name": "vpc-id", "Values": ["vpc-other"]}]
    (subnet,) = api.ec2.describe_subnets(Filters=in_other)["Subnets"]
    assert (subnet["SubnetId"], subnet["CidrBlock"], subnet["State"]) == ("subnet-b", "10.30.0.0/24", "available")
    assert code_of(lambda: api.ec2.describe_vpcs(VpcIds=["vpc-none"])) == "InvalidVpcID.NotFound"
    assert code_of(lambda: api.ec2.describe_subnets(SubnetIds=["subnet-none"])) == "InvalidSubnetID.NotFound"


def test_security_groups(api: Api, arn: str) -> None:
    web, _, _, *defaults = api.ec2.describe_security_groups()["SecurityGroups"]
    assert (web["GroupId"], web["GroupName"], web["VpcId"], web["Description"]) == (
        "sg-web", "sg-web", "vpc-main", "the web",
    )  # fmt: skip
    https, v6 = web["IpPermissionsEgress"]
    assert (https["IpProtocol"], https["FromPort"], https["ToPort"]) == ("tcp", 443, 443)
    assert https["IpRanges"] == [{"CidrIp": "10.20.0.0/16", "Description": "https"}]
    assert (v6["IpProtocol"], v6["Ipv6Ranges"]) == ("-1", [{"CidrIpv6": "::/0"}])
    assert [(group["GroupName"], group["VpcId"]) for group in defaults] == [
        ("default", "vpc-main"), ("default", "vpc-other"),
    ]  # fmt: skip
    in_main = [{"Name": "group-name", "Values": ["default"]}, {"Name": "vpc-id", "Values": ["vpc-main"]}]
    (default,) = [each["GroupId"] for each in api.ec2.describe_security_groups(Filters=in_main)["SecurityGroups"]]
    assert code_of(lambda: api.ec2.describe_security_groups(GroupIds=["sg-no"])) == "InvalidGroup.NotFound"
    (found,) = api.ec2.describe_security_groups(GroupNames=["sg-third"])["SecurityGroups"]
    assert found["GroupId"] == "sg-third"
    assert code_of(lambda: api.ec2.describe_security_groups(GroupNames=["sg-no"])) == "InvalidGroup.NotFound"
    assert code_of(lambda: api.create(arn, SecurityGroupIds=["sg-no"])) == "InvalidParameterValue"
    without = {"ClientVpnEndpointId": api.create(arn, "10.101.0.0/22")}
    api.ec2.associate_client_vpn_target_network(**without, SubnetId="subnet-a")
    assert api.describe(without["ClientVpnEndpointId"])["SecurityGroupIds"] == [default]
    (network,) = api.ec2.describe_client_vpn_target_networks(**without)["ClientVpnTargetNetworks"]
    assert network["SecurityGroups"] == [default]
    endpoint_id = api.create(arn, SecurityGroupIds=["sg-web"], VpcId="vpc-main")
    assert api.describe(endpoint_id)["SecurityGroupIds"] == ["sg-web"]
    name = {"ClientVpnEndpointId": endpoint_id}
    groups = {"VpcId": "vpc-main", "SecurityGroupIds": ["sg-other"]}
    apply = api.ec2.apply_security_groups_to_client_vpn_target_network
    assert code_of(lambda: apply(**name, **groups)) == "InvalidVpcID.NotFound"
    api.ec2.associate_client_vpn_target_network(**name, SubnetId="subnet-a")
    assert code_of(lambda: apply(**name, **groups)) == "InvalidParameterValue", "of another vpc"
    assert apply(**name, VpcId="vpc-main", SecurityGroupIds=["sg-web"])["SecurityGroupIds"] == ["sg-web"]
    (network,) = api.ec2.describe_client_vpn_target_networks(**name)["ClientVpnTargetNetworks"]
    assert network["SecurityGroups"] == ["sg-web"]
    apply(**name, VpcId="vpc-main", SecurityGroupIds=[default])
    assert api.describe(endpoint_id)["SecurityGroupIds"] == [default]


def test_tags(api: Api, arn: str) -> None:
    endpoint_id = api.create(arn)
    api.ec2.create_tags(Resources=[endpoint_id], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    api.ec2.create_tags(Resources=[endpoint_id], Tags=[{"Key": "a", "Value": "3"}])
    api.ec2.delete_tags(Resources=[endpoint_id], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
    assert api.ec2.describe_tags()["Tags"] == [
        {"Key": "a", "Value": "3", "ResourceId": endpoint_id, "ResourceType": "client-vpn-endpoint"}
    ]
    found = api.ec2.describe_client_vpn_endpoints(Filters=[{"Name": "tag:a", "Values": ["3"]}])["ClientVpnEndpoints"]
    assert [each["ClientVpnEndpointId"] for each in found] == [endpoint_id]
    reserved = [{"Key": "aws:x", "Value": ""}]
    assert code_of(lambda: api.ec2.create_tags(Resources=[endpoint_id], Tags=reserved)) == "InvalidParameterValue"
    more = [{"Key": "c", "Value": "4"}]
    for other, code in (("cvpn-endpoint-0", "InvalidClientVpnEndpointId.NotFound"), ("vpc-main", "InvalidID")):
        assert code_of(lambda other=other: api.ec2.create_tags(Resources=[endpoint_id, other], Tags=more)) == code
    too_many = [{"Key": f"k{number}", "Value": ""} for number in range(51)]
    assert code_of(lambda: api.ec2.create_tags(Resources=[endpoint_id], Tags=too_many)) == "TagLimitExceeded"
    assert (
        code_of(
            lambda: api.create(
                arn, "10.101.0.0/22", TagSpecifications=[{"ResourceType": "client-vpn-endpoint", "Tags": too_many}]
            )
        )
        == "TagLimitExceeded"
    )
    assert [tag["Key"] for tag in api.ec2.describe_tags()["Tags"]] == ["a"], "of several resources all or none"
    assert code_of(lambda: api.ec2.describe_tags(MaxResults=-1)) == "InvalidParameterValue"


def test_a_filter_is_read_as_ec2_documents_it(api: Api, arn: str) -> None:
    resource = [api.create(arn)]
    tags = {"plain": "a*c", "a=b": "c", "länge": "größer 🙂", "path": "C:\\x", "long": "a" * 256}
    api.ec2.create_tags(Resources=resource, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])

    def found(name: str, *values: str) -> set[str]:
        return {tag["Key"] for tag in api.ec2.describe_tags(Filters=[{"Name": name, "Values": values}])["Tags"]}

    for value, keys in {
        "a?c": {"plain"},
        "a\\?c": set(),
        "a\\*c": {"plain"},
        "[a-c]": set(),
        "A*": set(),
        "gr??er *": {"länge"},
        "C:\\\\x": {"path"},
        "*a" * 60 + "b": set(),
        "*a*": {"plain", "long"},
    }.items():
        assert found("value", value) == keys, value
    assert found("key", "a=b") == found("tag:a=b", "c") == {"a=b"}
    assert found("tag:a", "b=c") == found("tag:plain") == set()
    assert found("key", "plain", "länge") == {"plain", "länge"}
    shown = api.ec2.describe_client_vpn_endpoints(Filters=[{"Name": "tag-key", "Values": ["a=*"]}])
    assert {tag["Key"]: tag["Value"] for tag in shown["ClientVpnEndpoints"][0]["Tags"]} == tags
    assert code_of(lambda: found("colour", "red")) == "InvalidParameterValue"
    assert found("value", *("*x*" * 80 + str(number) for number in range(198)), "a[*]c", "a?c") == {"plain"}
    assert code_of(lambda: found("value", *map(str, range(201)))) == "FilterLimitExceeded"
    assert code_of(lambda: found("value", "*a" * 128)) == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("bad", "told"), [("a\0b", "has a character in it that is none"), ("\ud800", "is half of a character")]
)
def test_text_that_no_database_takes_is_refused_in_words(api: Api, arn: str, bad: str, told: str) -> None:
    with pytest.raises(ClientError, match=told) as refused:
        api.acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "k", "Value": bad}])
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    if bad.isascii():  # a form has no surrogates
        assert code_of(lambda: api.create(arn, ClientToken=bad)) == "InvalidParameterValue"
        resources = [api.create(arn)]
        more = [{"Key": bad, "Value": ""}]
        assert code_of(lambda: api.ec2.create_tags(Resources=resources, Tags=more)) == "InvalidParameterValue"
