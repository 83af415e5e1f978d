"""What an executor reports, compared with what a client counts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import prompt, tokens
from lloom.core.api.chat import parse
from lloom.core.billing.quote import Basis
from lloom.core.messages import Done
from lloom.core.payment import counting
from lloom.core.payment.audit import Report, problem
from tests.money_support import accounting

ENCODING = "o200k_base"
SETTINGS = accounting(tolerance=0.5, slack=64)
TEXTS = st.text(max_size=200) | st.integers(0, 3000).map(lambda count: "word " * count)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Loading an encoding takes longer than hypothesis waits for an example."""
    tokens.count("", ENCODING)


def report(asked: str, said: str | None, inputs: int, outputs: int) -> Report:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": asked}]})
    return Report(parse(body), ENCODING, Done(inputs, outputs), said)


@given(TEXTS, TEXTS)
def test_who_counts_as_we_do_reports_nothing_odd(asked: str, said: str) -> None:
    request = report(asked, said, 0, 0).request
    inputs, outputs = prompt.count("chat", request.body, ENCODING), tokens.count(said, ENCODING)
    assert problem(report(asked, said, inputs, outputs), SETTINGS) is None
    tolerated = counting.accepted(outputs, Basis.BACKEND, SETTINGS)
    if len(said.encode()) <= counting.LONG:
        assert problem(report(asked, said, inputs, tolerated), SETTINGS) is None


@pytest.mark.parametrize("words", [1, 100, 5000])
def test_ten_times_the_tokens_are_named(words: int) -> None:
    text = "word " * words
    outputs = 10 * tokens.count(text, ENCODING) + 100
    found = problem(report("hi", text, 8, outputs), SETTINGS)
    assert found is not None
    assert found.startswith(f"{outputs} output tokens where")
    inputs = problem(report(text, "", 10 * words + 100, 0), SETTINGS)
    assert inputs is not None
    assert "input tokens where" in inputs


def test_of_what_was_not_all_text_only_the_prompt_is_compared() -> None:
    assert problem(report("hi", None, 8, 10**6), SETTINGS) is None
    assert problem(report("hi", None, 10**6, 0), SETTINGS) is not None
