from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint
from lloom.core.reputation.evidence import Kind
from lloom.core.routing.breaker import State
from lloom.core.routing.outcomes import MAX_PLACES, TRIAL, Failure, Outcomes

HERE = (NodeId(bytes(20)), Endpoint("127.0.0.1", 1), "m")
THERE = (NodeId(b"\x01" * 20), Endpoint("127.0.0.1", 2), "m")


def outcomes() -> Outcomes:
    return Outcomes(memory=100.0, rest=5.0)


def test_a_hundred_good_answers_beat_a_lucky_one() -> None:
    book = outcomes()
    book.succeeded(HERE, 0.0, 1, 0.0)
    for _ in range(100):
        book.succeeded(THERE, 0.0, 1, 0.0)
    assert book.standing(HERE, 0.0).success < 0.5 < 0.95 < book.standing(THERE, 0.0).success < 1


def test_old_outcomes_fade() -> None:
    book = outcomes()
    book.failed(HERE, 0.0, how=Failure.SILENT, retry_after=None)
    assert book.standing(HERE, 0.0).hope < book.standing(HERE, 100.0).hope < book.standing(HERE, 1000.0).hope < 0.5


def test_every_further_failure_doubles_the_rest_until_a_success_ends_it() -> None:
    book = outcomes()
    now, rests = 0.0, []
    for _ in range(3):
        book.failed(HERE, now, how=Failure.SILENT, retry_after=None)
        rests.append(book.rests(HERE, now))
        now += rests[-1]
    assert rests == [5.0, 10.0, 20.0]
    book.succeeded(HERE, now, 1, 0.0)
    assert book.rests(HERE, now) == 0
    assert book.state(HERE, now) is State.CLOSED


def test_many_requests_that_fail_of_one_thing_are_one_failure() -> None:
    book = outcomes()
    for _ in range(20):
        book.failed(HERE, 1.0, how=Failure.SILENT, retry_after=None)
    assert book.rests(HERE, 1.0) == 5.0


def test_the_rest_has_a_longest_length() -> None:
    book = outcomes()
    for number in range(1000):
        book.failed(HERE, 1000.0 * number, how=Failure.SILENT, retry_after=None)
    assert book.rests(HERE, 999_000.0) == 5.0 * 64


def test_an_executor_may_say_how_long_it_wants_to_rest() -> None:
    book = outcomes()
    book.failed(HERE, 10.0, how=Failure.REFUSED, retry_after=1.5)
    assert book.rests(HERE, 10.0) == 1.5
    assert book.state(HERE, 10.0) is State.BUSY


def test_a_rest_ends_by_itself() -> None:
    book = outcomes()
    book.failed(HERE, 0.0, how=Failure.SILENT, retry_after=None)
    assert book.state(HERE, 4.9) is State.OPEN
    assert book.state(HERE, 5.0) is State.HALF_OPEN


def test_one_worker_failing_says_nothing_of_the_other() -> None:
    book = outcomes()
    book.failed(HERE, 0.0, how=Failure.SILENT, retry_after=None)
    assert (book.rests(THERE, 0.0), book.standing(THERE, 0.0).hope) == (0.0, 0.5)


def test_the_time_to_the_first_token_follows_the_newest() -> None:
    book = outcomes()
    assert book.standing(HERE, 0.0).first_token is None
    book.answered(HERE, 1.0, 0.0)
    book.answered(HERE, 3.0, 0.0)
    assert book.standing(HERE, 0.0).first_token == 2.0
    book.answered(HERE, 9.0, 100_000.0)
    assert book.standing(HERE, 100_000.0).first_token == 9.0


def test_what_was_never_seen_of_a_worker_is_taken_from_its_executors_others() -> None:
    book, other = outcomes(), (HERE[0], Endpoint("127.0.0.1", 3), "m")
    book.answered(HERE, 1.0, 0.0)
    book.succeeded(HERE, 0.0, 11, 2.0)
    unseen = book.standing(other, 0.0)
    assert (unseen.first_token, unseen.rate) == (1.0, 5.0)
    book.answered(other, 3.0, 0.0)
    assert (book.standing(other, 0.0).first_token, book.standing(other, 0.0).rate) == (3.0, 5.0)
    third = (HERE[0], Endpoint("127.0.0.1", 4), "m")
    book.succeeded(third, 0.0, 21, 2.0)
    assert (book.standing(third, 0.0).first_token, book.standing(third, 0.0).rate) == (2.0, 10.0)


