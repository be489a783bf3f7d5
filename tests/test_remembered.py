"""What is remembered of an object is of that object, and ends with its place."""

from cvpnd import remembered as module
from cvpnd.remembered import remembered


def test_equal_objects_are_asked_apart_and_no_more_are_held_than_there_is_room_for(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    asked: list[list[int]] = []

    @remembered
    def total(numbers: list[int]) -> int:
        asked.append(numbers)
        return sum(numbers)

    one, other = [1, 2], [1, 2]
    assert [total(each) for each in (one, other, one)] == [3, 3, 3]
    assert [id(each) for each in asked] == [id(one), id(other)]
    assert [total([number]) for number in range(100)] == list(range(100)), (
        "ids of the dead come again, their sums do not"
    )
    assert total(one) == 3
    assert asked[-1] is one, "it was forgotten meanwhile"
