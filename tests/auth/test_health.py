"""What is told of servers that fail, and when they are asked again."""

from cvpnd.auth.health import FAILURE_COUNTS_S, LONGEST_BACK_OFF_S, ServerHealth


def test_a_server_that_fails_is_told_as_down_until_it_answers_or_nobody_has_asked_it_for_long() -> None:
    """Also in the moments in which it may be asked again: who watches for minutes would never see it down."""
    now = [1000.0]
    health = ServerHealth(["a", "b"], lambda: now[0])
    assert health.up() == {"a": True, "b": True}
    for _ in range(10):
        back_off_s = health.failed("a")
        assert health.in_order() == ["b"] and health.up() == {"a": False, "b": True}
        now[0] += back_off_s
        assert health.in_order() == ["a", "b"] and health.is_up("a")
        assert health.up() == {"a": False, "b": True}
    assert back_off_s == LONGEST_BACK_OFF_S
    health.succeeded("a")
    assert health.up() == {"a": True, "b": True}
    health.failed("b")
    now[0] += FAILURE_COUNTS_S - 1
    assert not health.up()["b"]
    now[0] += 1
    assert health.up()["b"]


def test_where_all_have_failed_all_are_asked() -> None:
    health = ServerHealth(["a", "b"], lambda: 1000.0)
    for url in ("a", "b"):
        health.failed(url)
    assert health.in_order() == ["a", "b"] and health.up() == {"a": False, "b": False}


def test_one_that_is_silent_is_told_as_down_from_the_second_time_on_if_nobody_was_answered() -> None:
    """A person who is asked on a telephone may not look at it; a server that hangs answers nobody."""
    now = [1000.0]
    health = ServerHealth(["a"], lambda: now[0])

    def silent_for(seconds: float) -> bool:
        """Whether it is up then."""
        asked_at, now[0] = now[0], now[0] + seconds
        health.silent("a", asked_at)
        return health.up()["a"]

    assert silent_for(30) and not health.is_up("a"), "others are asked first for a while"
    health.succeeded("a")
    assert silent_for(30) and not silent_for(30)
    now[0] += FAILURE_COUNTS_S
    assert health.up()["a"] and not silent_for(30)
    health.succeeded("a")
    for _ in range(3):
        asked_at, now[0] = now[0], now[0] + 30
        health.succeeded("a")  # to somebody else, meanwhile
        health.silent("a", asked_at)
        assert health.up()["a"]
    health.failed("a")
    assert not health.up()["a"], "what is no silence is told at once"
    now[0] += FAILURE_COUNTS_S - 1
    assert not silent_for(2), "and the silence after it counts"
