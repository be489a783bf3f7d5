"""EC2: where an endpoint leads to, and who may go there: target networks, authorization rules, routes."""

from __future__ import annotations

from cvpnd.api.aws.call import Answer, Call, filtered
from cvpnd.api.aws.errors import ApiError
from cvpnd.endpoints.model import OperationError, RouteView, RuleView

# -- target networks ----------------------------------------------------------------------------------------


async def associate(call: Call) -> Answer:
    if "SubnetId" not in call.parameters:
        raise ApiError("MissingParameter", "The request must contain the parameter SubnetId")
    for name in ("AvailabilityZone", "AvailabilityZoneId"):
        if name in call.parameters:
            raise ApiError(
                "UnsupportedOperation", f"{name}: goes with transit gateways, which are not here; leave it away"
            )
    view = await call.operations.associate(call.get("ClientVpnEndpointId"), call.get("SubnetId"))
    return {"AssociationId": view.association_id, "Status": {"Code": "associating"}}


async def apply_security_groups(call: Call) -> Answer:
    endpoint, vpc, groups = call.get("ClientVpnEndpointId"), call.get("VpcId"), call.get("SecurityGroupIds")
    networks = await call.operations.list_associations(endpoint)
    if all(network.vpc != vpc for network in networks):
        raise OperationError("InvalidVpcID.NotFound", f"Endpoint {endpoint} is not associated with a subnet of {vpc}")
    await call.operations.modify_endpoint(endpoint, settings={"security_groups": groups})
    return {"SecurityGroupIds": groups}


async def disassociate(call: Call) -> Answer:
    view = await call.operations.disassociate(call.get("ClientVpnEndpointId"), call.get("AssociationId"))
    return {"AssociationId": view.association_id, "Status": {"Code": "disassociating"}}


async def describe_target_networks(call: Call) -> Answer:
    endpoint = call.get("ClientVpnEndpointId")
    views = await call.operations.list_associations(endpoint)
    if wanted := call.get("AssociationIds"):
        known = {view.association_id: view for view in views}
        views = []
        for each in dict.fromkeys(wanted):  # whoever waits until one is gone names it
            view = known.get(each) or await call.operations.disassociated(endpoint, each)
            if view is None:
                raise OperationError("InvalidClientVpnAssociationIdNotFound", f"Association {each} does not exist")
            views.append(view)
    views = await filtered(
        views,
        call.get("Filters", ()),
        {
            "association-id": lambda view: [view.association_id],
            "target-network-id": lambda view: [view.subnet],
            "vpc-id": lambda view: [view.vpc],
        },
    )
    page, token = call.page(views)
    groups = (await call.operations.show_endpoint(endpoint)).security_groups
    shown = [
        {
            "AssociationId": view.association_id,
            "VpcId": view.vpc,
            "TargetNetworkId": view.subnet,
            "ClientVpnEndpointId": view.endpoint_id,
            "Status": {"Code": view.status},
            "SecurityGroups": list(groups),
        }
        for view in page
    ]
    return {"ClientVpnTargetNetworks": shown, "NextToken": token}


# -- authorization rules ------------------------------------------------------------------------------------


async def authorize(call: Call) -> Answer:
    await call.operations.authorize(
        call.get("ClientVpnEndpointId"),
        call.get("TargetNetworkCidr"),
        _group(call, "AuthorizeAllGroups"),
        call.get("Description", ""),
    )
    return {"Status": {"Code": "authorizing"}}


async def revoke(call: Call) -> Answer:
    await call.operations.revoke(
        call.get("ClientVpnEndpointId"), call.get("TargetNetworkCidr"), _group(call, "RevokeAllGroups")
    )
    return {"Status": {"Code": "revoking"}}


def _group(call: Call, everybody: str) -> str | None:
    """Whoever means everybody says so."""
    group, all_groups = call.get("AccessGroupId"), call.get(everybody, False)
    if (group is None) != all_groups:
        raise ApiError("InvalidParameterCombination", f"Give either AccessGroupId or {everybody}")
    if group == "":
        raise ApiError("InvalidParameterValue", "AccessGroupId is empty")
    return group if group is None else str(group)


async def describe_rules(call: Call) -> Answer:
    rules: list[RuleView] = await filtered(
        await call.operations.list_rules(call.get("ClientVpnEndpointId")),
        call.get("Filters", ()),
        {
            "description": lambda rule: [rule.description],
            "destination-cidr": lambda rule: [str(rule.network)],
            "group-id": lambda rule: [rule.group or ""],
        },
    )
    page, token = call.page(rules)
    shown = [
        {
            "ClientVpnEndpointId": rule.endpoint_id,
            "Description": rule.description,
            "GroupId": rule.group or "",
            "AccessAll": rule.group is None,
            "DestinationCidr": str(rule.network),
            "Status": {"Code": rule.status},
        }
        for rule in page
    ]
    return {"AuthorizationRules": shown, "NextToken": token}


# -- routes -------------------------------------------------------------------------------------------------


async def create_route(call: Call) -> Answer:
    await call.operations.add_route(
        call.get("ClientVpnEndpointId"), call.get("DestinationCidrBlock"), _target(call), call.get("Description", "")
    )
    return {"Status": {"Code": "creating"}}


async def delete_route(call: Call) -> Answer:
    await call.operations.remove_route(
        call.get("ClientVpnEndpointId"), call.get("DestinationCidrBlock"), call.get("TargetVpcSubnetId")
    )
    return {"Status": {"Code": "deleting"}}


def _target(call: Call) -> str:
    if "TargetVpcSubnetId" not in call.parameters:
        raise ApiError("MissingParameter", "The request must contain the parameter TargetVpcSubnetId")
    return str(call.get("TargetVpcSubnetId"))


async def describe_routes(call: Call) -> Answer:
    routes: list[RouteView] = await filtered(
        await call.operations.list_routes(call.get("ClientVpnEndpointId")),
        call.get("Filters", ()),
        {
            "destination-cidr": lambda route: [str(route.destination)],
            "origin": lambda route: [route.origin],
            "target-subnet": lambda route: [route.target],
        },
    )
    page, token = call.page(routes)
    shown = [
        {
            "ClientVpnEndpointId": route.endpoint_id,
            "DestinationCidr": str(route.destination),
            "TargetSubnet": route.target,
            "Type": "Nat",
            "Origin": route.origin,
            "Status": {"Code": route.status},
            "Description": route.description,
        }
        for route in page
    ]
    return {"Routes": shown, "NextToken": token}


HANDLERS = {
    "AssociateClientVpnTargetNetwork": associate,
    "ApplySecurityGroupsToClientVpnTargetNetwork": apply_security_groups,
    "DisassociateClientVpnTargetNetwork": disassociate,
    "DescribeClientVpnTargetNetworks": describe_target_networks,
    "AuthorizeClientVpnIngress": authorize,
    "RevokeClientVpnIngress": revoke,
    "DescribeClientVpnAuthorizationRules": describe_rules,
    "CreateClientVpnRoute": create_route,
    "DeleteClientVpnRoute": delete_route,
    "DescribeClientVpnRoutes": describe_routes,
}
