"""What nobody is to read in a log or find in memory later: passwords, codes, and keys made of them."""

from __future__ import annotations

import hmac
import string
from typing import NoReturn

_BASE64 = {ord(c): n for n, c in enumerate(f"{string.ascii_uppercase}{string.ascii_lowercase}{string.digits}+/")}


class _Wiped(bytearray):
    """Views of it keep it as it is; once there are none, and nobody else has it, nothing is left of it."""

    def __del__(self) -> None:
        self[:] = bytes(len(self))


class Secret:
    """Bytes of its own, overwritten when nobody has it any more, or before by ``wipe``. A library that wants ``bytes``
    or ``str`` gets them at the call, and they are not kept anywhere else. There is no repr of it, nor a pickle."""

    __slots__ = ("_data",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: bytes | bytearray | memoryview = b"") -> None:
        self._data = _Wiped(data)

    @classmethod
    def of_text(cls, text: str) -> Secret:
        """As it came over the wire, whatever bytes those were."""
        return cls(text.encode("utf-8", "surrogateescape"))

    def wipe(self) -> None:
        """It is empty then."""
        self._data[:] = bytes(len(self._data))
        self._data = _Wiped()

    def view(self) -> memoryview:
        """Without a copy; for a call, and not longer."""
        return memoryview(self._data)

    def copy(self) -> Secret:
        return Secret(self._data)

    def text(self) -> str:
        """Where it turns out to be none, as a token, or at a library's door."""
        return self._data.decode("utf-8", "surrogateescape")

    def startswith(self, *prefixes: bytes) -> bool:
        return self._data.startswith(prefixes)

    def partition(self, separator: bytes, start: int = 0) -> tuple[Secret, Secret] | None:
        """What stands before it, from ``start`` on, and behind it; None: it is not there."""
        at = self._data.find(separator, start)
        if at < 0:
            return None
        with self.view() as view:
            return Secret(view[start:at]), Secret(view[at + len(separator) :])

    def from_base64(self) -> Secret | None:
        """None: it is none. ``base64`` would leave a copy of what is in it."""
        digits = self._data.rstrip(b"=")
        padding = len(self._data) - len(digits)
        if len(self._data) % 4 or padding > 2:
            digits[:] = bytes(len(digits))
            return None
        found, bits, count, size = Secret(bytes(len(digits) * 3 // 4)), 0, 0, 0
        for digit in digits:
            if (value := _BASE64.get(digit)) is None:
                size = -1
                break
            bits, count = (bits << 6 | value) & 0xFFFF, count + 6
            if count >= 8:
                count -= 8
                found._data[size] = bits >> count & 0xFF
                size += 1
        digits[:] = bytes(len(digits))
        return found if size >= 0 else None

    def without(self, dropped: bytes) -> Secret:
        """Those bytes, and with ASCII's capital letters in small ones."""
        kept, size = bytearray(len(self._data)), 0
        for byte in self._data:
            if byte not in dropped:
                kept[size] = byte | 0x20 if 0x41 <= byte <= 0x5A else byte
                size += 1
        with memoryview(kept) as view:
            left = Secret(view[:size])
        kept[:] = bytes(len(kept))
        return left

    def __add__(self, other: Secret) -> Secret:
        both = Secret(bytes(len(self) + len(other)))
        both._data[: len(self)], both._data[len(self) :] = self._data, other._data
        return both

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        """In the same time wherever they differ."""
        return hmac.compare_digest(self._data, other._data) if isinstance(other, Secret) else NotImplemented

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")
