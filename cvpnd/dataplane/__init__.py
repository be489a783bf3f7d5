"""The data plane: ``api`` is its door, ``native`` the one in C that runs, ``reference`` its plain twin for tests."""

from __future__ import annotations

from cvpnd.dataplane.api import DataPlane


def open_data_plane(workers: int, *, crypto: str, pause_us: int, link_offload: bool) -> DataPlane:
    """Start the workers, which encrypt by ``crypto`` ("auto", "openssl" or "ipsec-mb"), pause for up to ``pause_us``
    when busy, and with ``link_offload`` use UDP segments; the caller closes it. Raises ``OSError`` when the kernel
    refuses what they need, ``ValueError`` when that crypto is not to be had."""
    from cvpnd.dataplane.native import NativeDataPlane  # so that types can be imported where nothing is built

    return NativeDataPlane(workers, crypto=crypto, pause_us=pause_us, link_offload=link_offload)
