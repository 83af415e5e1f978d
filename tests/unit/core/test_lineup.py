from __future__ import annotations

from collections.abc import Mapping

import pytest

from lloom.core.lineup import FALLBACK_CONTEXT, Common, Known, Lineup, lineup, network_id, unlisted
from lloom.core.settings import Model

COMMON = Common("vllm", 4, 2)


def nothing(_name: str) -> None:
    return None


def made(
    models: Mapping[str, Model | None], listed: Mapping[str, Known], known: Mapping[str, Known] | None = None
) -> Lineup:
    return lineup(COMMON, models, listed, (known or {}).get)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("qwen3:8b", "qwen3-8b"),
        ("/models/Qwen3-8B.gguf", "qwen3-8b"),
        ("C:\\models\\Qwen3-8B.gguf", "qwen3-8b"),
        ("llama3.2:latest", "llama3.2"),
        ("deepseek/deepseek-r1:free", "deepseek-r1-free"),
        ("my model", "my-model"),
        ("accounts/fireworks/models/llama-v3p1", "llama-v3p1"),
        ("", None),
        ("models/", None),
        ("-x", None),
        ("x" * 129, None),
    ],
)
def test_what_backends_call_a_model_comes_to_one_id(name: str, expected: str | None) -> None:
    assert network_id(name) == expected


def test_yaml_comes_before_the_backend_and_that_before_the_map() -> None:
    listed = {"a": Known(context=200, features=("vision",))}
    known = {"a": Known(context=300, max_output=30, features=("tools",))}
    for model, expected in (
        (Model(context=100, max_output=10, features=("seed",)), (100, 10, ("seed",))),
        (Model(), (200, 30, ("vision",))),
        (Model(features=()), (200, 30, ())),
    ):
        offer = made({"a": model}, listed, known).served["a"].offer
        assert (offer.context, offer.max_output, offer.features) == expected
    offer = made({"a": Model()}, {}, known).served["a"].offer
    assert (offer.context, offer.features) == (300, ("tools",))


def test_what_nobody_knows_is_guessed_and_said() -> None:
    found = made({"a": Model()}, {"a": Known()})
    offer = found.served["a"].offer
    assert (offer.context, offer.max_output, offer.features) == (FALLBACK_CONTEXT, FALLBACK_CONTEXT, ())
    (remark,) = found.remarks
    assert "llm.vllm.models.a.context" in remark


def test_a_context_that_is_promised_and_not_there_is_said() -> None:
    found = made({"a": Model(context=9000)}, {"a": Known(context=8000)})
    assert found.served["a"].offer.context == 9000
    assert "9000 tokens are offered, but it has 8000" in found.remarks[0]
    assert made({"a": Model(context=7000)}, {"a": Known(context=8000)}).remarks == ()


def test_an_answer_is_no_longer_than_the_context() -> None:
    assert made({"a": Model()}, {"a": Known(context=10, max_output=20)}).served["a"].offer.max_output == 10


def test_the_star_offers_what_is_listed_under_ids_of_the_network() -> None:
    found = made({"*": Model(input_price=7, operations=("chat",))}, {"Qwen/Qwen3-8B": Known(context=10)})
    served = found.served["qwen3-8b"]
    assert (served.name, served.offer.id, served.offer.input_price, served.offer.parallel) == (
        "Qwen/Qwen3-8B",
        "qwen3-8b",
        7,
        4,
    )


def test_the_longest_pattern_that_fits_decides_and_null_takes_out() -> None:
    models = {"*": Model(input_price=1), "big/*": Model(input_price=2), "*-base": None}
    listed = {"small/a": Known(context=1), "Big/b": Known(context=1), "small/c-base": Known(context=1)}
    found = made(models, listed).served
    assert {name: served.offer.input_price for name, served in found.items()} == {"a": 1, "b": 2}


def test_only_the_star_has_a_meaning() -> None:
    assert set(made({"[ab]*": Model()}, {"a1": Known(context=1), "[ab]1": Known(context=1)}).served) == set()
    assert set(made({"a?": Model(), "?*": None}, {"ab": Known(context=1)}).served) == {"a?"}


