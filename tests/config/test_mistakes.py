"""Mistakes in the configuration, and what each is told as."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.config_file import SHORTEST, endpoint_with, load_text, problems_of

from cvpnd.config import ConfigError, load

DIRECTORY = """
[[directory]]
id = "corp"
type = "openldap"
bind_dn = "cn=x"
bind_password_file = "x"
user_base = "dc=x"
"""
DIRECT = """
[[directory]]
id = "corp"
servers = ["ldaps://dc1"]
bind = "direct"
user_base = "dc=x"
"""
RADIUS = """
[[radius]]
directory = "local"
servers = ["radius://otp"]
secret_file = "x"
"""
LOCAL_USER = """
[[local_users]]
name = "{}"
password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$2FRIBVaDbl6Lq0xTLtPUHFPYMCjLlM3p2B6dBNcGZ0U"
"""
RADIUS_METHOD = '[{ type = "directory-service-authentication", directory = "local", mfa = "radius" }]'
ID_OF_STAFF = "cvpn-endpoint-1562206543da76412"
SECOND_ENDPOINT = """
[[endpoint]]
name = "guests"
client_cidr = "10.101.0.0/22"
listen = ["udp://0.0.0.0:1195"]
server_certificate = { certificate = "pki/server.crt", private_key = "pki/server.key" }
authentication = [{ type = "certificate-authentication", client_ca = "pki/ca.crt" }]
"""


# -- what cannot be read ------------------------------------------------------------------------------------


def test_a_missing_file_names_the_path_and_the_fix(file: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{file}: does not exist; make one with 'cvpnd init'"):
        load(file)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[daemon]\nworkers = \n", "line 2, column 11: invalid value; correct 'workers ='"),
        ("[[endpoint]\n", "line 1, column 11: expected ']]' at the end of an array declaration; correct '[[endpoint]'"),
        ("a = 1\na = 2\n", "line 2, column 6: cannot overwrite a value; correct 'a = 2'"),
        ("vpc = [1\n", "at the end of the file: unclosed array; correct the last table or value"),
    ],
)
def test_a_syntax_error_names_its_line(file: Path, text: str, problem: str) -> None:
    assert problems_of(file, text) == (problem,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[handler]]\nname = "x"\nurl = "https://:{}@h/x"', "handler[0].url: 'https://:…@h/x' is no URL"),
        ('[[handler]]\nname = "x"\nurl = "https://{}@h/x"', "handler[0].url: 'https://…@h/x' is no URL"),
        ('[[saml_provider]]\nid = "x"\nmetadata = "https://:{}@h/m"', "metadata: 'https://:…@h/m' is no place"),
        ('[[handler]]\nname = "x"\nurl = "https://u:{}@h/x"', "handler[0].url: 'https://u:…@h/x' is no URL"),
        ('[[handler]]\nname = "x"\nurl = "ftp://h/x?k={}"', "handler[0].url: 'ftp://h/x?…' is no URL"),
        ('[[saml_provider]]\nid = "x"\nmetadata = "https://u:{}@h/m"', "metadata: 'https://u:…@h/m' is no place"),
        ('[connection_log]\nsyslog = "udp://u:{}@h:514"', "connection_log.syslog: 'udp://u:…@h:514' is no syslog"),
        ('[metrics]\nlisten = "u:{}@127.0.0.1:1"', "metrics.listen: 'u:…@127.0.0.1:1' names a user"),
        ('[api]\nlisten = "https://u:{}/@/@h"', "api.listen: 'https://u:…@h' is no place"),
        ('[[radius]]\ndirectory = "x"\nservers = ["radius://:{}@h/x"]', "servers[0]: 'radius://:…@h/x' is no RADIUS"),
        ('[api]\ncertificate = """-----BEGIN\n{}"""', "api.certificate: is more than one line"),
        ('secret = {}"', "line 1, column 10: invalid value; correct 'secret = …'"),
        ("[daemon]\nstate = postgresql://u:{}@h/db", "correct 'state = postgresql://u:…@h/db'"),
        ('[daemon]\nstate = "postgres://u:{}@h/db"', "daemon.state: is neither an SQLite file nor"),
    ],
)
def test_no_mistake_makes_a_secret_part_of_what_is_said_of_it(file: Path, text: str, told: str) -> None:
    problems = "\n".join(problems_of(file, text.format("c4nary-s3cret")))
    assert told in problems
    assert "c4nary" not in problems


def test_a_file_in_another_encoding_names_the_line(file: Path) -> None:
    file.write_bytes(b"[daemon]\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="line 2: is not UTF-8"):
        load(file)


# -- what one table gets wrong ------------------------------------------------------------------------------

ENDPOINT_MISTAKES = [
    ({"client_cidr": '"10.0.0.0/8"'}, "client_cidr: 10.0.0.0/8 is larger than /12; choose a prefix from /12 to /22"),
    ({"client_cidr": '"10.100.0.0/23"'}, "client_cidr: 10.100.0.0/23 is smaller than /22; choose a prefix from /12 to"),
    ({"client_cidr": '"10.100.1.0/20"'}, "client_cidr: 10.100.1.0/20 has host bits set; write 10.100.0.0/20"),
    ({"client_cidr": '"fd00::/20"'}, "client_cidr: fd00::/20 is IPv6; write an IPv4 network here"),
    ({"client_cidr": "12"}, "client_cidr: 12 is not text; write a network like 10.20.0.0/16 in quotes"),
    ({"client_cidr": '"10.1.2.3"'}, "client_cidr: 10.1.2.3 has no prefix length; write 10.1.2.3/32"),
    ({"client_cidr": '"10.0.0.0/99"'}, "client_cidr: '10.0.0.0/99' does not appear to be"),
    ({"client_cidr_v6": '"fd00::/48"'}, "client_cidr_v6: fd00::/48: clients accept prefixes from /64 to /124 only"),
    ({"client_cidr_v6": '"fd00::/126"'}, "client_cidr_v6: fd00::/126: clients accept prefixes from /64 to /124 only"),
    ({"client_cidr_v6": '"10.0.0.0/16"'}, "client_cidr_v6: 10.0.0.0/16 is IPv4; write an IPv6 network"),
    ({"client_cidr_v6": '"fd00::/120"'}, "client_cidr_v6: fd00::/120 has fewer addresses than 10.100.0.0/22; choose"),
    ({"listen": "[]"}, "listen: is empty; name at least 1"),
    ({"listen": '"udp://0.0.0.0:1194"'}, "listen: 'udp://0.0.0.0:1194' is not a list; put [ ] around it"),
    ({"listen": '["0.0.0.0:1194"]'}, "listen[0]: '0.0.0.0:1194' begins with neither udp:// nor tcp://"),
    ({"listen": '["udp://vpn.example.com:1194"]'}, "listen[0]: 'vpn.example.com' is not an address of this host"),
    ({"listen": '["udp://0.0.0.0"]'}, "listen[0]: '0.0.0.0' has no port; write udp://0.0.0.0:1194"),
    ({"listen": '["udp://0.0.0.0:0"]'}, "listen[0]: 0 is not a port; choose one from 1 to 65535"),
    ({"listen": '["udp://0.0.0.0:65536"]'}, "listen[0]: '0.0.0.0:65536': Port out of range 0-65535; write udp://"),
    ({"listen": '["udp://:1194"]'}, "listen[0]: ':1194' has no address; write 0.0.0.0 for all of IPv4, [::] for"),
    ({"listen": '["udp://:::1194"]'}, "listen[0]: ':::1194': an IPv6 address needs brackets; write udp://[::]:1194"),
    ({"listen": '["udp://::1:1194"]'}, "listen[0]: '::1:1194': an IPv6 address needs brackets; write udp://[::]:1194"),
    ({"listen": '["udp://[::1:1194"]'}, "listen[0]: '[::1:1194': "),
    ({"listen": '["udp://0.0.0.0:1194/x"]'}, "listen[0]: 'udp://0.0.0.0:1194/x' has something after the port"),
    ({"listen": '["udp://me@0.0.0.0:1194"]'}, "listen[0]: 'me@0.0.0.0:1194' names a user"),
    ({"name": '"a b"'}, "name: 'a b' cannot be a name; use up to 63 letters, digits"),
    ({"id": '"cvpn-endpoint-1"'}, "id: 'cvpn-endpoint-1' is not an endpoint id; write cvpn-endpoint- and 17 hex"),
    ({"remote": '"vpn example"'}, "remote: 'vpn example' is neither a host name nor an IP address"),
    ({"remote": '"300.1.1.1"'}, "remote: '300.1.1.1' is neither a host name nor an IP address"),
    ({"split_tunnel": '"yes"'}, "split_tunnel: 'yes' is neither true nor false; write one of them without quotes"),
    ({"split_tunnel": "1"}, "split_tunnel: 1 is neither true nor false; write one of them without quotes"),
    ({"block_local": '"maybe"'}, 'block_local: "maybe" is not a choice; write "auto", "always" or "never"'),
    ({"block_local": '"always"'}, 'block_local: "always" needs a full tunnel; set split_tunnel = false'),
    ({"dns_servers": '["ns1"]'}, "dns_servers[0]: 'ns1' is not an IP address; write one like 10.20.0.2"),
    ({"dns_servers": '["fe80::1%eth0"]'}, "dns_servers[0]: fe80::1%eth0 has a zone; leave %eth0 away"),
    ({"dns_servers": '["9.9.9.9"]'}, "dns_servers[0]: no route of endpoint staff leads to 9.9.9.9; choose one in"),
    ({"dns_servers": '["10.20.0.2", "10.20.0.2"]'}, "dns_servers[1]: 10.20.0.2 is named twice; keep one"),
    ({"dns_domains": '["example.com"]'}, "dns_domains: domains without a resolver for them; add dns_servers"),
    ({"dns_domains": '["a,b"]'}, "dns_domains[0]: 'a,b' is not a domain name; write one like corp.example.com"),
    ({"dns_domains": '["a b"]'}, "dns_domains[0]: 'a b' is not a domain name"),
    ({"dns_domains": '["a\\"b"]'}, "dns_domains[0]: 'a\"b' is not a domain name"),
    ({"dns_domains": '["a\\n"]'}, "dns_domains[0]: 'a\\n' is not a domain name"),
    ({"dns_domains": f"{['d' + str(n) for n in range(11)]}"}, "dns_domains: has 11 entries; keep at most 10"),
    ({"data_ciphers": '["BF-CBC"]'}, "data_ciphers: 'BF-CBC' is not a data cipher known here; choose from AES-256"),
    ({"data_ciphers": '["AES-256-GCM", "AES-256-GCM"]'}, "data_ciphers: names a cipher twice; keep one of each"),
    (
        {"data_ciphers": '["AES-256-GCM", "AES-256-CBC"]'},
        "data_ciphers: AES-256-CBC is for old clients only; leave it away, or move it to legacy_cbc_ciphers",
    ),
    (
        {"legacy_cbc_ciphers": '["BF-CBC"]'},
        "legacy_cbc_ciphers: 'BF-CBC' is not a CBC cipher known here; choose from AES-256-CBC, AES-1",
    ),
    ({"legacy_cbc_ciphers": '["AES-256-GCM"]'}, "legacy_cbc_ciphers: 'AES-256-GCM' is not a CBC cipher known here"),
    ({"legacy_cbc_ciphers": '["AES-128-CBC", "AES-128-CBC"]'}, "legacy_cbc_ciphers: names a cipher twice; keep one"),
    ({"legacy_cbc_ciphers": "true"}, "legacy_cbc_ciphers: true is not a list; put [ ] around it"),
    (
        {"legacy_cbc_ciphers": '["AES-128-CBC"]', "path_mtu": "1400", "client_cidr_v6": '"fd00::/64"'},
        "path_mtu: 1400 leaves less than the 1280 bytes that IPv6 needs inside the tunnel; choose at least 1436",
    ),
    ({"renegotiate_s": "3"}, "renegotiate_s: 3 leaves no time for a handshake; choose at least 5, or 0 for never"),
    ({"ping_s": "0"}, "ping_s: 0 is too small; choose at least 1"),
    ({"ping_s": "true"}, "ping_s: true is not a whole number; write one without quotes"),
    ({"ping_s": "40"}, ": ping_restart_s 60 gives up after less than two pings; choose at least 80 (twice ping_s)"),
    ({"path_mtu": "1200"}, "path_mtu: 1200 is too small; choose at least 1280"),
    ({"path_mtu": "9000"}, "path_mtu: 9000 is too large; choose at most 1500"),
    ({"path_mtu": "1300", "client_cidr_v6": '"fd00::/64"'}, "path_mtu: 1300 leaves less than the 1280 bytes that IPv6"),
    ({"tls": '{ minimum_version = "1.1" }'}, 'tls.minimum_version: "1.1" is not a choice; write "1.2" or "1.3"'),
    (
        {"tls": '{ minimum_version = "1.3", maximum_version = "1.2" }'},
        "tls: maximum_version 1.2 is below minimum_version 1.3; swap them",
    ),
    ({"tls": "3"}, "tls: 3 is not a table; write { key = value, … }"),
    ({"limits": "{ sessions = 0 }"}, "limits.sessions: 0 is too small; choose at least 1"),
    ({"authentication": "[]"}, "authentication: is empty; name at least 1"),
    (
        {"authentication": '[{ type = "certificate-authentication" }]'},
        'authentication[0]: "certificate-authentication" needs client_ca; add client_ca = … '
        "(conf/cvpnd.toml explains it)",
    ),
    (
        {"authentication": '[{ type = "directory-service-authentication", directory = "local", client_ca = "x" }]'},
        'authentication[0]: "directory-service-authentication" has no client_ca; leave it away',
    ),
    (
        {"authentication": '[{ type = "directory-service-authentication", directory = "lokal" }]'},
        'authentication[0].directory: "lokal" is no directory; did you mean "local"?',
    ),
    (
        {
            "authentication": '[{ type = "directory-service-authentication", directory = "local", '
            "username_is_common_name = true }]"
        },
        'authentication: username_is_common_name needs a "certificate-authentication" beside it; add that',
    ),
    (
        {"authentication": '[{ type = "federated-authentication", saml_provider = "corp" }]'},
        'authentication[0].saml_provider: "corp" is no saml_provider; there is none yet, declare it',
    ),
    (
        {
            "authentication": '[{ type = "directory-service-authentication", directory = "local" }, '
            '{ type = "federated-authentication", saml_provider = "corp" }]'
        },
        "authentication: asks for a user twice; keep one method beside the certificate",
    ),
    ({"associate": '["subnet-b"]'}, 'associate[0]: "subnet-b" is no subnet; did you mean "subnet-a"?'),
    ({"associate": '["zzz"]'}, 'associate[0]: "zzz" is no subnet; known are subnet-a'),
    ({"associate": '["subnet-a", { subnet = "subnet-a", nat = false }]'}, 'associate[1]: "subnet-a" is associ'),
    ({"associate": '[{ subnet = "subnet-a", nta = false }]'}, 'associate[0].nta: is not a key; did you mean "nat"?'),
    ({"associate": "[7]"}, "associate[0]: 7 is not a table; write { key = value, … }"),
    ({"split_tunel": "true"}, 'split_tunel: is not a key; did you mean "split_tunnel"?'),
    ({"authorize": '[{ network = "10.20.0.0/16" }]'}, 'authorize[0]: names nobody; add group = "…", or all_gro'),
    (
        {"authorize": '[{ network = "10.20.0.0/16", group = "a", all_groups = true }]'},
        "authorize[0]: names a group and all_groups; keep one of them",
    ),
    ({"authorize": '[{ network = "10.20.0.1/16", group = "a" }]'}, "authorize[0].network: 10.20.0.1/16 has host bits"),
    ({"authorize": '[{ network = "fd00::1/64", group = "a" }]'}, "fd00::1/64 has host bits set; write fd00::/64"),
    ({"authorize": '[{ network = "10.0.0.0/8", group = " " }]'}, "authorize[0].group: an empty name is no group; name"),
    ({"authorize": '[{ network = "10.0.0.0/8", group = "a\\u0007" }]'}, "authorize[0].group: 'a\\x07' has control"),
    (
        {"authorize": '[{ network = "10.0.0.0/8", group = "a" }, { network = "10.0.0.0/8", group = "a" }]'},
        'authorize[1]: 10.0.0.0/8 for group "a" is already endpoint[0].authorize[0]; keep one',
    ),
    (
        {"route": '[{ destination = "10.9.0.0/16", target = "subnet-b" }]'},
        'route[0].target: "subnet-b" is no associated subnet; did you mean "subnet-a"?',
    ),
    (
        {"route": '[{ destination = "10.9.0.0/16", target = "local" }]'},
        'route[0].destination: 10.9.0.0/16 is not among the clients; "local" leads to 10.100.0.0/22',
    ),
    (
        {"associate": "[]", "route": '[{ destination = "10.9.0.0/16", target = "subnet-a" }]'},
        'route[0].target: "subnet-a" is not associated; add it to endpoint[0].associate',
    ),
    (
        {"route": '[{ destination = "10.9.0.0/16", target = "subnet-a" }, '
         '{ destination = "10.9.0.0/16", target = "subnet-a" }]'},
        "route[1].destination: 10.9.0.0/16 is already endpoint[0].route[0]; keep one",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "problem"), ENDPOINT_MISTAKES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_mistake_in_an_endpoint_is_told_with_its_key_path_and_the_fix(
    file: Path, keys: dict[str, str], problem: str
) -> None:
    told = problems_of(file, endpoint_with(**keys))
    assert len(told) == 1, told
    assert told[0].startswith("endpoint[0]")
    assert problem in told[0]
    assert re.search(r"[;?]", told[0]), "has a fix"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[daemon]\nlog_levl = "info"', 'daemon.log_levl: is not a key; did you mean "log_level"?'),
        ('[daemon]\nworkers = "many"', """daemon.workers: 'many' is no number of workers; write "auto" or a number"""),
        ("[daemon]\nworkers = true", "daemon.workers: True is no number of workers"),
        ("[daemon]\nworkers = 0", "daemon.workers: 0 is no number of workers"),
        ('[daemon]\nstate = "mysql://x"', "daemon.state: is neither an SQLite file nor a PostgreSQL database; write"),
        (
            '[api]\nlisten = "http://192.0.2.1:8443"',
            "plain http only on loopback; write https://192.0.2.1:8443, or http://127.0.0.1:8443",
        ),
        ('[api]\ncertificate = "api.crt"', "api: certificate and private_key belong together; add the other"),
        ('[api]\nlisten = "127.0.0.1:8443"', "api.listen: '127.0.0.1:8443' is no place for an API"),
        ('[portal]\nlisten = "0.0.0.0:8443"', "portal: listens and has no url; add url"),
        ('[portal]\nurl = "http://vpn.example.com"', "portal.url: 'http://vpn.example.com' is no place that a"),
        ('[portal]\nurl = "https://vpn.example.com/sso"', "portal.url: 'https://vpn.example.com/sso' has something"),
        ('[portal]\nurl = "https://a@vpn.example.com"', "portal.url: 'https://…@vpn.example.com' is no place that"),
        ('[portal]\nlisten = "vpn.example.com:443"', "portal.listen: 'vpn.example.com' is not an address of this host"),
        (
            LOCAL_USER.format("Anna") + LOCAL_USER.format("anna"),
            'local_users[1].name: "anna" is local_users[0].name in another spelling; choose another',
        ),
        (LOCAL_USER.format("anna") * 2, 'local_users[1].name: "anna" is already local_users[0].name; choose another'),
        ("[quotas]\nrules = -1", "quotas.rules: -1 is too small"),
        (DIRECTORY + 'servers = ["http://dc1"]', "directory[0].servers[0]: 'http://dc1' is no directory server"),
        (
            DIRECTORY + 'servers = ["dc1.example.com"]',
            "write ldaps://dc1.example.com, or ldap://dc1.example.com, which",
        ),
        (DIRECTORY + 'servers = ["ldaps://dc1"]\nverify = false', "directory[0].verify: is not a key"),
        (
            DIRECTORY + 'servers = ["ldaps://dc1"]\nuser_attribute = "x=*)(uid"',
            "directory[0].user_attribute: 'x=*)(uid' is no",
        ),
        (DIRECTORY.replace("corp", "local") + 'servers = ["ldaps://dc1"]', "choose another id"),
        (DIRECTORY + 'servers = ["ldaps://dc1"]\nbind = "direct"', '"direct" has no bind_dn, as users bind themselves'),
        (DIRECTORY + 'servers = ["ldaps://dc1"]\nbind_name = "{user}"', 'bind_name is for bind = "direct"'),
        (DIRECT + 'type = "active-directory"', "does not know what users bind as; add domains"),
        (DIRECT + 'type = "openldap"\nbind_name = "{user}@x"', 'is no DN; write one like "uid={user},dc=x"'),
        (DIRECT + 'type = "openldap"\nbind_name = "uid=user"', "has to contain {user} once"),
        (DIRECT.replace('bind = "direct"', 'type = "openldap"'), 'bind = "service" needs bind_dn; add bind_dn'),
        (RADIUS.replace('"local"', '"lokal"'), 'radius[0].directory: "lokal" is no directory; did you mean "local"?'),
        (RADIUS + RADIUS, 'radius[1].directory: "local" is already radius[0].directory; choose another'),
        (RADIUS.replace("radius://", "https://"), "radius[0].servers[0]: 'https://otp' is no RADIUS server; write"),
        (RADIUS + "attempts = 0", "radius[0].attempts: 0 is too small"),
        ('[daemon]\nadmin_socket = ""', "daemon.admin_socket: '' is not a path; write one in quotes"),
        ('[metrics]\nlisten = "9176"', "metrics.listen: '9176' is not an address of this host"),
        ("metrics = 3", "metrics: 3 is not a table; write { key = value, … }"),
        ('path = "x"', "path: is not a key"),
        ("[endpoint]\nname = 'x'", "endpoint: is a single table; write [[endpoint]]"),
        ("[[endpont]]\nname = 'x'", 'endpont: is not a key; did you mean "endpoint"?'),
        ('[[vpc]]\nid = "a"\ncidr = []', "vpc[0].cidr: is empty; name at least 1"),
        ('[[vpc]]\ncidr = ["10.0.0.0/8"]', "vpc[0].id: is missing; add id = … (conf/cvpnd.toml explains it)"),
    ],
)
def test_a_mistake_outside_endpoints_is_told_likewise(file: Path, text: str, problem: str) -> None:
    told = problems_of(file, text)
    assert len(told) == 1, told
    assert problem in told[0]


def test_every_problem_is_listed_one_a_line_with_the_file_in_front(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(file, endpoint_with(client_cidr='"10.0.0.0/8"', ping_s="0", nmae="1"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{file}: endpoint[0].") for line in lines)


# -- what several tables get wrong together -----------------------------------------------------------------

SUBNET_B = """
[[subnet]]
id = "subnet-b"
vpc = "vpc-main"
cidr = "10.20.1.0/24"
interface = "eth2"
"""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            endpoint_with(client_cidr='"10.20.0.0/22"'),
            "endpoint[0].client_cidr: 10.20.0.0/22 overlaps 10.20.0.0/16 of vpc vpc-main; choose a network used no",
        ),
        (
            endpoint_with(client_cidr='"10.16.0.0/12"'),
            "endpoint[0].client_cidr: 10.16.0.0/12 overlaps 10.20.0.0/16 of vpc vpc-main",
        ),
        (
            endpoint_with(route='[{ destination = "10.100.0.0/16", target = "subnet-a" }]'),
            "endpoint[0].client_cidr: 10.100.0.0/22 overlaps 10.100.0.0/16 of a route of endpoint staff",
        ),
        (
            SHORTEST.replace('["10.20.0.0/16"]', '["10.20.0.0/16", "fd00::/48"]') + 'client_cidr_v6 = "fd00::/64"\n',
            "endpoint[0].client_cidr_v6: fd00::/64 overlaps fd00::/48 of vpc vpc-main",
        ),
        (
            SHORTEST + SECOND_ENDPOINT.replace("10.101.", "10.100."),
            "endpoint[1].client_cidr: 10.100.0.0/22 of endpoint guests overlaps 10.100.0.0/22 of endpoint staff",
        ),
        (
            SHORTEST + SECOND_ENDPOINT.replace('"guests"', '"staff"'),
            'endpoint[1].name: "staff" is already endpoint[0].name; choose another',
        ),
        (
            SHORTEST + SECOND_ENDPOINT.replace('"guests"', f'"{ID_OF_STAFF}"'),
            f'endpoint[1].name: "{ID_OF_STAFF}" is the id of endpoint[0]; choose another',
        ),
        (
            SHORTEST + SECOND_ENDPOINT.replace('"udp://0.0.0.0:1195"', '"tcp://0.0.0.0:443"'),
            "endpoint[1].listen[0]: tcp://0.0.0.0:443 is already endpoint[0].listen[1]; choose another address or port",
        ),
        (
            endpoint_with(listen='["udp://[::]:1194", "udp://[0::0]:1194"]'),
            "endpoint[0].listen[1]: udp://[::]:1194 is already endpoint[0].listen[0]",
        ),
        (
            '[metrics]\nlisten = "0.0.0.0:443"\n' + SHORTEST,
            "metrics.listen: 0.0.0.0:443 is already endpoint[0].listen[1]; choose another port",
        ),
        (
            SHORTEST + SUBNET_B.replace("subnet-b", "subnet-a"),
            'subnet[1].id: "subnet-a" is already subnet[0].id; choose another',
        ),
        (SHORTEST + SUBNET_B.replace("vpc-main", "vpc-mian"), 'subnet[1].vpc: "vpc-mian" is no vpc; did you mean "vpc'),
        (
            SHORTEST + SUBNET_B.replace("10.20.1", "10.21.1"),
            "subnet[1].cidr: 10.21.1.0/24 is outside vpc vpc-main (10.20.0.0/16); correct it or add it to the vpc's",
        ),
        (SHORTEST + SUBNET_B + 'cidr_v6 = "fd00::/64"', "subnet[1].cidr_v6: fd00::/64 is outside vpc vpc-main"),
        (SHORTEST + SUBNET_B + 'gateway = "10.20.2.1"', "subnet[1].gateway: 10.20.2.1 is outside 10.20.1.0/24; name"),
        (SHORTEST + SUBNET_B + 'gateway_v6 = "fe80::1"', "subnet[1].gateway_v6: the subnet has no IPv6; add cidr_v6"),
        (SHORTEST + SUBNET_B.replace("subnet-b", "local"), 'subnet[1].id: "local" is the route target for client-to'),
        (
            endpoint_with(authentication=RADIUS_METHOD),
            'endpoint[0].authentication[0].mfa: "radius" without RADIUS servers; add [[radius]] with directory = "l',
        ),
        (SHORTEST + SUBNET_B.replace("eth2", "eth 2"), "subnet[1].interface: 'eth 2' is not an interface name;"),
    ],
)  # fmt: skip
def test_tables_that_contradict_each_other_are_both_named(file: Path, text: str, problem: str) -> None:
    told = problems_of(file, text)
    assert len(told) == 1, told
    assert told[0].startswith(problem)


# -- the wrapping of the control channel --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("{ plain = false }", ": lets nobody in; add tls_crypt"),
        ('{ tls_crypt = { key = "k" }, plain = true }', ": tls_crypt and plain = true exclude each other"),
        ('{ tls_crypt = { key = "k" }, tls_auth = { key = "k" } }', ": tls_auth and tls_crypt exclude each other"),
        ('{ tls_auth = { key = "k", direction = 2 } }', ".tls_auth.direction: 2 is not a choice; write 0, 1 or"),
        ('{ tls_auth = { key = "k", digest = "MD5" } }', '.tls_auth.digest: "MD5" is not a choice; write'),
        ("{ tls_auth = {} }", ".tls_auth.key: is missing"),
        (
            '{ tls_crypt_v2 = { key = "k", server_key = "k" } }',
            ".tls_crypt_v2.key: is not a key; known are allow",
        ),
        ('{ tls_crypt_v2 = { server_key = "k", max_age_days = -1 } }', ".tls_crypt_v2.max_age_days: -1 is too small"),
    ],
)
def test_wrappings_that_cannot_be_are_refused(file: Path, table: str, problem: str) -> None:
    told = problems_of(file, endpoint_with(control_protection=table))
    assert told[0].startswith(f"endpoint[0].control_protection{problem}")
