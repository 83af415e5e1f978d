"""What Hydra gets to see of the words a user types."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lloom.core.configuration import argv
from lloom.core.errors import ConfigError

HOSTILE = st.text(st.sampled_from("'\"\\${}[](),=:!#~*@ \n\t\x00é🙂aA1-.") | st.characters(exclude_categories=["Cs"]))


def read_back(word: str) -> object:
    """What the configuration holds after Hydra and OmegaConf have read `prompt=…`."""
    override = OverridesParser.create().parse_override(word)
    return OmegaConf.create({"prompt": override.value(), "home": "secret"}).prompt


@given(HOSTILE)
@example("a, b = 'c' \"d\" !\n")
@example("\\")
@example("\\'")
@example("${home}")
@example("\\${home}\\\\${oc.env:HOME}")
@example("123")
@example("true")
@example("null")
@example("[1,2]")
@example("")
def test_any_prompt_reaches_the_configuration_exactly_as_typed(text: str) -> None:
    [word, _] = argv.rewrite([f"prompt={text}"])
    assert read_back(word) == text


@pytest.mark.parametrize("key", sorted(argv.TEXTS))
def test_every_free_text_key_is_quoted(key: str) -> None:
    assert argv.rewrite(["role=client", f"{key}=a, b"]) == ["role=client", f"{key}='a, b'"]
    assert argv.rewrite(["role=client", f"++{key}=a, b"]) == ["role=client", f"++{key}='a, b'"]


def test_other_values_stay_as_they_are() -> None:
    assert argv.rewrite(["role=client", "network.port=9001"]) == ["role=client", "network.port=9001"]


def test_a_list_needs_no_brackets() -> None:
    assert argv.rewrite(["role=executor", "llm=smollm2,openai"])[1] == "llm=['smollm2','openai']"
    assert argv.rewrite(["role=executor", "llm=[mock]"])[1] == "llm=[mock]"
    assert argv.rewrite(["role=client", "network.bootstrap=[::1]:9000"])[1] == "network.bootstrap=['[::1]:9000']"
    assert argv.rewrite(["role=client", "network.bootstrap="])[1] == "network.bootstrap=[]"


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["--cfg=job"], ["command=models"], ["prompt=hi"]])
def test_what_only_asks_is_a_client(words: list[str]) -> None:
    assert argv.rewrite(words)[-1] == "role=client"


def test_a_role_that_was_given_stays() -> None:
    assert argv.rewrite(["command=keygen", "role=executor"]) == ["command=keygen", "role=executor"]


def test_a_missing_role_is_told_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="role=client, executor, validator or demo"):
        argv.rewrite(["network.port=1"])


@pytest.mark.parametrize("flag", ["--multirun", "-m", "--multi", "--m"])
def test_multirun_is_refused_however_it_is_abbreviated(flag: str) -> None:
    with pytest.raises(ConfigError, match="a node runs once"):
        argv.rewrite(["role=client", flag])


@pytest.mark.parametrize("word", ["hydra.mode=MULTIRUN", "++hydra.sweep.dir=x", "hydra/launcher=basic", "~hydra.run"])
def test_hydra_itself_is_not_to_be_configured(word: str) -> None:
    with pytest.raises(ConfigError, match="not for the command line"):
        argv.rewrite(["role=client", word])


def test_an_unknown_flag_is_told_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="--hepl: there is no such flag; did you mean --help"):
        argv.rewrite(["--hepl"])


@pytest.mark.parametrize(("word", "meant"), [("--role=client", "write role="), ("client", "did you mean role=client")])
def test_a_setting_in_the_style_of_other_programs_is_told_as_it_is_here(word: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=meant):
        argv.rewrite([word])


def test_a_prompt_torn_apart_by_the_shell_is_explained() -> None:
    with pytest.raises(ConfigError, match="quotes around a value that has some"):
        argv.rewrite(["role=client", "prompt=Why", "is", "the", "sky", "blue?"])


def test_words_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        argv.rewrite(["prompt=\udcff"])


def test_the_words_of_a_flag_are_left_alone() -> None:
    assert argv.rewrite(["--config-dir", "some/folder", "role=client"])[:2] == ["--config-dir", "some/folder"]


def test_version_and_completion_need_no_configuration() -> None:
    assert argv.answer(["--version"], "1.2.3") == "lloom 1.2.3"
    assert "complete -o nospace" in (argv.answer(["--shell-completion", "install=bash"], "") or "")
    assert argv.answer(["role=client"], "") is None
    with pytest.raises(ConfigError, match="only for bash"):
        argv.answer(["-sc", "install=fish"], "")


def test_a_question_of_the_completion_goes_to_hydra_untouched() -> None:
    assert argv.rewrite(["-sc", "query=bash"]) == ["-sc", "query=bash"]
