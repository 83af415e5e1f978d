"""What is done once is not done again, as long as somebody could ask for it."""

from __future__ import annotations

from lloom.core.once import Once


def test_once_is_once_until_its_end() -> None:
    once = Once(10)
    assert once.first(b"a", 100, 0)
    assert not once.first(b"a", 100, 50)
    assert not once.first(b"a", 100, 100)
    assert once.first(b"b", 100, 50)
    assert once.first(b"a", 200, 101)


def test_what_is_remembered_is_never_pushed_out() -> None:
    once = Once(3)
    for number in range(3):
        assert once.first(bytes([number]), 100 + number, 0)
    assert not once.first(b"new", 500, 0)
    assert not once.first(bytes([0]), 100, 99)
    assert once.first(b"new", 500, 101)
    assert len(once) == 3
