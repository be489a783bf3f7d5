"""STS: who a key belongs to."""

from __future__ import annotations

from cvpnd.api.aws.call import Answer, Call
from cvpnd.endpoints.arns import ACCOUNT


async def get_caller_identity(call: Call) -> Answer:
    credential = call.credential
    return {
        "UserId": credential.key_id,
        "Account": ACCOUNT,
        "Arn": f"arn:aws:iam::{ACCOUNT}:user/{credential.name or credential.key_id}",
    }


HANDLERS = {"GetCallerIdentity": get_caller_identity}
