"""How far accounts of likelihood are apart: never further than their models are, and nothing follows from nonsense."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import odds
from lloom.core.odds import APART, LIKELIEST, NAME, PLACES, Place

ALPHABET = tuple("abcde")
WEIGHTS = st.lists(st.floats(0.001, 1.0), min_size=len(ALPHABET), max_size=len(ALPHABET))


def token(text: str, probability: float, **more: Any) -> dict[str, Any]:
    return {"token": text, "logprob": math.log(probability), "bytes": list(text.encode())} | more


def entry(said: str = "a", **likely: float) -> dict[str, Any]:
    """One place as OpenAI tells of it."""
    found = likely or {"a": 0.5, "b": 0.25}
    return token(said, found[said], top_logprobs=[token(*each) for each in found.items()])


def shares(weights: list[float]) -> dict[str, float]:
    return {name: weight / sum(weights) for name, weight in zip(ALPHABET, weights, strict=True)}


def listed(whole: dict[str, float], most: int) -> Place:
    """What is told of a distribution: its likeliest, of which the first was said."""
    likely = sorted(whole, key=lambda name: -whole[name])[:most]
    return odds.read([entry(likely[0], **{name: whole[name] for name in likely})])[0]


def test_what_a_server_tells_is_read() -> None:
    (place,) = odds.read([entry("b", a=0.5, b=0.25)])
    assert place.said == b"b"
    assert place.likely == pytest.approx({b"a": 0.5, b"b": 0.25})
    assert place.rest == pytest.approx(0.25)


def test_a_token_is_known_by_its_bytes_or_else_by_its_text() -> None:
    with_bytes = entry("\u2019", **{"\u2019": 0.5})
    without = msgspec.json.decode(msgspec.json.encode(with_bytes))
    del without["bytes"]
    without["top_logprobs"][0]["bytes"] = None
    assert odds.read([with_bytes]) == odds.read([without])
    assert odds.read([with_bytes])[0].said == "\u2019".encode()


def test_one_that_was_said_and_is_not_among_the_likeliest_counts_too() -> None:
    (place,) = odds.read([token("z", 0.01, top_logprobs=[token("a", 0.5), token("b", 0.25)])])
    assert set(place.likely) == {b"z", b"a", b"b"}
    assert place.rest == pytest.approx(0.24)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        "text",
        {"token": "a"},
        {"token": 1, "logprob": -1.0},
        {"token": "a", "logprob": "-1"},
        {"token": "a", "logprob": True},
        {"token": "a", "logprob": 0.5},
        {"token": "a", "logprob": 1e308},
        {"token": "a", "logprob": math.nan},
        {"token": "a", "logprob": math.inf},
        {"token": "a" * 129, "logprob": -1.0},
        {"token": "a", "logprob": -1.0, "bytes": [256]},
        {"token": "a", "logprob": -1.0, "bytes": [0] * 513},
        {"token": "a", "logprob": -1.0, "top_logprobs": [token("b", 0.01)] * 21},
        {"token": "a", "logprob": -0.1, "top_logprobs": [token("b", 0.5)]},
        {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": math.nan}]},
        {"token": "a", "logprob": -1.0, "top_logprobs": {"b": -1.0}},
    ],
)
def test_nonsense_tells_nothing(bad: Any) -> None:
    assert odds.read([entry(), bad, entry()]) == ()
    assert odds.read(bad) == ()


def test_minus_infinity_in_the_words_of_servers_is_a_probability_of_none() -> None:
    (place,) = odds.read([{"token": "a", "logprob": -9999.0, "top_logprobs": [token("b", 0.9)]}])
    assert place.likely[b"a"] == 0


def test_who_is_certain_of_every_word_tells_nothing_and_of_some_does() -> None:
    certain = entry("a", a=1.0)
    assert odds.read([certain] * 8) == ()
    assert len(odds.read([certain] * 7 + [entry()])) == 8


def test_an_account_without_end_is_read_to_its_bound() -> None:
    assert len(odds.read([entry()] * 1000 + ["garbage"])) == PLACES
    (place,) = odds.read([token("said" * 32, 0.1, top_logprobs=[token(f"{n}", 0.01) for n in range(20)])])
    assert len(place.likely) == LIKELIEST + 1
    assert len(place.said) == NAME


def test_places_after_the_one_where_words_part_do_not_count() -> None:
    same, other = [entry("a", a=0.5, b=0.5)] * 3, [entry("c", c=0.9, a=0.05)] * 3
    one = odds.read([*same, entry("a", a=0.5, b=0.5), *other])
    two = odds.read([*same, entry("b", a=0.4, b=0.6), *same])
    assert odds.distance(one, two) == pytest.approx(0.1 / 4)


def test_tokens_that_are_named_otherwise_are_not_taken_for_others() -> None:
    with_blanks = odds.read([entry("a", a=0.5, b=0.4), entry(" a", **{" a": 0.5, " b": 0.4})])
    without = odds.read([entry("a", a=0.5, b=0.4), entry("a", a=0.5, b=0.4)])
    assert odds.distance(with_blanks, without) == 0
    assert odds.distance(with_blanks[1:], without[1:]) is None
    assert not odds.comparable(with_blanks[1:], without[1:])
    assert not odds.alike(with_blanks[1:], without[1:])
    assert odds.comparable(with_blanks, without)
    assert odds.distance((), without) is None
    assert not odds.comparable((), without)


def test_what_is_not_listed_may_be_as_likely_as_it_can_be() -> None:
    one, two = odds.read([entry("a", a=0.4, b=0.3)]), odds.read([entry("a", a=0.4, c=0.3)])
    assert odds.distance(one, two) == pytest.approx(0.0), "each may have found the other's third word as likely"
    far = odds.read([entry("a", a=0.4, c=0.05)])
    assert odds.distance(one, far) == pytest.approx(0.25 / 0.7)


def test_how_many_ways_there_are_to_go_on_does_not_make_models_alike() -> None:
    sure, open_minded = (
        [odds.read([entry("a", a=scale * a, b=scale * b)]) for a, b in ((0.6, 0.4), (0.2, 0.8))] for scale in (1.0, 0.1)
    )
    assert odds.distance(*sure) == pytest.approx(0.4)
    assert odds.distance(*open_minded) == pytest.approx(0.4)


def test_tokens_that_cannot_be_are_no_distance() -> None:
    never = odds.read([{"token": "a", "logprob": -9999.0}])
    assert odds.distance(never, never) == 0


def test_another_model_is_apart_and_another_machine_is_not() -> None:
    one = odds.read([entry("a", a=0.5, b=0.3, c=0.1)] * 16)
    assert odds.alike(one, odds.read([entry("a", a=0.48, b=0.33, c=0.09)] * 16)) is True
    assert odds.alike(one, odds.read([entry("a", a=0.9, d=0.05, e=0.01)] * 16)) is False


@given(WEIGHTS, WEIGHTS, st.integers(1, 5), st.integers(1, 5))
def test_two_are_never_found_further_apart_than_they_are(
    one: list[float], other: list[float], ours: int, theirs: int
) -> None:
    p, q = shares(one), shares(other)
    true = sum(abs(p[name] - q[name]) for name in ALPHABET) / 2
    found = odds._variation(listed(p, ours), listed(q, theirs))
    assert found == pytest.approx(odds._variation(listed(q, theirs), listed(p, ours)))
    assert 0 <= found <= true + 1e-9
    if ours == theirs == len(ALPHABET):
        assert found == pytest.approx(true)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=4)))
def test_whatever_a_stranger_sends_is_read_without_an_error(sent: Any) -> None:
    assert isinstance(odds.read(sent), tuple)
    assert odds.read([{"token": sent, "logprob": sent, "bytes": sent, "top_logprobs": sent}]) in ((), odds.read([]))


def test_numbers_that_waver_a_little_stay_alike() -> None:
    rng = Random(1)
    for _ in range(100):
        weights = [[rng.gauss(0, 2) for _ in ALPHABET] for _ in range(16)]
        one, two = ([_softened(place, rng) for place in weights] for _ in range(2))
        found = odds.distance(tuple(listed(each, 5) for each in one), tuple(listed(each, 5) for each in two))
        assert found is not None
        assert found <= APART / 2


def _softened(logits: list[float], rng: Random) -> dict[str, float]:
    return shares([math.exp(each + rng.gauss(0, 0.1)) for each in logits])
