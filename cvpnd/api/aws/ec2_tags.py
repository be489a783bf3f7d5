"""EC2: tags of endpoints."""

from __future__ import annotations

from cvpnd.api.aws.call import Answer, Call, filtered, tag_map
from cvpnd.api.aws.ec2 import ENDPOINT_TYPE


async def create_tags(call: Call) -> Answer:
    for resource in call.get("Resources"):
        await call.operations.set_tags(resource, tag_map(call.get("Tags")))
    return {}


async def delete_tags(call: Call) -> Answer:
    tags = call.get("Tags")
    for resource in call.get("Resources"):
        there = (await call.operations.list_tags()).get(resource, {})
        keys = None
        if tags is not None:  # a tag with a value goes only if it has that value
            keys = [tag["Key"] for tag in tags if tag.get("Value") in (None, there.get(tag.get("Key", "")))]
        await call.operations.remove_tags(resource, keys)
    return {}


async def describe_tags(call: Call) -> Answer:
    rows = [
        (resource, key, value)
        for resource, tags in (await call.operations.list_tags()).items()
        if not resource.startswith("arn:")
        for key, value in tags.items()
    ]
    found = filtered(
        rows,
        call.get("Filters", ()),
        {
            "resource-id": lambda row: [row[0]],
            "resource-type": lambda _row: [ENDPOINT_TYPE],
            "key": lambda row: [row[1]],
            "value": lambda row: [row[2]],
            "tag:": lambda row: [f"{row[1]}={row[2]}"],
        },
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
