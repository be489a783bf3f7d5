"""CloudWatch Logs: log groups, their streams, and the connection log's lines in them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from cvpnd.api.aws.call import Answer, Call, starred
from cvpnd.api.aws.errors import ApiError
from cvpnd.endpoints.arns import ACCOUNT
from cvpnd.endpoints.logs import MOST_EVENTS
from cvpnd.endpoints.model import LogEvent, Place
from cvpnd.ops.log_streams import Line

MOST_CHARACTERS = 1024 * 1024
"""Of the events in one answer."""
_PLACE = re.compile(r"([0-9]{1,12})/([0-9]{1,18})/(.*)", re.DOTALL)
CLASS = "STANDARD"
"""The only class of log groups that there is."""


async def create_log_group(call: Call) -> Answer:
    _refuse_what_is_not_there(call, kmsKeyId=None, tags=None, deletionProtectionEnabled=False, logGroupClass=CLASS)
    await call.operations.create_log_group(call.get("logGroupName"))
    return {}


async def create_log_stream(call: Call) -> Answer:
    await call.operations.create_log_stream(call.get("logGroupName"), call.get("logStreamName"))
    return {}


async def describe_log_groups(call: Call) -> Answer:
    prefix, pattern = call.get("logGroupNamePrefix", ""), call.get("logGroupNamePattern", "")
    if prefix and pattern:
        raise ApiError("InvalidParameterException", "give a prefix or a pattern, not both")
    named = call.get("logGroupIdentifiers")
    names = None if named is None else {_name_of(identifier) for identifier in named}
    groups = [
        group
        for group in await call.operations.list_log_groups()
        if group.name.startswith(prefix)
        and pattern.lower() in group.name.lower()
        and (names is None or group.name in names)
        and call.get("logGroupClass", CLASS) == CLASS
        and ACCOUNT in call.get("accountIdentifiers", [ACCOUNT])
    ]
    page, token = call.page(groups, size="limit", next_page="nextToken", default=50)
    shown = [
        {
            "logGroupName": group.name,
            "creationTime": _ms(group.created_at),
            "arn": f"{_group_arn(call, group.name)}:*",
            "logGroupArn": _group_arn(call, group.name),
            "metricFilterCount": 0,
            "storedBytes": 0,
            "logGroupClass": CLASS,
        }
        for group in page
    ]
    return {"logGroups": shown, "nextToken": token}


async def describe_log_streams(call: Call) -> Answer:
    group = await call.operations.show_log_group(_group(call))
    prefix, by_time = call.get("logStreamNamePrefix", ""), call.get("orderBy") == "LastEventTime"
    if prefix and by_time:
        raise ApiError("InvalidParameterException", "a logStreamNamePrefix goes with orderBy LogStreamName")
    last = await call.operations.last_log_events(group.name)
    streams = [stream for stream in group.streams if stream.name.startswith(prefix)]
    streams.sort(key=lambda stream: (last.get(stream.name, 0.0) if by_time else 0.0, stream.name))
    if call.get("descending"):
        streams.reverse()
    page, token = call.page(streams, size="limit", next_page="nextToken", default=50)
    shown = [
        {
            "logStreamName": stream.name,
            "creationTime": _ms(stream.created_at),
            "lastEventTimestamp": _ms(last[stream.name]) if stream.name in last else None,
            "lastIngestionTime": _ms(last[stream.name]) if stream.name in last else None,
            "arn": f"{_group_arn(call, group.name)}:log-stream:{stream.name}",
            "storedBytes": 0,
        }
        for stream in page
    ]
    return {"logStreams": shown, "nextToken": token}


async def filter_log_events(call: Call) -> Answer:
    _refuse_what_is_not_there(call, startFromHead=True)
    group, prefix = _group(call), call.get("logStreamNamePrefix")
    names = call.get("logStreamNames")
    if names is not None and prefix is not None:
        raise ApiError("InvalidParameterException", "give stream names or a prefix, not both")
    if prefix is not None:
        known = (await call.operations.show_log_group(group)).streams
        names = [stream.name for stream in known if stream.name.startswith(prefix)]
    page = await call.operations.log_events(
        group,
        names,
        accept=_accept(call, _pattern(call.get("filterPattern", ""))),
        since=_read_place(token) if (token := call.get("nextToken")) is not None else None,
        most=call.get("limit", MOST_EVENTS),
        most_characters=MOST_CHARACTERS,
    )
    shown = [
        {**_event(event), "logStreamName": event.stream, "eventId": f"{event.stream}:{event.number}"}
        for event in page.events
    ]
    return {
        "events": shown,
        "searchedLogStreams": [],
        "nextToken": _place_text(_behind(page.events[-1].place())) if page.more else None,
    }


async def get_log_events(call: Call) -> Answer:
    """The tokens say a place: forward is from there on, backward before it. It is one in the stream; the time that
    tokens of older releases say besides, which a clock that is set back repeats, counts for nothing."""
    stream, token = call.get("logStreamName"), call.get("nextToken")
    direction, place = (token[:2], _read_place(token[2:])._replace(second=0)) if token else ("", None)
    if token and direction not in ("f/", "b/"):
        raise _no_token()
    forward = direction == "f/" or (not token and bool(call.get("startFromHead")))
    page = await call.operations.log_events(
        _group(call),
        [stream],
        accept=_accept(call),
        since=place if forward else None,
        before=None if forward else place,
        newest=not forward,
        as_written=True,
        most=call.get("limit", MOST_EVENTS),
        most_characters=MOST_CHARACTERS,
    )
    nowhere = place or Place(0)
    first, behind = nowhere, nowhere
    if page.events:
        first, behind = (event.place(as_written=True) for event in (page.events[0], page.events[-1]))
        behind = _behind(behind)
    return {
        "events": [_event(event) for event in page.events],
        "nextForwardToken": f"f/{_place_text(behind)}",
        "nextBackwardToken": f"b/{_place_text(first)}",
    }


def _behind(place: Place) -> Place:
    return place._replace(number=place.number + 1)


def _place_text(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.second}/{place.number}/{place.stream}".encode()).decode()


def _read_place(token: str) -> Place:
    """Raises ``ApiError``."""
    try:
        found = _PLACE.fullmatch(base64.urlsafe_b64decode(token.encode()).decode())
    except ValueError:
        found = None
    if found is None:
        raise _no_token()
    return Place(int(found[1]), found[3], int(found[2]))


def _no_token() -> ApiError:
    return ApiError("InvalidParameterException", "the nextToken is not one of this operation's")


def _group(call: Call) -> str:
    name = call.get("logGroupName")
    identifier = call.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise ApiError("InvalidParameterException", "give either logGroupName or logGroupIdentifier")
    return str(name) if identifier is None else _name_of(identifier)


def _name_of(identifier: str) -> str:
    """Of a log group that is given by its name or its ARN."""
    return identifier.partition(":log-group:")[2].removesuffix(":*") if identifier.startswith("arn:") else identifier


def _refuse_what_is_not_there(call: Call, **there: object) -> None:
    """``there``: what these parameters may say."""
    for name, value in there.items():
        if call.get(name, value) != value:
            raise ApiError("InvalidParameterException", f"{name}: this gateway does not have that; leave it away")


def _group_arn(call: Call, name: str) -> str:
    return f"arn:aws:logs:{call.region}:{ACCOUNT}:log-group:{name}"


def _event(event: LogEvent) -> dict[str, Any]:
    return {"timestamp": _ms(event.timestamp), "ingestionTime": _ms(event.timestamp), "message": event.message}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _accept(call: Call, fits: Callable[[str], bool] = lambda _text: True) -> Callable[[Line], bool]:
    start, end = call.get("startTime", 0), call.get("endTime")

    def accept(line: Line) -> bool:
        at = _ms(line.timestamp)
        return at >= start and (end is None or at < end) and fits(line.text)

    return accept


# -- filter patterns ----------------------------------------------------------------------------------------

_TERM = re.compile(r'\s*(?:([?-]?)"((?:[^"\\]|\\.)*)"|([?-]?)([^\s"{}]+))')
_SELECTOR = re.compile(r'\{\s*\$\.(?:"([^"]+)"|([\w-]+))\s*(=|!=)\s*(?:"([^"]*)"|([^\s"}]+))\s*\}')


def _pattern(text: str) -> Callable[[str], bool]:
    """Terms (all must be there, ``?`` any of them, ``-`` none), or ``{ $.key = "value*" }``. Raises ``ApiError``."""
    text = text.strip()
    if not text:
        return lambda _line: True
    if text.startswith("{"):
        return _selector(text)
    needed: list[str] = []
    optional: list[str] = []
    excluded: list[str] = []
    position = 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            raise ApiError("InvalidParameterException", "the filter pattern cannot be understood")
        sign, term = found[1] or found[3] or "", found[2] if found[2] is not None else found[4]
        {"": needed, "?": optional, "-": excluded}[sign].append(term.replace('\\"', '"'))
        position = found.end()
    return lambda line: (
        all(term in line for term in needed)
        and (not optional or any(term in line for term in optional))
        and not any(term in line for term in excluded)
    )


def _selector(text: str) -> Callable[[str], bool]:
    found = _SELECTOR.fullmatch(text)
    if found is None:
        raise ApiError(
            "InvalidParameterException", 'the filter pattern can be { $.key = "value" } and no more than that'
        )
    key, wanted = found[1] or found[2], found[4] if found[4] is not None else found[5]
    expected = starred([re.escape(part) for part in wanted.split("*")])
    equal = found[3] == "="

    def fits(line: str) -> bool:
        try:
            value = json.loads(line).get(key)
        except (ValueError, AttributeError):
            return False
        return value is not None and bool(expected.fullmatch(str(value))) == equal

    return fits


HANDLERS = {
    "CreateLogGroup": create_log_group,
    "CreateLogStream": create_log_stream,
    "DescribeLogGroups": describe_log_groups,
    "DescribeLogStreams": describe_log_streams,
    "FilterLogEvents": filter_log_events,
    "GetLogEvents": get_log_events,
}
