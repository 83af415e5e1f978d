"""What is done once is not done again, as long as somebody could ask for it."""

from __future__ import annotations

from lloom.core.once import Once


def test_a_name_is_used_until_its_end() -> None:
    once = Once(10)
    assert once.used(b"a", 0) is None
    once.use(b"a", b"one", 100)
    assert once.used(b"a", 50) == once.used(b"a", 100) == b"one"
    assert once.used(b"b", 50) is None
    assert once.used(b"a", 101) is None
    assert len(once) == 0


def test_what_is_remembered_is_never_pushed_out() -> None:
    once = Once(3)
    for number in range(3):
        assert not once.full
        once.use(bytes([number]), b"", 100 + number)
    assert once.full
    assert once.used(bytes([0]), 100) == b""
    assert once.used(b"new", 101) is None
    assert not once.full


def test_what_was_forgotten_can_be_used_anew_until_an_end_of_its_own() -> None:
    once = Once(10)
    once.use(b"a", b"one", 100)
    once.forget(b"a")
    assert once.used(b"a", 0) is None
    once.use(b"a", b"two", 200)
    assert once.used(b"a", 150) == b"two"
    assert once.used(b"a", 201) is None


def test_who_uses_and_forgets_again_and_again_finds_no_more_room_than_others() -> None:
    once = Once(3)
    for _ in range(3):
        once.use(b"a", b"", 100)
        once.forget(b"a")
    assert once.full
    once.used(b"a", 101)
    assert not once.full
