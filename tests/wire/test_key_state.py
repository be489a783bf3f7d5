"""The three small machines: every pair of state and input."""

from __future__ import annotations

from enum import Enum

import pytest
from helpers.pair import server_context
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.wire.channel import native_channel
from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.key_state import (
    AUTHENTICATION,
    NEGOTIATION,
    SLOT,
    Authentication,
    AuthenticationInput,
    KeyState,
    Negotiation,
    NegotiationInput,
    Slot,
    SlotInput,
)
from cvpnd.wire.tls import TlsConnection
from cvpnd.wire.wrap.session_wrap import SessionWrap


def key_state() -> KeyState:
    channel = native_channel(b"\x01" * 8, b"\x02" * 8, SessionWrap())
    channel.open_key(0, 1000, 0, 2.0)
    return KeyState(0, channel, TlsConnection(server_context(), server=True), 0.0)


@given(state=st.sampled_from(Negotiation), what=st.sampled_from(NegotiationInput))
def test_negotiation_goes_by_the_table_and_else_to_error(state: Negotiation, what: NegotiationInput) -> None:
    key = key_state()
    key.negotiation = state
    if (state, what) in NEGOTIATION:
        key.negotiate(what)
        assert key.negotiation is NEGOTIATION[state, what]
    elif what is NegotiationInput.FAILED:
        key.negotiate(what)
        assert key.negotiation is Negotiation.ERROR
    else:
        with pytest.raises(PeerError) as caught:
            key.negotiate(what)
        assert caught.value.reason is DropReason.OUT_OF_ORDER
        assert caught.value.fatal
        assert key.negotiation is Negotiation.ERROR


@given(state=st.sampled_from(Authentication), what=st.sampled_from(AuthenticationInput))
def test_authentication_goes_by_the_table_and_else_to_error(state: Authentication, what: AuthenticationInput) -> None:
    key = key_state()
    key.authentication = state
    if (state, what) in AUTHENTICATION:
        key.authenticate(what)
        assert key.authentication is AUTHENTICATION[state, what]
    else:
        with pytest.raises(UsageError):
            key.authenticate(what)
        assert key.authentication is Authentication.ERROR


@given(state=st.sampled_from(Slot), what=st.sampled_from(SlotInput))
def test_slot_goes_by_the_table_and_else_to_error(state: Slot, what: SlotInput) -> None:
    key = key_state()
    key.slot = state
    if (state, what) in SLOT:
        key.move(what)
        assert key.slot is SLOT[state, what]
        assert (key.tls is None) == (key.slot is Slot.RETIRED)
    else:
        with pytest.raises(UsageError):
            key.move(what)
        assert key.slot is Slot.ERROR


@pytest.mark.parametrize(
    ("table", "states", "inputs"),
    [
        (NEGOTIATION, Negotiation, NegotiationInput),
        (AUTHENTICATION, Authentication, AuthenticationInput),
        (SLOT, Slot, SlotInput),
    ],
)
def test_nothing_leaves_error_and_every_other_state_is_reached(
    table: dict[tuple[Enum, Enum], Enum], states: type[Enum], inputs: type[Enum]
) -> None:
    assert not any((states["ERROR"], what) in table for what in inputs)
    start = next(iter(states))
    assert {start, *table.values(), states["ERROR"]} == set(states)


def test_only_yes_leads_to_authenticated() -> None:
    assert [pair for pair, state in AUTHENTICATION.items() if state is Authentication.TRUE] == [
        (Authentication.DEFERRED, AuthenticationInput.ACCEPTED)
    ]
