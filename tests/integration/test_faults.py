"""The faults of `just faults`, with less load: nobody may notice more of them than the table says."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import problem
from tests.faults.scenarios import BEFORE, NOBODY_GOES_ON, OTHERS, REGENERATED, WITHIN, Scenario, play

SOME = [*BEFORE, *WITHIN, REGENERATED[0], NOBODY_GOES_ON[0], *OTHERS]
"""The rest differ in nothing that the router would do otherwise, and take their time."""


@pytest.mark.parametrize("scenario", SOME, ids=lambda scenario: scenario.name)
async def test_nobody_notices_more_than_they_must(scenario: Scenario) -> None:
    result = await play(scenario, requests=12, parallel=6)
    assert len(result.got) == 12
    assert problem(scenario, result) == "", result.details