def test_a_model_with_an_id_of_its_own_is_not_discovered_again() -> None:
    models = {"ours": Model(name="Theirs/A"), "*": Model(), "gone": None}
    found = made(models, {"Theirs/A": Known(context=1), "x/gone": Known(context=1), "y/ours": Known(context=1)})
    assert {name: served.name for name, served in found.served.items()} == {"ours": "Theirs/A"}


def test_what_an_id_leaves_out_the_fitting_pattern_says() -> None:
    models = {"ours": Model(name="t/a"), "*": Model(context=5, features=("json",))}
    offer = made(models, {"t/a": Known(context=100, features=("tools",))}).served["ours"].offer
    assert (offer.context, offer.features) == (5, ("json",))


def test_a_priced_pattern_prices_what_says_no_price_of_its_own() -> None:
    star = Model(input_price=7, output_price=8, encoding="cl100k_base", operations=("chat", "completions"))
    models = {
        "ours": Model(name="t/a"),
        "gift": Model(input_price=0, output_price=0, operations=("embeddings",)),
        "dear": Model(output_price=9, aliases=("dearer",)),
        "*": star,
    }
    found = {
        name: each.offer
        for name, each in made(models, {"t/a": Known(context=1), "new": Known(context=1)}).served.items()
    }
    assert {name: (offer.input_price, offer.output_price) for name, offer in found.items()} == {
        "ours": (7, 8),
        "gift": (0, 0),
        "dear": (7, 9),
        "dearer": (7, 9),
        "new": (7, 8),
    }
    assert {offer.encoding for offer in found.values()} == {"cl100k_base"}
    assert (found["ours"].operations, found["gift"].operations) == (("chat", "completions"), ("embeddings",))


def test_what_a_pattern_leaves_out_shorter_ones_say_and_null_says_nothing() -> None:
    models = {
        "*": Model(input_price=7, context=5),
        "qwen*": Model(output_price=8),
        "qwen-base*": None,
        "qwen-base": Model(),
    }
    listed = {name: Known(context=100) for name in ("qwen-x", "qwen-base", "qwen-base-x")}
    found = made(models, listed).served
    assert {
        name: (each.offer.input_price, each.offer.output_price, each.offer.context) for name, each in found.items()
    } == {
        "qwen-x": (7, 8, 5),
        "qwen-base": (7, 8, 5),
    }


def test_where_nothing_is_said_a_model_chats_for_nothing() -> None:
    offer = made({"a": Model(context=1)}, {}).served["a"].offer
    assert (offer.operations, offer.encoding, offer.input_price, offer.output_price) == (("chat",), "o200k_base", 0, 0)


def test_aliases_are_offered_under_the_same_terms() -> None:
    found = made({"a": Model(name="A", aliases=("b", "c"), input_price=3)}, {"A": Known(context=9)}).served
    assert {name: (each.name, each.offer.id, each.offer.context) for name, each in found.items()} == {
        name: ("A", name, 9) for name in ("a", "b", "c")
    }


def test_what_takes_no_chats_is_not_discovered() -> None:
    listed = {"a": Known(context=1, chat=False), "b": Known(context=1), "c": Known(context=1, chat=True)}
    known = {"b": Known(chat=False), "c": Known(chat=False)}
    assert set(made({"*": Model()}, listed, known).served) == {"c"}
    assert set(made({"*": Model(operations=("embeddings",))}, {"a": listed["a"]}, known).served) == {"a"}


def test_of_two_names_that_come_to_one_id_the_first_has_it() -> None:
    found = made({"*": Model()}, {"b/m": Known(context=2), "a/m": Known(context=1)})
    assert found.served["m"].name == "a/m"


def test_no_more_are_discovered_than_allowed_and_that_is_said() -> None:
    found = made({"named": Model(context=1), "*": Model(context=1)}, {name: Known() for name in "dbca"})
    assert set(found.served) == {"named", "a", "b"}
    assert "has 4 models that nobody named" in found.remarks[0]


def test_what_is_named_and_not_listed_is_known() -> None:
    models = {"a": Model(name="A"), "b": Model(), "c": None, "*": Model()}
    assert unlisted(models, {"b": 1}) == ["A"]
