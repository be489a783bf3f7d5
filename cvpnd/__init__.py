"""cvpnd: a self-hosted Client VPN gateway for OpenVPN clients."""
