"""What a handler is given, and what several handlers need: pages, filters, tags, ARNs."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from cvpnd.api.aws.errors import ApiError
from cvpnd.endpoints.access import Credential
from cvpnd.endpoints.service import Operations

T = TypeVar("T")
Answer = Mapping[str, Any]
DEFAULT_PAGE = 1000
MOST_VALUES = 200
"""Of each filter, as at EC2."""
MOST_VALUES_IN_ALL = 1000
"""Of all filters of a request."""
LONGEST_VALUE = 255
FEW_VALUES = 8
"""That are compiled in the event loop, where each may take half a millisecond."""
_thread = ThreadPoolExecutor(1, thread_name_prefix="filters")
"""For more: all that looks into the store, logins too, takes turns on the few threads that asyncio has. There is none
before it has work, and it ends with the interpreter."""


@dataclass(frozen=True, slots=True)
class Call:
    """One verified request."""

    action: str
    region: str
    parameters: Mapping[str, Any]
    credential: Credential
    operations: Operations

    def get(self, name: str, default: Any = None) -> Any:
        return self.parameters.get(name, default)

    def page(
        self,
        items: Sequence[T],
        *,
        size: str = "MaxResults",
        next_page: str = "NextToken",
        default: int = DEFAULT_PAGE,
    ) -> tuple[Sequence[T], str | None]:
        """A page of the items, and the token of the next one. Raises ``ApiError``."""
        start, wanted = self._start(self.get(next_page)), self.get(size, default)
        if wanted < 1:  # where the model has no bounds of its own
            raise ApiError("InvalidParameterValue", f"Value ({wanted}) for parameter {size} is invalid")
        end = start + wanted
        return items[start:end], self._token(end) if end < len(items) else None

    def _token(self, start: int) -> str:
        return base64.urlsafe_b64encode(f"{self.action}:{start}".encode()).decode()

    def _start(self, token: str | None) -> int:
        if token is None:
            return 0
        try:
            action, _, start = base64.urlsafe_b64decode(token).decode("ascii").partition(":")
            if action == self.action and start.isdecimal():
                return int(start)
        except (ValueError, binascii.Error):
            pass
        raise ApiError("InvalidNextToken", "The token is not one of this operation's")


Handler = Callable[[Call], Awaitable[Answer]]


async def filtered(
    items: Sequence[T],
    filters: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Callable[[T], Sequence[str]]],
    tags: Callable[[T], Mapping[str, str]] | None = None,
) -> list[T]:
    """EC2's filters: all of them must fit, each by one of its values. ``facts``: what an item has under a filter's
    name; ``tags``: what it has under ``tag:KEY`` and, its keys, under ``tag-key``. Raises ``ApiError``."""
    values = [value for each in filters for value in each.get("Values", [])]
    if any(len(each.get("Values", [])) > MOST_VALUES for each in filters):
        raise ApiError("FilterLimitExceeded", f"A filter has at most {MOST_VALUES} values")
    if len(values) > MOST_VALUES_IN_ALL:
        raise ApiError("FilterLimitExceeded", f"The filters of a request have at most {MOST_VALUES_IN_ALL} values")
    if any(len(value) > LONGEST_VALUE for value in values):
        raise ApiError("InvalidParameterValue", f"A filter's value has at most {LONGEST_VALUE} characters")
    looks: list[tuple[Callable[[T], Sequence[str]], Sequence[str]]] = []
    for each in filters:
        look = facts.get(each.get("Name", ""))
        if look is None and tags is not None:
            look = _tag_look(each.get("Name", ""), tags)
        if look is None:
            raise ApiError("InvalidParameterValue", f"The filter '{each.get('Name', '')}' is invalid")
        looks.append((look, each.get("Values", [])))
    if looks and (len(values) > FEW_VALUES or len(items) > DEFAULT_PAGE):
        return await asyncio.get_running_loop().run_in_executor(_thread, _fitting_all, items, looks)
    return _fitting_all(items, looks)


def _fitting_all(items: Sequence[T], looks: Sequence[tuple[Callable[[T], Sequence[str]], Sequence[str]]]) -> list[T]:
    found = list(items)
    for look, values in looks:
        fitting = [_fitting(value) for value in values]
        found = [item for item in found if any(fits(text) for text in look(item) for fits in fitting)]
    return found


def _tag_look(name: str, tags: Callable[[T], Mapping[str, str]]) -> Callable[[T], Sequence[str]] | None:
    if name == "tag-key":
        return lambda item: list(tags(item))
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return lambda item: [value] if (value := tags(item).get(key)) is not None else []
    return None


def _fitting(pattern: str) -> Callable[[str], object]:
    """``*`` is any text, ``?`` any character; behind a backslash each is itself."""
    parts = [""]
    for found in re.findall(r"\\.|.", pattern, re.DOTALL):
        if found == "*":
            parts.append("")
        else:
            parts[-1] += "." if found == "?" else re.escape(found[-1])
    return starred(parts).fullmatch


def starred(parts: Sequence[str]) -> re.Pattern[str]:
    """Regular expressions with any text between them."""
    first, *rest = parts
    # what is found first between two stars stays: looking for another place as well would cost a power of the text
    between = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{between}.*{rest[-1]}" if rest else first, re.DOTALL)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_map(tags: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    """Lengths are the operation's to check. Raises ``ApiError``."""
    found: dict[str, str] = {}
    for tag in tags or ():
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not key or key.startswith("aws:"):
            raise ApiError("InvalidParameterValue", f"Tag key {key[:40]!r} is invalid")
        if key in found:
            raise ApiError("InvalidParameterValue", f"Tag key {key} is given twice")
        found[key] = value
    return found


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def text_time(seconds: float) -> str:
    """As EC2 writes times into text."""
    return moment(seconds).strftime("%Y-%m-%dT%H:%M:%S")
