from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lloom.adapters.serving.bounds import admit, bounded
from lloom.core.api.request import Operation
from lloom.core.billing.request import Request
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.offer import ModelOffer

MODEL = ModelOffer(id="m", context=100, max_output=50, parallel=1, encoding="o200k_base", backend="b")


def ordered(outputs: int, inputs: int = 100) -> Request:
    return Request(bytes(32), bytes(20), 0, bytes(32), bytes(32), inputs, outputs, 0, 0)


def limited(operation: Operation, outputs: int, **fields: Any) -> dict[str, Any]:
    return msgspec.json.decode(bounded(operation, msgspec.json.encode(fields), ordered(outputs), MODEL))


@pytest.mark.parametrize("prompt", [["a", "b"], [[1, 2], [3]]])
def test_each_prompt_of_a_completion_has_answers_of_its_own(prompt: Any) -> None:
    fields = {"prompt": prompt, "n": 2, "max_tokens": 50}
    assert limited("completions", 99, **fields) == {**fields, "max_tokens": 24}
    assert limited("completions", 200, **fields) == fields


@pytest.mark.parametrize("prompt", ["a", [1, 2, 3], ["a"]])
def test_one_prompt_has_one_answer(prompt: Any) -> None:
    assert limited("completions", 10, prompt=prompt) == {"prompt": prompt, "max_tokens": 10}


def test_a_completion_that_names_no_limit_has_the_usual_one() -> None:
    assert limited("completions", 40, prompt="a") == {"prompt": "a", "max_tokens": 16}
    assert limited("completions", 50, prompt="a") == {"prompt": "a"}


@pytest.mark.parametrize("fields", [{}, {"max_tokens": None}, {"max_tokens": 512}])
def test_a_limit_that_completions_do_not_have_is_none(fields: dict[str, Any]) -> None:
    asked = {"prompt": "a", "max_completion_tokens": 1, **fields}
    assert limited("completions", 1, **asked) == {"prompt": "a", "max_tokens": 1}


def test_a_completion_may_just_repeat_its_prompt() -> None:
    fields = {"prompt": "a", "max_tokens": 0, "echo": True}
    assert limited("completions", 0, **fields) == fields


def test_embeddings_have_no_answers() -> None:
    assert limited("embeddings", 0, input=["a", "b"]) == {"input": ["a", "b"]}


@pytest.mark.parametrize("prompt", [[], ["a", 1], {"a": 1}, 7])
def test_prompts_that_are_none_are_the_callers_fault(prompt: Any) -> None:
    with pytest.raises(CallerFault):
        limited("completions", 20, prompt=prompt)


def test_no_prompt_is_longer_than_the_context() -> None:
    two = msgspec.json.encode({"input": ["a", "b"]})
    admit("embeddings", two, ordered(0, 200), MODEL, 1000)
    admit("embeddings", two, ordered(0, 70), MODEL, 70)
    with pytest.raises(RetryElsewhere, match="allows 199 tokens of a prompt, and has 1000"):
        admit("embeddings", two, ordered(0, 199), MODEL, 1000)
