"""Where the control path's time goes. On ``PYTHONPATH`` it makes ``cvpnd run`` write a table to ``$CONTROL_TIME`` when
it ends: processor time of the event loop's thread for each handshake, each part without the parts inside it.

Reading the clock at both ends of a part costs a microsecond or two, which is in the figures."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import thread_time
from typing import Any


@dataclass
class Part:
    calls: int = 0
    seconds: float = 0.0


parts: dict[str, Part] = {}
_inside: list[float] = []
"""For each part under way, the time of those inside it."""


def measure(owner: Any, name: str, title: str) -> None:
    function: Callable[..., Any] = getattr(owner, name)
    part = parts.setdefault(title, Part())

    def measured(*arguments: Any, **options: Any) -> Any:
        begun = thread_time()
        _inside.append(0.0)
        try:
            return function(*arguments, **options)
        finally:
            took = thread_time() - begun
            part.seconds += took - _inside.pop()
            part.calls += 1
            if _inside:
                _inside[-1] += took

    setattr(owner, name, measured)


def measure_all() -> None:
    from OpenSSL import SSL

    from cvpnd.auth import certificate
    from cvpnd.server import control, doorman, link, listener, login, session_events
    from cvpnd.wire import session, tls

    measure(tls.TlsConnection, "receive", "TLS in OpenSSL, what comes")
    measure(tls.TlsConnection, "send", "TLS in OpenSSL, what goes")
    for name in ("export_keying_material", "__init__"):
        measure(SSL.Connection, name, "other calls of OpenSSL")
    measure(certificate._Verifier, "__call__", "the verdict on the certificate")
    for name in ("receive_packet", "packets_to_send", "next_timeout"):
        measure(session.Session, name, f"Session.{name}")
    measure(link.UdpLink, "send", "sendmsg")
    measure(doorman.Doorman, "fetch", "packets from the doorman")
    measure(listener.UdpListener, "_begin", "the echo of the cookie")
    measure(control.ControlPlane, "begin", "a new session")
    for name in ("identify", "client_facts", "make_grant"):
        measure(login, name, "identity, lease and options")
    measure(control.ControlPlane, "admit", "the peer for the data plane")
    measure(session_events, "install_key", "keys, and the line of the connection log")
    measure(control.ControlPlane, "pump", "ControlPlane: finding, pumping, timers")
    measure(control.ControlPlane, "_control_packets", "ControlPlane: finding, pumping, timers")
    measure(control.ControlPlane, "_timers_due", "ControlPlane: finding, pumping, timers")
    measure(asyncio.Handle, "_run", "login's task and other callbacks")


def report() -> None:
    handshakes = parts["a new session"].calls
    if not handshakes:
        return
    lines = [f"{handshakes} handshakes", f"{'':44}{'calls':>7}{'ms':>9}"]
    for title, part in sorted(parts.items(), key=lambda item: -item[1].seconds):
        lines.append(f"{title:44}{part.calls / handshakes:7.1f}{part.seconds / handshakes * 1e3:9.3f}")
    lines.append(f"{'':44}{'':7}{sum(part.seconds for part in parts.values()) / handshakes * 1e3:9.3f}")
    Path(os.environ["CONTROL_TIME"]).write_text("\n".join(lines) + "\n")


if "CONTROL_TIME" in os.environ and "run" in sys.orig_argv and any("cvpnd" in word for word in sys.orig_argv):
    run = asyncio.Runner.run

    def measured_run(*arguments: Any, **options: Any) -> Any:
        measure_all()
        atexit.register(report)
        return run(*arguments, **options)

    asyncio.Runner.run = measured_run  # type: ignore[method-assign]
