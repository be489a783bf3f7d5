"""`cvpnd init`: from an empty directory to a gateway that can be started.

    DIR/cvpnd.toml      commented, with this host's network as the first target network
    DIR/pki/            a certificate authority, the server's certificate, an empty CRL (see `cvpnd.pki`), and a
                        tls-crypt key, which every client since OpenVPN 2.4 understands
    DIR/client1.ovpn    a ready profile (0600: it holds a private key)

Nothing that exists is ever written again: a second run fills in what is missing and says what it left alone. Outside
/etc/cvpnd the state, the admin socket and the logs are kept in DIR too, so that a trial touches nothing else."""

import ipaddress
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from pyroute2 import IPRoute

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.files import CertificateSettings, TrustError
from cvpnd.config import ConfigError, load
from cvpnd.pki.authority import Authority
from cvpnd.pki.files import PRIVATE_FILE, PUBLIC_FILE, PkiError, write_file
from cvpnd.pki.index import certificates
from cvpnd.pki.issue import check_server_name, issue_client, issue_server
from cvpnd.pki.revocation import ensure_crl
from cvpnd.profile import ProfileError, render_profile
from cvpnd.wire.wrap.key_files import new_static_key, serialise_static_key

SYSTEM_DIRECTORY = Path("/etc/cvpnd")
"""Where the package keeps its configuration; state, socket and logs then lie where systemd puts them."""
UNITS = (Path("/usr/lib/systemd/system/cvpnd.service"), Path("/etc/systemd/system/cvpnd.service"))
"""Of a gateway that is a service: started by hand, it would leave root's files where the service writes."""

FIRST_CLIENT = "client1"
CONTROL_KEY = "tls-crypt.key"

# Ranges that few hosts and homes use, tried in this order until one overlaps with nothing here.
CLIENT_NETWORKS = tuple(
    IPv4Network(text)
    for text in (
        *(f"10.{second}.0.0/22" for second in range(100, 128)),
        *(f"172.{second}.240.0/22" for second in range(31, 15, -1)),
        *(f"192.168.{third}.0/22" for third in range(240, 128, -4)),
        *(f"100.{second}.0.0/22" for second in range(127, 63, -1)),
    )
)

MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` holds 108 with its NUL (unix(7))."""


class BootstrapError(Exception):
    """Why it cannot go on, and what to do; nothing that existed was changed."""


@dataclass
class InitSummary:
    """What was made and what was found. str() is what the command prints."""

    directory: Path
    config: Path
    profile: Path
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"made   {what}" for what in self.made]
        lines += [f"kept   {what}" for what in self.kept]
        lines += [f"note   {what}" for what in self.notes]
        lines += ["", "Start the gateway:", f"  {self._start()}"]
        if self.profile.exists():
            lines += ["Connect from another machine, with this profile:", f"  openvpn --config {self.profile.name}"]
        return "\n".join(lines)

    def _start(self) -> str:
        if self.directory == SYSTEM_DIRECTORY and any(unit.exists() for unit in UNITS):
            return "systemctl enable --now cvpnd"
        return f"cvpnd run --config {self.config}"


def initialise(directory: Path, name: str | None = None) -> InitSummary:
    """Make what is missing in ``directory``. ``name``: what clients connect to; by default this host's own address.

    Raises BootstrapError."""
    directory = directory.absolute()
    summary = InitSummary(directory, directory / "cvpnd.toml", directory / f"{FIRST_CLIENT}.ovpn")
    try:
        network = HostNetwork.read()
        if name is not None:
            check_server_name(name)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _make_pki(directory / "pki", name or network.own_address, summary)
        _make_control_key(summary)
        _make_config(summary, network, name)
        _make_profile(summary, authority)
    except (PkiError, TrustError, ConfigError, ProfileError) as error:
        raise BootstrapError(str(error)) from error
    except OSError as error:
        raise BootstrapError(f"{error.filename or directory}: {error.strerror}") from error
    return summary


# --- certificates -----------------------------------------------------------------------------------------------------


def _make_pki(directory: Path, server_name: str, summary: InitSummary) -> Authority:
    if (directory / "ca.crt").exists():
        authority = Authority.open(directory)
        summary.kept.append(f"{directory}/ca.crt (certificate authority)")
    else:
        authority = Authority.create(directory, f"cvpnd CA of {server_name}"[:64])
        summary.made.append(f"{directory}/ca.crt, ca.key (certificate authority, ECDSA P-256)")
    if (directory / "server.crt").exists():
        summary.kept.append(f"{directory}/server.crt")
    else:
        issue_server(authority, server_name)
        summary.made.append(f"{directory}/server.crt, server.key (for {server_name})")
    if ensure_crl(authority):
        summary.made.append(f"{directory}/crl.pem (nobody is revoked)")
    else:
        summary.kept.append(f"{directory}/crl.pem")
    return authority


def _make_control_key(summary: InitSummary) -> None:
    """For a configuration that is going to name it; somebody's own may have another protection, or none."""
    path = summary.directory / "pki" / CONTROL_KEY
    if path.exists():
        summary.kept.append(str(path))
    elif not summary.config.exists():
        write_file(path, serialise_static_key(new_static_key()), PRIVATE_FILE)
        summary.made.append(f"{path} (packets without this key get no answer)")


def _make_profile(summary: InitSummary, authority: Authority) -> None:
    if summary.profile.exists():
        summary.kept.append(str(summary.profile))
        return
    if any(record.status == "valid" for record in certificates(authority, FIRST_CLIENT)):
        summary.notes.append(
            f"{summary.profile} is gone, and the private key of {FIRST_CLIENT} with it; for another profile run "
            "cvpnctl profile NAME --issue while the gateway runs"
        )
        return
    config = load(summary.config)
    if not config.endpoints:
        summary.notes.append(f"{summary.config} has no endpoint, so there is no profile yet")
        return
    endpoint = config.endpoints[0]
    trust = CertificateTrust.load(CertificateSettings.of_endpoint(endpoint))
    if authority.certificate not in trust.authorities:
        summary.notes.append(
            f"endpoint {endpoint.name} does not trust {authority.directory}/ca.crt: no profile was made"
        )
        return
    issued = issue_client(authority, FIRST_CLIENT)
    text = render_profile(endpoint, trust, FIRST_CLIENT, certificate=issued.certificate, private_key=issued.private_key)
    write_file(summary.profile, text.encode(), PRIVATE_FILE)
    summary.made.append(f"{summary.profile} (the first client's profile: keep it secret)")


# --- this host's networks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostNetwork:
    """What the gateway can be fitted to: where this host's traffic goes, and every range that is taken."""

    interface: str | None
    """Of the default route; without one, the first interface with a network; None without any."""
    address: IPv4Interface | None
    gateway: IPv4Address | None
    taken: tuple[IPv4Network, ...]

    @classmethod
    def read(cls) -> "HostNetwork":
        """Ask the kernel. Changes nothing and needs no privilege."""
        with IPRoute() as netlink:
            names = {link["index"]: str(link.get("ifname")) for link in netlink.get_links()}
            addresses = [
                (names[a["index"]], IPv4Interface(f"{a.get('IFA_LOCAL') or a.get('IFA_ADDRESS')}/{a['prefixlen']}"))
                for a in netlink.get_addr(family=socket.AF_INET)
            ]
            routes = list(netlink.get_routes(family=socket.AF_INET))
        taken = {interface.network for _, interface in addresses}
        defaults: list[tuple[int, str, IPv4Address | None]] = []
        for route in routes:
            destination, length = route.get("dst"), route["dst_len"]
            gateway = route.get("gateway")
            if length > 0 and destination is not None:
                taken.add(ipaddress.IPv4Network(f"{destination}/{length}", strict=False))
            elif length == 0 and route.get("oif") in names:
                hop = IPv4Address(gateway) if gateway is not None else None
                defaults.append((route.get("priority") or 0, names[route.get("oif")], hop))
        return cls._choose(addresses, sorted(defaults, key=lambda default: default[0]), taken)

    @classmethod
    def _choose(
        cls,
        addresses: list[tuple[str, IPv4Interface]],
        defaults: list[tuple[int, str, IPv4Address | None]],
        taken: Iterable[IPv4Network],
    ) -> "HostNetwork":
        # A /31 or /32 is a link to one router, as some clouds give it: nothing lies behind it that a client could want.
        networks = [(n, a) for n, a in addresses if not a.is_loopback and a.network.prefixlen <= 30]
        ranges = tuple(sorted(taken))
        for _, interface, gateway in defaults:
            for name, address in networks:
                if name == interface:
                    inside = gateway if gateway is not None and gateway in address.network else None
                    return cls(name, address, inside, ranges)
        if networks:
            return cls(networks[0][0], networks[0][1], None, ranges)
        return cls(None, None, None, ranges)

    @property
    def own_address(self) -> str:
        """What clients connect to when nobody gave a name."""
        return str(self.address.ip) if self.address is not None else socket.gethostname()

    def free_client_network(self) -> IPv4Network:
        """A /22 that overlaps with nothing this host knows a way to."""
        for candidate in CLIENT_NETWORKS:
            if not any(candidate.overlaps(network) for network in self.taken):
                return candidate
        raise BootstrapError("every private network overlaps with one of this host's routes; write cvpnd.toml by hand")


# --- the configuration ------------------------------------------------------------------------------------------------


def _make_config(summary: InitSummary, network: HostNetwork, name: str | None) -> None:
    if summary.config.exists():
        summary.kept.append(str(summary.config))
        if name is not None:
            summary.notes.append(f"--name {name} was not used for what exists already")
        return
    text = render_config(network, name or network.own_address, own_paths=summary.directory != SYSTEM_DIRECTORY)
    if len(bytes(summary.directory / "admin.sock")) > MAX_SOCKET_PATH_BYTES:
        raise BootstrapError(f"{summary.directory} is too long a path for a socket in it; choose a shorter --dir")
    write_file(summary.config, text.encode(), PUBLIC_FILE)
    if network.address is None:
        summary.made.append(str(summary.config))
        summary.notes.append(
            f"this host has no IPv4 network yet: fill in [[vpc]] and [[subnet]] in {summary.config}, "
            "or clients reach nothing"
        )
    else:
        summary.made.append(f"{summary.config} (target network {network.address.network} on {network.interface})")


def render_config(network: HostNetwork, remote: str, *, own_paths: bool) -> str:
    """The TOML text for a host. ``own_paths``: state, socket and logs beside the file, not below /var and /run."""
    return _CONFIG.format(
        own="" if own_paths else "# ",
        state="sqlite:///state.db" if own_paths else "sqlite:////var/lib/cvpnd/state.db",
        socket="admin.sock" if own_paths else "/run/cvpnd/admin.sock",
        logs="log" if own_paths else "/var/log/cvpnd",
        target=_render_target(network),
        client_cidr=network.free_client_network(),
        remote=json.dumps(remote),
        associate='["subnet-a"]' if network.address is not None else "[]",
        authorize=_render_rules(network),
    )


def _render_target(network: HostNetwork) -> str:
    known = network.address is not None
    cidr = network.address.network if network.address is not None else IPv4Network("10.20.0.0/24")
    lines = [
        "[[vpc]]",
        'id = "vpc-main"',
        f'cidr = ["{cidr}"]',
        "",
        "[[subnet]]",
        'id = "subnet-a"',
        'vpc = "vpc-main"',
        f'cidr = "{cidr}"',
        f"interface = {json.dumps(network.interface or 'eth0')}",
    ]
    if network.gateway is not None:
        lines += ["# The router to whatever lies beyond.", f'gateway = "{network.gateway}"']
    if not known:
        lines = ["# No IPv4 network was found on this host. Correct these lines, take the # away, and then", *lines]
        lines = [line if line.startswith("#") else f"# {line}".rstrip() for line in lines]
    return "\n".join(lines)


def _render_rules(network: HostNetwork) -> str:
    if network.address is None:
        return "[]    # nobody reaches anything until there is a rule"
    return f'[{{ network = "{network.address.network}", all_groups = true, description = "made by cvpnd init" }}]'


_CONFIG = """\
# cvpnd: this gateway's configuration, made by `cvpnd init` for this host. It is yours now: init never writes it again.
# Check it with `cvpnd check --config FILE`; a running gateway takes changes on SIGHUP. Every key there is, with its
# default, is explained in conf/cvpnd.toml. Relative paths are relative to this file.

[daemon]
# Rules and other things that are added while the gateway runs.
{own}state = "{state}"
# cvpnctl --socket PATH finds it.
{own}admin_socket = "{socket}"
# The connection log: one JSON line for every attempt.
{own}log_directory = "{logs}"

# The certificate authority beside this file, so that `cvpnctl certificate issue` and `revoke` can use it.
[pki]
directory = "pki"

# What clients may be let into: a network that this host has a leg in, here that of its default route.
{target}

[[endpoint]]
name = "staff"
# What client profiles connect to: a name or an address.
remote = {remote}
# Add "tcp://0.0.0.0:443" for clients behind firewalls that let nothing else out.
listen = ["udp://0.0.0.0:1194"]
# Clients get their addresses from here. It must overlap with no network that this host or its clients use.
client_cidr = "{client_cidr}"
server_certificate = {{ certificate = "pki/server.crt", private_key = "pki/server.key" }}
authentication = [{{ type = "certificate-authentication", client_ca = "pki/ca.crt", crl = "pki/crl.pem" }}]
# Who does not know this key gets no answer, not even a refusal: scanners see a closed port. Profiles contain it.
control_protection = {{ tls_crypt = {{ key = "pki/tls-crypt.key" }} }}
# Only the target network goes through the tunnel; false: everything does.
split_tunnel = true
# Its clients go out through this subnet, with this host's address as their source.
associate = {associate}
# Who may reach what: the longest matching prefix decides. `group = "…"` instead of all_groups names a group.
authorize = {authorize}
"""
