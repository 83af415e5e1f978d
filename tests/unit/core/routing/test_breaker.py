from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.routing.breaker import RESTING, TABLE, Breaker, Event, State

HEARD = st.sampled_from([event for event in Event if event is not Event.RESTED])
STEPS = st.lists(st.tuples(HEARD, st.floats(0, 30), st.none() | st.floats(-5, 1e6)), max_size=60)
FAILURES = {Event.REFUSED, Event.PUT_OFF, Event.SILENT, Event.LIED}


def after(*events: Event) -> Breaker:
    breaker = Breaker(5.0)
    for event in events:
        breaker.hear(event, 0.0, 3.0 if event is Event.PUT_OFF else None)
    return breaker


def test_every_state_knows_every_event() -> None:
    assert {state: set(row) for state, row in TABLE.items()} == {state: set(Event) for state in State}


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), State.CLOSED),
        ((Event.REFUSED,), State.COOLING),
        ((Event.PUT_OFF,), State.BUSY),
        ((Event.SILENT,), State.OPEN),
        ((Event.LIED,), State.BARRED),
        ((Event.SILENT, Event.REACHED), State.CLOSED),
        ((Event.SILENT, Event.PUT_OFF), State.BUSY),
        ((Event.REFUSED, Event.REACHED), State.COOLING),
        ((Event.LIED, Event.ANSWERED), State.BARRED),
        ((Event.LIED, Event.SILENT), State.BARRED),
    ],
)
def test_what_is_heard_decides(events: tuple[Event, ...], state: State) -> None:
    assert after(*events).state(0.0) is state


@pytest.mark.parametrize(
    ("event", "then"),
    [
        (Event.REFUSED, State.CLOSED),
        (Event.PUT_OFF, State.CLOSED),
        (Event.SILENT, State.HALF_OPEN),
        (Event.LIED, State.CLOSED),
    ],
)
def test_a_rest_ends_by_itself(event: Event, then: State) -> None:
    breaker = after(event)
    end = breaker.rests(0.0)
    assert breaker.state(end - 0.01) is not then
    assert breaker.state(end) is then
    assert breaker.rests(end) == 0


@given(STEPS)
def test_whoever_was_silent_is_whole_only_after_it_was_heard_again(
    steps: list[tuple[Event, float, float | None]],
) -> None:
    breaker, now = Breaker(5.0), 0.0
    for event, pause, wish in steps:
        now += pause
        silent = event is Event.SILENT and breaker.state(now) is not State.BARRED
        breaker.hear(event, now, wish)
        later = breaker.state(now + 1e9)
        assert (later is State.HALF_OPEN) == silent
        assert later in (State.CLOSED, State.HALF_OPEN)


@given(STEPS)
def test_nobody_rests_without_end_and_only_who_failed_rests(steps: list[tuple[Event, float, float | None]]) -> None:
    breaker, now = Breaker(5.0), 0.0
    for event, pause, wish in steps:
        now += pause
        before = breaker.state(now)
        breaker.hear(event, now, wish)
        rest = breaker.rests(now)
        assert 0 <= rest <= 3600
        assert (rest > 0) <= (breaker.state(now) in RESTING)
        if event not in FAILURES and before not in RESTING:
            assert rest == 0


@given(st.integers(1, 40))
def test_a_first_content_does_not_forgive_failures_but_an_end_does(failures: int) -> None:
    breaker, now = Breaker(5.0), 0.0
    for _ in range(failures):
        breaker.hear(Event.REACHED, now)
        breaker.hear(Event.SILENT, now)
        rest = breaker.rests(now)
        now += rest
    assert rest == 5.0 * 2 ** min(failures - 1, 6)
    breaker.hear(Event.ANSWERED, now)
    breaker.hear(Event.SILENT, now)
    assert breaker.rests(now) == 5.0
