from __future__ import annotations

from typing import Any

import pytest

from lloom.adapters.asking import only_model
from lloom.core.errors import ConfigError


def model(name: str, *operations: str) -> dict[str, Any]:
    return {"id": name, "lloom": {"operations": list(operations or ("chat",))}}


def test_the_one_model_that_chats_is_asked() -> None:
    assert only_model([model("m"), model("vectors", "embeddings")]) == "m"


def test_what_only_stands_for_others_is_no_choice() -> None:
    alias = model("gpt-4o")
    alias["lloom"]["alias_of"] = ["m"]
    assert only_model([alias, model("m")]) == "m"
    alias["lloom"]["alias_of"] = ["gpt-4o"]
    assert only_model([alias]) == "gpt-4o"


def test_among_several_models_the_user_chooses() -> None:
    with pytest.raises(ConfigError, match=r"model=….*a, b"):
        only_model([model("b"), model("a", "embeddings", "chat")])


def test_a_network_without_models_is_told_as_that() -> None:
    with pytest.raises(ConfigError, match="nobody on this network"):
        only_model([])
