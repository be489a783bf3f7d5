"""What a stranger may type as a user name and password to make a directory server answer oddly."""

from __future__ import annotations

import random

SPECIAL = "#+,;<>=\\*()/\"'@{}%&|!~^-_. $\u00df\u0130\ufb03\uff41\u00e9\u0301\ufffd\u4e2d\U0001f600"
NAMES = [
    "#", "+", ",", ";", "=", "\\", "@", "@@", "*", "(", '"', "/", "a@", "@example.org", "a@b@c", "\\a", "a\\",
    "a\\b\\c",
    "=,=", "dc=org", "cn=x+uid=y", "uid=alice", "uid=alice,ou=people,dc=example,dc=org", "cn=alice,dc=lab,dc=test",
    "cn=a,dc=b@c", "<SID=S-1-5-32-544>", "<GUID=0>@x", "S-1-5-32-544", "lab.test/Users/alice", "{user}", "%s", "\\2a",
    "\\00", "#04024869", "a" * 64, "@" * 64, "\\" * 64, "=" * 64, "\U0001f600" * 64, "\u0301", "\ufffd" * 64,
    "\u0130" * 64,
]  # fmt: skip
PASSWORDS = [b"wrong", b"\xff\xfe", b"\x01", b"x" * 65_535, "\u0130".encode() * 100]


def names(count: int) -> list[str]:
    """Those above, and others by chance, the same each time. All of them pass for names."""
    dice = random.Random(6)
    drawn = ["".join(dice.choices(SPECIAL + "abAB01", k=dice.randint(1, 64))).strip() for _ in range(count)]
    return [*NAMES, *filter(None, drawn)]
