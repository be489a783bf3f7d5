from ipaddress import IPv4Address, ip_network

from cvpnd.endpoints.gone import association_of, endpoint_of, packed_association, packed_endpoint
from cvpnd.endpoints.model import AssociationView, EndpointView
from cvpnd.store import Store


def test_what_went_is_remembered_for_a_while_at_every_gateway_on_the_store(tmp_path) -> None:
    endpoint = EndpointView(
        endpoint_id="cvpn-endpoint-1",
        name="lab",
        status="deleted",
        client_cidr=ip_network("10.100.0.0/22"),
        client_cidr_v6=ip_network("fd00::/64"),
        listen=("udp://0.0.0.0:443",),
        split_tunnel=True,
        connections=0,
        interface="cvpn0",
        dns_servers=(IPv4Address("10.0.0.2"),),
        authentication=({"type": "certificate-authentication"},),
        connection_log={"group": "g", "stream": "s"},
        created_at=1.5,
        tags={"a": "1"},
        settings={"client_cidr": "10.100.0.0/22", "authentication": [{"type": "certificate-authentication"}]},
    )
    network = AssociationView("cvpn-assoc-1", endpoint.endpoint_id, "subnet-a", "vpc", nat=True, status="disassociated")
    url = f"sqlite:///{tmp_path}/state.db"
    here, there = Store.open(url), Store.open(url)
    here.remember_gone("cvpn-endpoint-1", packed_endpoint(endpoint), 100.0, kept_s=30)
    here.remember_gone("cvpn-assoc-1", packed_association(network), 110.0, kept_s=30)
    packed = there.gone("cvpn-endpoint-1", 90.0), there.gone("cvpn-assoc-1", 90.0)
    assert packed[0] is not None and endpoint_of(packed[0]) == endpoint
    assert packed[1] is not None and association_of(packed[1]) == network
    assert there.gone("cvpn-endpoint-1", 100.5) is None and there.gone("cvpn-endpoint-2", 0.0) is None
    there.remember_gone("cvpn-assoc-2", packed_association(network), 135.0, kept_s=30)
    assert here.gone("cvpn-endpoint-1", 0.0) is None and here.gone("cvpn-assoc-1", 0.0) is not None
    here.close()
    there.close()
