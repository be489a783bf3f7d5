"""The same bytes through every way a packet can take: ``--megabytes`` each way, compared by SHA-256.

Every level of offload, every backend of packet crypto, two ciphers (``--cipher`` for others), both IP versions in the
tunnel, the devices behind the gateway with offloads of their own and without, over UDP (``--transport tcp`` for the
other). Needs root and the stock client; a gigabyte each takes hours. ``--sanitized SITE`` runs the gateway on a module
with AddressSanitizer and UBSan that is installed below SITE.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from pathlib import Path

from e2e.conftest import Site
from helpers.lab import OTHER_LEG, TARGET_LEG, Lab

OFFLOADS = ("auto", "tcp", "off")
BACKENDS = ("ipsec-mb", "openssl")
CIPHERS = ("AES-256-GCM", "CHACHA20-POLY1305")
MORE_CIPHERS = ("AES-128-GCM", "AES-192-GCM", "AES-256-CBC", "AES-128-CBC")
DEVICES = ("on", "off")
DEVICE_FEATURES = ("rx", "tx", "tso", "gso", "gro", "tx-udp-segmentation")
MEGABYTE = 1 << 20
SECONDS_PER_MEGABYTE = 2
"""Before a transfer is given up: a hundredth of what is usual."""


def sanitizers(site: Path) -> dict[str, str]:
    """The environment of a gateway whose module is sanitized; it ends at the first finding."""
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan", "libubsan")
    ]
    return {
        "PYTHONPATH": str(site.resolve()),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def transfer(site: Site, ciphers: tuple[str, ...], length: int, transport: str) -> str:
    """What a client with these ciphers moved, in words. LabError when it arrived changed, or not at all."""
    old = ("--cipher", ciphers[0], "--auth", "SHA256", "--disable-dco") if ciphers[0].endswith("CBC") else ()
    site.connect(None, "--data-ciphers", ":".join(ciphers), *old, transport=transport)
    done = []
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        patience = 60 + length / MEGABYTE * SECONDS_PER_MEGABYTE
        down = site.lab.download(site.lab.client, host, length, patience)
        up = site.lab.upload(site.lab.client, host, length, patience)
        done.append(f"{8 * length / up / 1e6:4.0f} up {8 * length / down / 1e6:4.0f} down")
    return f"Mbit/s IPv4 {done[0]}, IPv6 {done[1]}"


def run(offload: str, backend: str, cipher: str, devices: str, options: argparse.Namespace) -> str:
    with Lab() as lab:
        site = Site(lab)
        for leg in (TARGET_LEG, OTHER_LEG):
            lab.gateway.run("ethtool", "-K", leg.interface, *(w for f in DEVICE_FEATURES for w in (f, devices)))
        environment = sanitizers(options.sanitized) if options.sanitized else {}
        more = f'{"legacy_cbc_ciphers" if cipher.endswith("CBC") else "data_ciphers"} = ["{cipher}"]'
        daemon = f'packet_crypto = "{backend}"'
        toml = site.toml(more, ipv6=True, packet_offload=offload, daemon=daemon, ping_s=10, ping_restart_s=60)
        gateway = lab.gateway_process(toml, **environment)
        lab.start_servers()
        speed = transfer(site, (cipher,), options.megabytes * MEGABYTE, options.transport)
        gateway.stop()
        return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--transport", choices=("udp", "tcp"), default="udp")
    parser.add_argument("--offload", choices=OFFLOADS, nargs="+", default=OFFLOADS)
    parser.add_argument("--backend", choices=("auto", *BACKENDS), nargs="+", default=BACKENDS)
    parser.add_argument("--cipher", choices=(*CIPHERS, *MORE_CIPHERS), nargs="+", default=CIPHERS)
    parser.add_argument("--devices", choices=DEVICES, nargs="+", default=DEVICES)
    parser.add_argument("--sanitized", type=Path, metavar="SITE")
    options = parser.parse_args()
    ways = list(itertools.product(options.offload, options.backend, options.cipher, options.devices))
    for number, way in enumerate(ways, 1):
        started = time.monotonic()
        offload, backend, cipher, devices = way
        print(
            f"{number}/{len(ways)}  offload {offload}, {backend}, {cipher}, devices' own {devices}: ",
            end="",
            flush=True,
        )
        speed = run(*way, options)
        print(f"unchanged, {time.monotonic() - started:.0f} s, {speed}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
