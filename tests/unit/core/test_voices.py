"""What peers say of us is believed when subnets agree, and a liar alone changes nothing."""

from __future__ import annotations

from lloom.core.voices import WINDOW, Voices


def test_the_host_that_two_subnets_name_is_ours() -> None:
    voices = Voices(skew=120)
    voices.hear_host("a", "198.51.100.1", near=False)
    assert voices.observed is None
    voices.hear_host("a", "198.51.100.1", near=False)
    assert voices.observed is None, "one subnet has one voice"
    voices.hear_host("b", "198.51.100.1", near=False)
    assert voices.observed == "198.51.100.1"


def test_one_neighbour_is_enough() -> None:
    voices = Voices(skew=120)
    voices.hear_host("a", "192.168.1.2", near=True)
    assert voices.observed == "192.168.1.2"


def test_a_liar_does_not_change_our_host_and_a_move_does() -> None:
    voices = Voices(skew=120)
    for subnet in "abc":
        voices.hear_host(subnet, "198.51.100.1", near=False)
    voices.hear_host("liar", "203.0.113.1", near=False)
    assert voices.observed == "198.51.100.1"
    for subnet in "abc":
        voices.hear_host(subnet, "198.51.100.9", near=False)
    assert voices.observed == "198.51.100.9"


def test_our_clock_is_off_when_most_say_so_and_two_agree() -> None:
    voices = Voices(skew=120)
    voices.hear_clock("a", 300.0)
    assert voices.clock_offset is None
    voices.hear_clock("a", 301.0)
    assert voices.clock_offset is None, "one subnet has one voice"
    voices.hear_clock("b", 302.0)
    assert voices.clock_offset == 301.5


def test_it_is_not_off_where_they_disagree_or_where_it_serves() -> None:
    voices = Voices(skew=120)
    voices.hear_clock("a", 300.0)
    voices.hear_clock("b", 900.0)
    assert voices.clock_offset is None
    voices = Voices(skew=120)
    for subnet in "abc":
        voices.hear_clock(subnet, -119.0)
    assert voices.clock_offset is None


def test_liars_are_outvoted_and_a_clock_set_right_is_right_again() -> None:
    voices = Voices(skew=120)
    for subnet in "abc":
        voices.hear_clock(subnet, 0.1)
    voices.hear_clock("liar", -5000.0)
    voices.hear_clock("other liar", -5000.0)
    assert voices.clock_offset is None
    voices = Voices(skew=120)
    for subnet in "abc":
        voices.hear_clock(subnet, -500.0)
    assert voices.clock_offset == -500.0
    voices.hear_clock("a", 0.0)
    voices.hear_clock("b", 0.0)
    assert voices.clock_offset is None


def test_the_voices_are_bounded_and_the_newest_count() -> None:
    voices = Voices(skew=120)
    for number in range(10 * WINDOW):
        voices.hear_clock(f"old {number}", 300.0)
        voices.hear_host(f"old {number}", "198.51.100.1", near=False)
    for number in range(WINDOW):
        voices.hear_clock(f"new {number}", 0.0)
        voices.hear_host(f"new {number}", "198.51.100.2", near=False)
    assert voices.clock_offset is None
    assert voices.observed == "198.51.100.2"
