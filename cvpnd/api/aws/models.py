"""botocore's own models of the services, cut down to the operations that there are here.

EC2's model alone has four thousand shapes; what our operations do not reach is forgotten once it has been read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

Protocol = Literal["ec2", "query", "json"]


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    """As it stands in a signature's scope."""
    protocol: Protocol
    version: str
    namespace: str
    """Of its XML."""
    target_prefix: str
    """Before the operation's name in ``X-Amz-Target``; empty where there is none."""
    operations: Mapping[str, OperationModel]


def load_service(loader: Loader, name: str, operations: Iterable[str]) -> Service:
    """Blocks for a while, like any reading of files. Raises ``botocore.exceptions.BotoCoreError``."""
    whole: dict[str, Any] = loader.load_service_model(name, "service-2")
    chosen = {operation: whole["operations"][operation] for operation in operations}
    shapes: dict[str, Any] = {}
    for operation in chosen.values():
        for side in ("input", "output"):
            if side in operation:
                _reach(whole["shapes"], operation[side]["shape"], shapes)
    metadata = whole["metadata"]
    model = ServiceModel(
        {
            "metadata": metadata,
            "operations": {key: {**value, "errors": []} for key, value in chosen.items()},
            "shapes": shapes,
        },
        name,
    )
    return Service(
        name=metadata.get("signingName") or metadata["endpointPrefix"],
        protocol=cast(Protocol, metadata["protocol"]),
        version=metadata["apiVersion"],
        namespace=metadata.get("xmlNamespace", ""),
        target_prefix=metadata.get("targetPrefix", ""),
        operations={operation: model.operation_model(operation) for operation in chosen},
    )


def _reach(shapes: Mapping[str, Any], name: str, found: dict[str, Any]) -> None:
    if name in found:
        return
    shape = found[name] = shapes[name]
    inner = [*shape.get("members", {}).values()] if shape["type"] == "structure" else []
    inner += [shape[key] for key in ("member", "key", "value") if key in shape]
    for each in inner:
        _reach(shapes, each["shape"], found)
