"""Every test here runs on both planes: the C one that serves, and the Python one that is its specification. The C one
speaks bare packets and encrypts by OpenSSL in one run; in another it does what is fastest here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from helpers.plane import Gateway, PlaneMaker, open_descriptors

from cvpnd.dataplane.api import TunOffload
from cvpnd.dataplane.native import NativeDataPlane
from cvpnd.dataplane.reference import ReferenceDataPlane


@pytest.fixture(params=["native", "offload", "reference"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def make_plane(kind: str) -> PlaneMaker:
    """``make_plane(workers, packet_id_limit=…)``; the caller closes it."""
    if kind == "reference":
        return ReferenceDataPlane
    return partial(NativeDataPlane, crypto="auto" if kind == "offload" else "openssl")


@pytest.fixture
def make_gateway(kind: str, make_plane: PlaneMaker) -> Iterator[Callable[..., Gateway]]:
    """A gateway that is closed behind the test, which must leave no descriptor behind."""
    made: list[Gateway] = []
    before = open_descriptors()
    speaks = TunOffload.TCP_UDP if kind == "offload" else TunOffload.PLAIN

    def make(workers: int = 1, host: str = "127.0.0.1", **limits: int) -> Gateway:
        made.append(Gateway(make_plane(workers, **limits), host, speaks))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()
    assert open_descriptors() <= before


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    """One worker, endpoint 1."""
    return make_gateway()
