"""EC2: endpoints, their revocation lists and profiles. What lies behind them is in ``ec2_networks.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvpnd.api.aws.call import Answer, Call, filtered, tag_list, tag_map, text_time
from cvpnd.api.aws.errors import ApiError
from cvpnd.config.sockets import parse_listen
from cvpnd.endpoints.arns import ACCOUNT, LOCAL_REGION, saml_provider_arn
from cvpnd.endpoints.model import EndpointView, OperationError

AWS_PORTS = (443, 1194)
ENDPOINT_TYPE = "client-vpn-endpoint"
MOST_DNS_SERVERS = 2
HOUR_S = 3600
SESSION_HOURS = (8, 10, 12, 24)
SWITCHED = (
    ("ConnectionLogOptions", "CloudwatchLogGroup"),
    ("ClientLoginBannerOptions", "BannerText"),
    ("ClientConnectOptions", "LambdaFunctionArn"),
)
"""What is switched on by its ``Enabled``, and what it cannot be on without: whoever writes the second and forgets the
first would have no handler, or no log, and not know."""

ADDRESS_TYPES = {"ipv4": (4,), "ipv6": (6,), "dual-stack": (4, 6)}

Parameters = Mapping[str, Any]


# -- endpoints ----------------------------------------------------------------------------------------------


async def create_endpoint(call: Call) -> Answer:
    settings = {"session_timeout_s": max(SESSION_HOURS) * HOUR_S, **_settings(call.parameters)}
    if "ClientCidrBlock" not in call.parameters:
        raise ApiError("MissingParameter", "The request must contain the parameter ClientCidrBlock")
    settings["client_cidr"] = call.get("ClientCidrBlock")
    if call.get("TrafficIpAddressType") == "ipv6":
        raise ApiError(
            "UnsupportedOperation",
            "TrafficIpAddressType: clients always have an IPv4 address here; ask for dual-stack",
        )
    client_certificate, methods = _authentication(call.get("AuthenticationOptions"))
    if servers := call.get("DnsServers"):
        settings["dns_servers"] = _dns_servers(servers)
    tags: dict[str, str] = {}
    for specification in call.get("TagSpecifications", ()):
        if specification.get("ResourceType") != ENDPOINT_TYPE:
            raise ApiError("InvalidParameterValue", f"ResourceType: only {ENDPOINT_TYPE} is made here")
        tags |= tag_map(specification.get("Tags"))
    view = await call.operations.create_endpoint(
        server_certificate=call.get("ServerCertificateArn"),
        client_certificate=client_certificate,
        settings={**settings, "authentication": methods},
        transport=call.get("TransportProtocol", "udp"),
        port=_port(call.get("VpnPort", 443)),
        vpc=call.get("VpcId", ""),
        tags=tags,
        listens_on=ADDRESS_TYPES.get(call.get("EndpointIpAddressType"), ()),
        dual_stack=call.get("TrafficIpAddressType") == "dual-stack",
    )
    return {
        "ClientVpnEndpointId": view.endpoint_id,
        "Status": {"Code": view.status},
        "DnsName": view.remote,
    }


async def modify_endpoint(call: Call) -> Answer:
    settings = _settings(call.parameters)
    servers = call.get("DnsServers")
    if servers is not None:
        settings["dns_servers"] = (
            _dns_servers(servers.get("CustomDnsServers", [])) if servers.get("Enabled", True) else []
        )
        if servers.get("Enabled", True) and not settings["dns_servers"]:
            raise ApiError("MissingParameter", "DnsServers: give CustomDnsServers, or Enabled=false")
    await call.operations.modify_endpoint(
        call.get("ClientVpnEndpointId"),
        settings=settings,
        server_certificate=call.get("ServerCertificateArn"),
        port=_port(call.get("VpnPort")) if "VpnPort" in call.parameters else None,
        vpc=call.get("VpcId"),
    )
    return {"Return": True}


async def delete_endpoint(call: Call) -> Answer:
    await call.operations.delete_endpoint(call.get("ClientVpnEndpointId"))
    return {"Status": {"Code": "deleting"}}


async def describe_endpoints(call: Call) -> Answer:
    views = await call.operations.list_endpoints()
    if wanted := call.get("ClientVpnEndpointIds"):
        known = {view.endpoint_id: view for view in views}
        views = []
        for each in dict.fromkeys(wanted):  # whoever waits until one is gone names it
            view = known.get(each) or await call.operations.deleted_endpoint(each)
            if view is None:
                raise OperationError("InvalidClientVpnEndpointId.NotFound", f"Endpoint {each} does not exist")
            views.append(view)
    views = await filtered(
        views,
        call.get("Filters", ()),
        {
            "endpoint-id": lambda view: [view.endpoint_id],
            "transport-protocol": lambda view: [_first_listen(view)[0]],
        },
        lambda view: view.tags,
    )
    page, token = call.page(views)
    associations: dict[str, list[str]] = {}
    for each in await call.operations.list_associations():
        associations.setdefault(each.endpoint_id, []).append(each.subnet)
    shown = [_endpoint(view, associations.get(view.endpoint_id, [])) for view in page]
    return {"ClientVpnEndpoints": shown, "NextToken": token}


def _endpoint(view: EndpointView, subnets: Sequence[str]) -> Answer:
    transport, port = _first_listen(view)
    log = view.connection_log
    return {
        "ClientVpnEndpointId": view.endpoint_id,
        "Description": view.description,
        "Status": {"Code": view.status},
        "CreationTime": None if view.created_at is None else text_time(view.created_at),
        "DnsName": view.remote,
        "ClientCidrBlock": str(view.client_cidr),
        "DnsServers": [str(server) for server in view.dns_servers],
        "SplitTunnel": view.split_tunnel,
        "VpnProtocol": "openvpn",
        "TransportProtocol": transport,
        "VpnPort": port,
        "AssociatedTargetNetworks": [{"NetworkId": subnet, "NetworkType": "vpc"} for subnet in subnets],
        "ServerCertificateArn": view.server_certificate,
        "AuthenticationOptions": [_shown_method(method, view) for method in view.authentication],
        "ConnectionLogOptions": {
            "Enabled": log is not None,
            "CloudwatchLogGroup": None if log is None else log["group"],
            "CloudwatchLogStream": None if log is None else log["stream"],
        },
        "Tags": tag_list(view.tags),
        "VpcId": view.vpc or None,
        "SecurityGroupIds": list(view.security_groups) or None,
        "SelfServicePortalUrl": view.self_service_url or None,
        "ClientConnectOptions": _shown_handler(view.connect_handler),
        "SessionTimeoutHours": view.session_timeout_s // HOUR_S or None,
        "DisconnectOnSessionTimeout": view.disconnect_on_session_timeout,
        "ClientLoginBannerOptions": {"Enabled": bool(view.login_banner), "BannerText": view.login_banner or None},
        "ClientRouteEnforcementOptions": {"Enforced": view.client_route_enforcement},
        "EndpointIpAddressType": _address_type({":" in parse_listen(listen).host for listen in view.listen}),
        "TrafficIpAddressType": _address_type({False} if view.client_cidr_v6 is None else {False, True}),
    }


def _address_type(versions: set[bool]) -> str:
    """``versions``: whether there is anything of IPv4 (False) and of IPv6 (True)."""
    return "dual-stack" if len(versions) == 2 else "ipv6" if True in versions else "ipv4"


def _shown_method(method: Mapping[str, str], view: EndpointView) -> Answer:
    shown: dict[str, Any] = {"Type": method["type"]}
    if method["type"] == "certificate-authentication":
        shown["MutualAuthentication"] = {"ClientRootCertificateChain": view.client_certificate}
    elif "directory" in method:
        shown["ActiveDirectory"] = {"DirectoryId": method["directory"]}
    elif "saml_provider" in method:
        shown["FederatedAuthentication"] = {
            "SamlProviderArn": _provider_arn(method["saml_provider"]),
            "SelfServiceSamlProviderArn": _provider_arn(method.get("portal_saml_provider")),
        }
    return shown


def _provider_arn(provider: str | None) -> str | None:
    """Those of the file are known by their ids."""
    return provider if provider is None or provider.startswith("arn:") else saml_provider_arn(provider)


def _shown_handler(reference: str) -> Answer:
    if not reference:
        return {"Enabled": False, "Status": {"Code": "applied"}}
    arn = reference if reference.startswith("arn:") else f"arn:aws:lambda:{LOCAL_REGION}:{ACCOUNT}:function:{reference}"
    return {"Enabled": True, "LambdaFunctionArn": arn, "Status": {"Code": "applied"}}


def _handler(options: Parameters) -> str:
    arn = str(options["LambdaFunctionArn"])
    if not arn.startswith("arn:"):
        raise ApiError("InvalidParameterValue", f"ClientConnectOptions: {arn} is no ARN of a Lambda function")
    return arn


def _first_listen(view: EndpointView) -> tuple[str, int]:
    listen = parse_listen(view.listen[0])
    return listen.transport, listen.port


def _settings(parameters: Parameters) -> dict[str, Any]:
    """What is written alike to make an endpoint and to change it. Raises ``ApiError``."""
    settings: dict[str, Any] = {}
    for option, detail in SWITCHED:
        given = parameters.get(option, {})
        if given and "Enabled" not in given:
            raise ApiError("MissingParameter", f"{option}: say whether it is Enabled")
        if given.get("Enabled") and not given.get(detail):
            raise ApiError("MissingParameter", f"{option}: give a {detail}")
    if "Description" in parameters:
        settings["description"] = parameters["Description"]
    if "SplitTunnel" in parameters:
        settings["split_tunnel"] = parameters["SplitTunnel"]
    log = parameters.get("ConnectionLogOptions")
    if log is not None:
        settings["connection_log"] = None
        if log.get("Enabled"):
            settings["connection_log"] = {"group": log["CloudwatchLogGroup"]}
            if log.get("CloudwatchLogStream"):
                settings["connection_log"]["stream"] = log["CloudwatchLogStream"]
    if "SecurityGroupIds" in parameters:
        settings["security_groups"] = parameters["SecurityGroupIds"]
    if "SessionTimeoutHours" in parameters:
        settings["session_timeout_s"] = _session_hours(parameters["SessionTimeoutHours"]) * HOUR_S
    if "DisconnectOnSessionTimeout" in parameters:
        settings["disconnect_on_session_timeout"] = parameters["DisconnectOnSessionTimeout"]
    banner = parameters.get("ClientLoginBannerOptions")
    if banner is not None:
        settings["login_banner"] = banner["BannerText"] if banner.get("Enabled") else ""
    if "SelfServicePortal" in parameters:
        settings["self_service_portal"] = parameters["SelfServicePortal"] == "enabled"
    handler = parameters.get("ClientConnectOptions")
    if handler is not None:
        settings["connect_handler"] = _handler(handler) if handler.get("Enabled") else None
    enforcement = parameters.get("ClientRouteEnforcementOptions", {})
    if "Enforced" in enforcement:
        settings["client_route_enforcement"] = enforcement["Enforced"]
    _refuse_what_is_not_there(parameters)
    return settings


def _refuse_what_is_not_there(parameters: Parameters) -> None:
    """A setting that would not be kept must not be accepted. Those that ask for nothing are."""
    asked = {
        "TransitGatewayConfiguration": parameters.get("TransitGatewayConfiguration"),
        "DevicePostureOptions": any(parameters.get("DevicePostureOptions", {}).values()),
        "ConnectionLogOptions.IncludeAuthorizationPolicyContext": parameters.get("ConnectionLogOptions", {}).get(
            "IncludeAuthorizationPolicyContext"
        ),
    }
    for name, value in asked.items():
        if value:
            raise ApiError("UnsupportedOperation", f"{name}: this gateway does not have that; leave it away")


def _authentication(options: Sequence[Parameters]) -> tuple[str, list[dict[str, Any]]]:
    """The ARN of whom clients' certificates come from, empty if they need none, and the methods."""
    client_certificate = ""
    methods: list[dict[str, Any]] = []
    for option in options:
        kind = option.get("Type", "")
        if any(method["type"] == kind for method in methods):
            raise ApiError("InvalidParameterValue", f"AuthenticationOptions: {kind} is given twice")
        method = {"type": kind}
        match kind:
            case "certificate-authentication":
                client_certificate = _given(option, "MutualAuthentication", "ClientRootCertificateChainArn")
            case "directory-service-authentication":
                method["directory"] = _given(option, "ActiveDirectory", "DirectoryId")
            case "federated-authentication":
                method["saml_provider"] = _given(option, "FederatedAuthentication", "SAMLProviderArn")
                if portal := option["FederatedAuthentication"].get("SelfServiceSAMLProviderArn"):
                    method["portal_saml_provider"] = portal
            case _:
                raise ApiError("MissingParameter", "AuthenticationOptions: each needs a Type")
        methods.append(method)
    if not methods:
        raise ApiError("MissingParameter", "AuthenticationOptions: say how clients log in")
    if len(methods) > 1 and not client_certificate:
        raise ApiError(
            "InvalidParameterCombination", "AuthenticationOptions: only one way for users, beside certificates"
        )
    return client_certificate, methods