def test_who_is_known_says_nothing_of_newcomers() -> None:
    book = outcomes()
    for _ in range(int(TRIAL)):
        book.succeeded(HERE, 0.0, 1, 0.0)
    told = book.newcomers(0.0)
    for _ in range(20):
        book.failed(HERE, 0.0, how=Failure.SILENT, retry_after=None)
    assert book.newcomers(0.0) == told
    book.failed(THERE, 0.0, how=Failure.SILENT, retry_after=None)
    assert book.newcomers(0.0) < told


@given(st.lists(st.booleans(), max_size=50))
def test_the_load_is_what_began_and_has_not_ended(begins: list[bool]) -> None:
    book = outcomes()
    expected = 0
    for begin in begins:
        if begin:
            book.began(HERE)
            expected += 1
        elif expected:
            book.ended(HERE)
            expected -= 1
    assert book.load(HERE) == expected


def test_an_answer_is_evidence_of_a_kept_price_when_it_begins_and_of_its_speed_when_it_ends() -> None:
    book = outcomes()
    book.answered(HERE, 1.0, 0.0)
    known = book.reputations.evidence(HERE[0], 0.0)
    assert (known.right[Kind.PRICE], known.right[Kind.ANSWER], known.waited, known.waits) == (1.0, 0.0, 1.0, 1.0)
    book.succeeded(HERE, 0.0, 9, 2.0)
    known = book.reputations.evidence(HERE[0], 0.0)
    assert (known.right[Kind.PRICE], known.right[Kind.ANSWER], known.tokens, known.seconds) == (1.0, 1.0, 8.0, 2.0)
    book.succeeded(HERE, 0.0, 7, 2.0)
    known = book.reputations.evidence(HERE[0], 0.0)
    assert (known.right[Kind.ANSWER], known.tokens, known.seconds) == (2.0, 8.0, 2.0), "seven tokens tell no rate"
    assert book.reputations.noted == {(Kind.PRICE, True): 1, (Kind.ANSWER, True): 2}
    assert book.length("m") == pytest.approx(8.0, rel=0.01)


def test_whether_tokens_were_overstated_is_evidence_about_the_executor() -> None:
    book = outcomes()
    for overstated in (False, True, False, False):
        book.counted(HERE, 0.0, overstated=overstated)
    known = book.reputations.evidence(HERE[0], 0.0)
    assert (known.right[Kind.COUNT], known.wrong[Kind.COUNT]) == (3.0, 1.0)
    assert book.reputations.score(THERE[0], 0.0).honesty == 1.0 > book.reputations.score(HERE[0], 0.0).honesty


_HEARD: dict[str, Callable[..., None]] = {
    "answered": lambda book, now: book.answered(HERE, 1.0, now),
    "recovered": lambda book, now: book.recovered(HERE, now),
    "succeeded": lambda book, now: book.succeeded(HERE, now, 1, 0.0),
    **{how.name: partial(Outcomes.failed, place=HERE, how=how, retry_after=None) for how in Failure},
}


@given(st.lists(st.tuples(st.sampled_from(sorted(_HEARD)), st.floats(0.0, 20.0))))
def test_whoever_may_be_back_is_among_those_that_fell_silent(events: list[tuple[str, float]]) -> None:
    book, now = outcomes(), 0.0
    for event, seconds in events:
        now += seconds
        _HEARD[event](book, now=now)
        assert book.state(HERE, now) not in (State.OPEN, State.HALF_OPEN) or HERE in book.silent


def test_who_answers_or_is_forgotten_is_silent_no_longer() -> None:
    book = outcomes()
    for heard in (lambda: book.answered(HERE, 1.0, 0.0), lambda: book.recovered(HERE, 0.0)):
        book.failed(HERE, 0.0, Failure.SILENT, None)
        assert book.silent == {HERE}
        heard()
        assert not book.silent
    book.failed(HERE, 0.0, Failure.SILENT, None)
    for number in range(MAX_PLACES):
        book.succeeded((HERE[0], HERE[1], str(number)), 0.0, 1, 0.0)
    assert not book.silent
