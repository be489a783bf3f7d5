"""The data plane: ``api`` is its door, ``native`` the one in C that runs, ``reference`` its plain twin for tests."""

from __future__ import annotations

from cvpnd.dataplane.api import DataPlane


def open_data_plane(workers: int, *, pause_us: int) -> DataPlane:
    """Start the workers, which when busy pause for up to ``pause_us``. Raises ``OSError`` when the kernel refuses what
    they need; the caller closes it."""
    from cvpnd.dataplane.native import NativeDataPlane  # so that types can be imported where nothing is built

    return NativeDataPlane(workers, pause_us=pause_us)
