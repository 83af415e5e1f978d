"""Mistakes in a configuration, as the user reads them."""

from __future__ import annotations

import pytest

from lloom.core.configuration import wording


def no_choices(group: str) -> list[str]:
    raise AssertionError(group)


def test_keys_hold_groups_leaves_and_names_of_ones_own() -> None:
    keys = wording.keys()
    assert {
        "role",
        "network",
        "network.port",
        "executor.worker.num_gpus",
        "llm.*.base_url",
        "llm.*.models.*.context",
    } <= set(keys)
    assert keys["demo.stay"] is bool


def test_a_misspelt_key_is_told_with_the_one_that_was_meant() -> None:
    assert "did you mean network.port" in wording.unknown_key("netwrk.port")
    assert "network.port, gateway.port or metrics.port" in wording.unknown_key("port")
    assert "llm.openai.base_url" in wording.unknown_key("llm.openai.base_ur")
    assert wording.unknown_key("zzz") == "zzz: there is no such setting; conf/config.yaml explains all there are"


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Expected `int`, got `str` - at `$.network.port`", "network.port: expected a whole number, got text"),
        ("Invalid enum value 'x' - at `$.output`", "output: 'x' is no choice; there are text, json and csv"),
        ("Expected `int` <= 32 - at `$.routing.attempts`", "routing.attempts: expected a whole number <= 32"),
        ("Object missing required field `port` - at `$.network`", "network.port: this setting is missing"),
        ("Object missing required field `role`", "role: this setting is missing"),
        ("Expected `array`, got `null` - at `$.network.bootstrap`", "network.bootstrap: expected a list, got null"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(message: str, sentence: str) -> None:
    assert wording.invalid_value(message) == sentence


def test_an_unknown_choice_is_told_with_all_there_are() -> None:
    message = "In 'config': Could not find 'role/boss'\n\nAvailable options in 'role':\n\tclient"
    told = wording.composition(message, "", lambda group: ["client", group])
    assert told == "role=boss: there is no such choice; there are client and role"


def test_a_setting_of_a_backend_that_is_not_chosen_is_explained() -> None:
    cause = "Key 'openai' is not in struct\n    full_key: llm.openai\n    object_type=dict"
    told = wording.composition("Could not override 'llm.openai.parallel'.", cause, no_choices)
    assert told == "llm.openai.parallel: the backend openai is not chosen; choose it with llm=[openai]"


def test_several_values_for_one_are_told_with_both_ways_out() -> None:
    told = wording.composition("Ambiguous value for argument 'network.port=1,2'\n1. To use it as …", "", no_choices)
    assert told.startswith("network.port: one value is wanted here; write a list as network.port=[1,2]")


def test_a_fault_in_a_file_of_the_users_own_is_told_with_its_line() -> None:
    places = [f'  in "/a/b.yaml", line {line}, column 4' for line in (1, 2)]
    message = "\n".join(["while parsing a flow sequence", places[0], "expected ','", places[1]])
    assert wording.composition(message, "", no_choices) == "/a/b.yaml, line 2: expected ','"


def test_anything_else_is_cut_to_its_first_line_and_its_key() -> None:
    cause = "Environment variable 'X' not found\n    full_key: home\n    object_type=dict"
    assert wording.composition("", cause, no_choices) == "home: environment variable 'X' not found"
