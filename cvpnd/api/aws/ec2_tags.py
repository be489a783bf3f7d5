"""EC2: tags of endpoints."""

from __future__ import annotations

from cvpnd.api.aws.call import Answer, Call, filtered, tag_map
from cvpnd.api.aws.ec2 import ENDPOINT_TYPE
from cvpnd.api.aws.errors import ApiError


async def create_tags(call: Call) -> Answer:
    tags = tag_map(call.get("Tags"))
    async with call.operations.together():
        for resource in call.get("Resources"):
            await call.operations.set_tags(_endpoint_id(resource), tags)
    return {}


async def delete_tags(call: Call) -> Answer:
    tags = call.get("Tags")
    if any("Key" not in tag for tag in tags or ()):
        raise ApiError("MissingParameter", "Tags: each needs a Key")
    async with call.operations.together():
        for resource in call.get("Resources"):
            there = (await call.operations.list_tags()).get(resource, {})
            keys = None
            if tags is not None:  # a tag with a value goes only if it has that value
                keys = [tag["Key"] for tag in tags if tag.get("Value") in (None, there.get(tag["Key"]))]
            await call.operations.remove_tags(_endpoint_id(resource), keys)
    return {}


def _endpoint_id(resource: str) -> str:
    """Nothing else is EC2's to tag here."""
    if not resource.startswith("cvpn-endpoint-"):
        raise ApiError("InvalidID", f"The ID '{resource}' is not valid: only Client VPN endpoints are tagged here")
    return resource


async def describe_tags(call: Call) -> Answer:
    rows = [
        (resource, key, value)
        for resource, tags in (await call.operations.list_tags()).items()
        if not resource.startswith("arn:")
        for key, value in tags.items()
    ]
    found = await filtered(
        rows,
        call.get("Filters", ()),
        {
            "resource-id": lambda row: [row[0]],
            "resource-type": lambda _row: [ENDPOINT_TYPE],
            "key": lambda row: [row[1]],
            "value": lambda row: [row[2]],
        },
        lambda row: {row[1]: row[2]},
    )
    page, token = call.page(found)
    shown = [
        {"ResourceId": resource, "ResourceType": ENDPOINT_TYPE, "Key": key, "Value": value}
        for resource, key, value in page
    ]
    return {"Tags": shown, "NextToken": token}


HANDLERS = {
    "CreateTags": create_tags,
    "DeleteTags": delete_tags,
    "DescribeTags": describe_tags,
}
