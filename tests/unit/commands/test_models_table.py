from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lloom.adapters.asking import Gateway
from lloom.adapters.gateway.models import listing
from lloom.commands import models
from lloom.core.identity import NodeId
from lloom.core.offer import ModelOffer
from lloom.core.settings import Settings


def test_an_alias_stands_in_the_table_with_what_it_stands_for(capsys: pytest.CaptureFixture[str]) -> None:
    def offer(name: str, price: int) -> tuple[NodeId, ModelOffer]:
        terms = ModelOffer(id=name, context=9, max_output=9, parallel=1, encoding="e", backend="b", input_price=price)
        return NodeId(bytes(20)), terms

    first, second = offer("a", 5), offer("b", 7)
    listed = listing([first, second], {"nick": [second, first]}, lambda _: 0.5)
    settings = cast(Settings, SimpleNamespace(explain=None, model=None, output="text"))
    gateway: Any = SimpleNamespace(models=lambda: listed)
    assert models._show(settings, cast(Gateway, gateway)) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["model", "a", "b", "nick = b, a"]
    assert "5-7 / 0" in rows[3]
    assert "1" in rows[3], "one executor, however many models of it"
