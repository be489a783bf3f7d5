"""The percent-encoding that responses come in, from strangers too and in the event loop.

Half a microsecond for each escape sequence is nothing for base64, in which ``+``, ``/``, ``=`` and line ends need one.
But 256 kB of nothing else held up all clients of the VPN for 40 ms, and of broken ones for 110."""

from __future__ import annotations

import re

from cvpnd.auth.saml.model import MAX_RESPONSE_CHARACTERS

MOST_ESCAPES = MAX_RESPONSE_CHARACTERS // 8
"""Line ends of two characters make one of 38 of base64; an XML file of nothing but ``>`` one of four of it."""
_BROKEN = re.compile("%(?![0-9A-Fa-f]{2})")


def is_dear(quoted: str) -> bool:
    """To take apart, as nothing is that a browser or a client has written."""
    return quoted.count("%") > MOST_ESCAPES or _BROKEN.search(quoted) is not None
