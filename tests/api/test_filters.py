"""EC2's filters, and what many of them cost others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from helpers.served import wait_until

from cvpnd.api.aws.call import (
    DEFAULT_PAGE,
    FEW_VALUES,
    LONGEST_VALUE,
    MOST_VALUES,
    MOST_VALUES_IN_ALL,
    filtered,
)
from cvpnd.api.aws.errors import ApiError

FACTS = {"name": lambda item: [item]}


def by(*values: str) -> dict[str, Any]:
    return {"Name": "name", "Values": list(values)}


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


async def test_each_filter_has_as_many_values_as_at_ec2() -> None:
    full = by(*numbers(MOST_VALUES))
    in_all = MOST_VALUES_IN_ALL // MOST_VALUES
    assert await filtered(["7", "a"], [full] * in_all, FACTS) == ["7"]
    for too_many in ([by(*numbers(MOST_VALUES + 1))], [full] * in_all + [by("7")]):
        with pytest.raises(ApiError) as refused:
            await filtered(["7"], too_many, FACTS)
        assert refused.value.code == "FilterLimitExceeded"


async def test_a_value_has_as_many_characters_as_a_tag() -> None:
    longest = "v" * LONGEST_VALUE
    assert await filtered([longest], [by(longest)], FACTS) == [longest]
    with pytest.raises(ApiError) as refused:
        await filtered([longest], [by(f"{longest}v")], FACTS)
    assert refused.value.code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("items", "values", "aside"),
    [(1, FEW_VALUES, False), (DEFAULT_PAGE, 1, False), (1, FEW_VALUES + 1, True), (DEFAULT_PAGE + 1, 1, True)],
)
async def test_much_is_looked_through_beside_the_event_loop(items: int, values: int, aside: bool) -> None:
    threads = set()

    def look(item: str) -> list[str]:
        threads.add(threading.current_thread())
        return [item]

    assert await filtered(numbers(items), [by(*numbers(values))], {"name": look}) == numbers(min(items, values))
    assert (threading.main_thread() not in threads) is aside


async def test_however_many_filter_others_find_a_thread() -> None:
    """What logins look up in the store takes turns on asyncio's."""
    go_on, at_once, most = threading.Event(), 0, 0

    def slow(item: str) -> list[str]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        go_on.wait(10)
        at_once -= 1
        return [item]

    filters = [by(*numbers(FEW_VALUES + 1))]
    asking = [asyncio.create_task(filtered(["7"], filters, {"name": slow})) for _ in range(40)]
    assert await wait_until(lambda: at_once > 0, 5)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: True), 2)
    go_on.set()
    assert await asyncio.gather(*asking) == [["7"]] * 40
    assert most == 1
