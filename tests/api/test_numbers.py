"""Numbers that clients write: Python reads more than decimal digits, and raises for very many of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from botocore.model import Shape

from cvpnd.api.aws.app import load_services
from cvpnd.api.aws.errors import ApiError
from cvpnd.api.aws.logs import _place_text, _read_place
from cvpnd.api.aws.parse import _from_json, parse_form
from cvpnd.endpoints.model import Place

NONE = ["", "1_0", " 10", "+10", "\u0661\u0660", "\u00b2", "1e1", "10.0", "0x10", "9" * 5000, "-" + "9" * 5000]


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_decimal_number_is_refused(text: str) -> None:
    service = load_services()["ec2"]
    with pytest.raises(ApiError) as refused:
        parse_form(service, service.operations["DescribeVpcs"], {"MaxResults": text})
    assert refused.value.code == "InvalidParameterValue"
    assert parse_form(service, service.operations["DescribeVpcs"], {"MaxResults": "10"}) == {"MaxResults": 10}


@pytest.mark.parametrize("number", [1e300, -1e300, math.inf, math.nan, 10**4000, 253402300800])
def test_a_moment_that_no_calendar_has_is_refused(number: Any) -> None:
    with pytest.raises(ApiError):
        _from_json(Shape("When", {"type": "timestamp"}), number, "When")


@pytest.mark.parametrize("text", [*NONE, "MC8w", "OTkvOTkvL\u00e9", _place_text(Place(-1)), _place_text(Place(10**13))])
def test_a_place_in_a_log_is_read_back_and_nothing_else_is_one(text: str) -> None:
    with pytest.raises(ApiError, match="nextToken"):
        _read_place(text)
    for place in (Place(0), Place(1_700_000_000, "a/b\n\u00e9", 2**40)):
        assert _read_place(_place_text(place)) == place
