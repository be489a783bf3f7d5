"""TUN devices: one queue for each worker of the data plane, with segmentation offload where the kernel has it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from enum import Enum
from types import TracebackType

import pytun

from cvpnd.host.errors import NEEDS_CAPABILITY, HostError

MAX_NAME_LENGTH = 15  # IFNAMSIZ less the terminating zero

TUNSETOFFLOAD = 0x400454D0
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
TUN_F_USO4, TUN_F_USO6 = 0x20, 0x40  # Linux 6.2; the headers of Debian 12 are older
"""linux/if_tun.h"""


class Offload(Enum):
    """What the queues speak, from the least to the most."""

    PLAIN = 0
    """Bare IP packets."""
    TCP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
    """A virtio header before each, and TCP packets as super-packets."""
    TCP_UDP = TCP | TUN_F_USO4 | TUN_F_USO6
    """UDP packets too."""


class Tun:
    """A device that exists for as long as somebody holds one of its queues.

    The originals stay here, so that the device outlives a data plane that is being replaced; ``queues()`` hands out
    duplicates, which belong to whoever asked.
    """

    def __init__(self, name: str, queues: int, most: Offload) -> None:
        if len(name.encode()) > MAX_NAME_LENGTH:
            raise HostError(f"{name}: a device name has at most {MAX_NAME_LENGTH} characters")
        self.name = name
        self.offload = Offload.PLAIN
        self._devices: list[pytun.TunTapDevice] = []
        try:
            if most is not Offload.PLAIN:
                self._open(queues, pytun.IFF_VNET_HDR)
                self.offload = self._switch_on(most)
            if self.offload is Offload.PLAIN:
                self.close()
                self._open(queues, 0)
        except OSError as error:
            self.close()
            raise HostError(f"{name}: {_explain(error)}") from error

    def _open(self, queues: int, header: int) -> None:
        # Only the first may create: without IFF_TUN_EXCL a second daemon would quietly get queues of the first's device
        flags = pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_MULTI_QUEUE | header
        for index in range(queues):
            exclusive = pytun.IFF_TUN_EXCL if index == 0 else 0
            device = pytun.TunTapDevice(name=self.name, flags=flags | exclusive)
            self._devices.append(device)
            os.set_blocking(device.fileno(), False)
            os.set_inheritable(device.fileno(), False)

    def _switch_on(self, most: Offload) -> Offload:
        """The most that the kernel agrees to; it holds for the device, whichever queue it is asked through."""
        for offload in (Offload.TCP_UDP, Offload.TCP):
            if offload.value <= most.value:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(self._devices[0].fileno(), TUNSETOFFLOAD, offload.value)
                    return offload
        return Offload.PLAIN

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


def open_tun(name: str, queues: int, most: Offload = Offload.TCP_UDP) -> Tun:
    """Create the device with as much offload as the kernel has, up to ``most``. Raises HostError when the name is taken
    or the right to do so is missing."""
    return Tun(name, queues, most)


def _explain(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "there is a device of that name already, and it is not ours; stop its owner or rename the endpoint"
    if error.errno in (errno.EPERM, errno.EACCES):
        return NEEDS_CAPABILITY
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "no /dev/net/tun on this host: load the kernel module tun"
    return f"cannot make the TUN device: {error.strerror or error}"
