"""EC2: who is connected."""

from __future__ import annotations

from cvpnd.api.aws.call import Answer, Call, filtered, text_time
from cvpnd.api.aws.errors import ApiError
from cvpnd.endpoints.model import ConnectionView, OperationError


async def describe_connections(call: Call) -> Answer:
    found: list[ConnectionView] = await filtered(
        await call.operations.list_connections(call.get("ClientVpnEndpointId")),
        call.get("Filters", ()),
        {"connection-id": lambda c: [c.connection_id], "username": lambda c: [c.username]},
    )
    page, token = call.page(found)
    shown = [
        {
            "ClientVpnEndpointId": c.endpoint_id,
            "Timestamp": text_time(c.connected_at if c.ended_at is None else c.ended_at),
            "ConnectionId": c.connection_id,
            "Username": c.username or "N/A",
            "ConnectionEstablishedTime": text_time(c.connected_at),
            "IngressBytes": str(c.ingress_bytes),
            "EgressBytes": str(c.egress_bytes),
            "IngressPackets": str(c.ingress_packets),
            "EgressPackets": str(c.egress_packets),
            "ClientIp": c.client_ip,
            "PostureComplianceStatuses": c.posture_compliance_statuses,
            "CommonName": c.common_name,
            "Status": {"Code": c.status, "Message": c.end_reason or None},
            "ConnectionEndTime": "-" if c.ended_at is None else text_time(c.ended_at),
        }
        for c in page
    ]
    return {"Connections": shown, "NextToken": token}


async def terminate_connections(call: Call) -> Answer:
    connection_id, username = call.get("ConnectionId"), call.get("Username")
    if (connection_id is None) == (username is None):
        raise ApiError("InvalidParameterCombination", "Give either ConnectionId or Username")
    endpoint = call.get("ClientVpnEndpointId")
    try:
        ended = await call.operations.terminate_connections(
            connection_id=connection_id, username=username, endpoint=endpoint
        )
    except OperationError as error:
        if error.code == "InvalidConnectionId.NotFound":
            raise OperationError("InvalidClientVpnConnection.IdNotFound", str(error)) from None
        raise
    if not ended:
        raise OperationError("InvalidClientVpnConnection.UserNotFound", f"User {username} has no active connection")
    statuses = [
        {"ConnectionId": each, "PreviousStatus": {"Code": "active"}, "CurrentStatus": {"Code": "terminating"}}
        for each in ended
    ]
    return {"ClientVpnEndpointId": endpoint, "Username": username, "ConnectionStatuses": statuses}


HANDLERS = {
    "DescribeClientVpnConnections": describe_connections,
    "TerminateClientVpnConnections": terminate_connections,
}
