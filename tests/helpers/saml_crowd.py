"""Many of AWS's clients that log in at the same moment, in a namespace of the lab: a program that reports as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from helpers import saml_idp
from helpers.handshake import client_context
from light_client.browser import log_in
from light_client.driver import Plan
from light_client.generations import generation

from cvpnd.wire.packet import Transport


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--remote", required=True, help="HOST:PORT")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--private", required=True, help="the identity provider's key, PEM")
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--characters", type=int, default=0, help="of each response, more or less")
    parser.add_argument("--hold", type=float, default=1.0)
    options = parser.parse_args()
    with open(options.private) as private, open(options.certificate) as certificate:  # noqa: PTH123
        signing = saml_idp.Key(private.read(), certificate.read())
    host, _, port = options.remote.rpartition(":")
    plan = Plan(
        host,
        int(port),
        Transport.TCP if options.tcp else Transport.UDP,
        generation=generation("aws"),
        hold_s=options.hold,
    )
    results = asyncio.run(_crowd(plan, options.count, signing, options.characters))
    json.dump(results, sys.stdout)


async def _crowd(plan: Plan, count: int, signing: saml_idp.Key, characters: int) -> dict[str, object]:
    context = client_context(None)
    begun = time.monotonic()

    async def one(index: int) -> str:
        def browse(url: str) -> str:
            name = f"user{index}@example.com"
            said = {
                "FirstName": ("A",),
                "LastName": ("e" * max(1, (characters - 7000) * 3 // 4),),
                "memberOf": ("eng",),
            }
            return saml_idp.answer(url, name=name, attributes=said, response_key=signing, assertion_key=signing)

        return (await log_in(context, plan, index, browse)).error

    errors = await asyncio.gather(*map(one, range(count)))
    return {"errors": [error for error in errors if error], "seconds": time.monotonic() - begun}


if __name__ == "__main__":
    main()
