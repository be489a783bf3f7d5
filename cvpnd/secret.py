"""What nobody is to read in a log or find in memory later: passwords, codes, and keys made of them."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes of its own, overwritten when nobody has it any more, or before by ``wipe``. A library that wants ``bytes``
    or ``str`` gets them at the call, and they are not kept anywhere else. There is no repr of it, nor a pickle."""

    __slots__ = ("_data",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: bytes | bytearray | memoryview = b"") -> None:
        self._data = bytearray(data)

    @classmethod
    def of_text(cls, text: str) -> Secret:
        """As it came over the wire, whatever bytes those were."""
        return cls(text.encode("utf-8", "surrogateescape"))

    def wipe(self) -> None:
        """It is empty then."""
        self._data[:] = bytes(len(self._data))
        self._data = bytearray()

    def view(self) -> memoryview:
        """Without a copy; for a call, and not longer."""
        return memoryview(self._data)

    def copy(self) -> Secret:
        return Secret(self._data)

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        """In the same time wherever they differ."""
        return hmac.compare_digest(self._data, other._data) if isinstance(other, Secret) else NotImplemented

    def __del__(self) -> None:
        self._data[:] = bytes(len(self._data))

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")
