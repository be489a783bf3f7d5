from cvpnd.endpoints.gone import MOST, SHOWN_S, Gone


def test_what_went_is_remembered_for_a_while_and_never_by_the_million() -> None:
    now = [100.0]
    gone: Gone[str] = Gone(lambda: now[0])
    gone.add("first", "deleted")
    now[0] += SHOWN_S / 2
    gone.add("second", "deleted")
    assert (gone.get("first"), gone.get("second"), gone.get("third")) == ("deleted", "deleted", None)
    now[0] += SHOWN_S / 2 + 1
    assert (gone.get("first"), gone.get("second")) == (None, "deleted")
    for number in range(MOST + 5):
        gone.add(str(number), "deleted")
    assert (gone.get("second"), gone.get("4"), gone.get("5")) == (None, None, "deleted")