def _given(option: Parameters, table: str, name: str) -> str:
    value = option.get(table, {}).get(name)
    if not value:
        raise ApiError("MissingParameter", f"AuthenticationOptions: {table} needs a {name}")
    return str(value)


def _dns_servers(servers: Sequence[str]) -> list[str]:
    if len(servers) > MOST_DNS_SERVERS:
        raise ApiError("InvalidParameterValue", f"DnsServers: an endpoint has at most {MOST_DNS_SERVERS}")
    return list(servers)


def _session_hours(hours: int) -> int:
    if hours not in SESSION_HOURS:
        raise ApiError(
            "InvalidParameterValue", f"SessionTimeoutHours: choose one of {', '.join(map(str, SESSION_HOURS))}"
        )
    return hours


def _port(port: int) -> int:
    if port not in AWS_PORTS:
        raise ApiError("InvalidParameterValue", f"VpnPort: {port} is neither 443 nor 1194")
    return port


# -- revocation lists and profiles --------------------------------------------------------------------------


async def import_crl(call: Call) -> Answer:
    await call.operations.import_crl(call.get("ClientVpnEndpointId"), call.get("CertificateRevocationList"))
    return {"Return": True}


async def export_crl(call: Call) -> Answer:
    pem = await call.operations.export_crl(call.get("ClientVpnEndpointId"))
    return {"CertificateRevocationList": pem, "Status": {"Code": "pending" if pem is None else "active"}}


async def export_configuration(call: Call) -> Answer:
    return {"ClientConfiguration": await call.operations.export_profile(call.get("ClientVpnEndpointId"))}


HANDLERS = {
    "CreateClientVpnEndpoint": create_endpoint,
    "ModifyClientVpnEndpoint": modify_endpoint,
    "DeleteClientVpnEndpoint": delete_endpoint,
    "DescribeClientVpnEndpoints": describe_endpoints,
    "ImportClientVpnClientCertificateRevocationList": import_crl,
    "ExportClientVpnClientCertificateRevocationList": export_crl,
    "ExportClientVpnClientConfiguration": export_configuration,
}
