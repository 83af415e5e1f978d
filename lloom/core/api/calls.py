"""The pieces that tool calls come in, and which call each is of. It joins none."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

MAX_CALLS: Final = 1024
"""Of one answer."""


class CalledFunction(Struct):
    """A piece of what is called: the name mostly whole, the arguments (JSON) cut anywhere."""

    name: str | None = None
    arguments: str | None = None


class CallPiece(Struct):
    """A piece of a call. `index`: its place among all calls; None: as it stands in its chunk."""

    index: Annotated[int, Meta(ge=0, lt=MAX_CALLS)] | None = None
    id: str | None = None
    type: str | None = None
    function: CalledFunction | None = None

    def place(self, position: int) -> int:
        """Where it belongs; `position`: within its chunk."""
        return position if self.index is None else self.index

    def begins_another(self, id: str) -> bool:
        """Whether it is of another call than the one with that `id` at its place: some backends count all calls as the first."""
        return bool(self.id and self.function and self.function.name and self.id != id)
