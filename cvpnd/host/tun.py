"""TUN devices: plain IP packets, one queue for each worker of the data plane."""

from __future__ import annotations

import errno
import os
from types import TracebackType

import pytun

from cvpnd.host.errors import NEEDS_CAPABILITY, HostError

MAX_NAME_LENGTH = 15  # IFNAMSIZ less the terminating zero


class Tun:
    """A device that exists for as long as somebody holds one of its queues.

    The originals stay here, so that the device outlives a data plane that is being replaced; ``queues()`` hands out
    duplicates, which belong to whoever asked.
    """

    def __init__(self, name: str, queues: int) -> None:
        if len(name.encode()) > MAX_NAME_LENGTH:
            raise HostError(f"{name}: a device name has at most {MAX_NAME_LENGTH} characters")
        self.name = name
        self._devices: list[pytun.TunTapDevice] = []
        # Only the first may create: without IFF_TUN_EXCL a second daemon would quietly get queues of the first's device
        flags = pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_MULTI_QUEUE
        try:
            for index in range(queues):
                exclusive = pytun.IFF_TUN_EXCL if index == 0 else 0
                device = pytun.TunTapDevice(name=name, flags=flags | exclusive)
                self._devices.append(device)
                os.set_blocking(device.fileno(), False)
                os.set_inheritable(device.fileno(), False)
        except OSError as error:
            self.close()
            raise HostError(f"{name}: {_explain(error)}") from error

    def queues(self) -> list[int]:
        """A duplicate of every queue's descriptor, non-blocking, to be closed by the caller."""
        return [os.dup(device.fileno()) for device in self._devices]

    @property
    def queue_count(self) -> int:
        return len(self._devices)

    def close(self) -> None:
        """Let go of the queues. The device disappears with the last duplicate."""
        for device in self._devices:
            device.close()
        self._devices.clear()

    def __enter__(self) -> Tun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_tun(name: str, queues: int) -> Tun:
    """Create the device. Raises HostError when the name is taken or the right to do so is missing."""
    return Tun(name, queues)


def _explain(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "there is a device of that name already, and it is not ours; stop its owner or rename the endpoint"
    if error.errno in (errno.EPERM, errno.EACCES):
        return NEEDS_CAPABILITY
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "no /dev/net/tun on this host: load the kernel module tun"
    return f"cannot make the TUN device: {error.strerror or error}"
