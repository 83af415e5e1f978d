from __future__ import annotations

import pytest

from lloom.adapters.asking import only_model
from lloom.core.errors import ConfigError


def test_the_one_model_that_is_served_is_asked() -> None:
    assert only_model([{"id": "m"}]) == "m"


def test_among_several_models_the_user_chooses() -> None:
    with pytest.raises(ConfigError, match=r"model=….*a, b"):
        only_model([{"id": "b"}, {"id": "a"}])


def test_a_network_without_models_is_told_as_that() -> None:
    with pytest.raises(ConfigError, match="nobody on this network"):
        only_model([])
