"""Requests' bodies in a Worker's memory: how much of it they may take, all together. It reads none."""

from __future__ import annotations

from types import TracebackType

from lloom.adapters.serving.gate import busy


class Bodies:
    """Room for `limit` bytes. A body may grow as long as it leaves as much free as it takes: however many large ones there are,
    small ones find room (Choudhury and Hahne, Dynamic Queue Length Thresholds for Shared-Memory Packet Switches, 1998).
    """

    def __init__(self, limit: int) -> None:
        self.held = 0
        """Bytes that are taken."""
        self._limit = limit

    @property
    def free(self) -> int:
        """Bytes that are not."""
        return self._limit - self.held


class Body:
    """The room that one takes, until it leaves or at the end of a `with`."""

    __slots__ = ("_bodies", "size")

    def __init__(self, bodies: Bodies) -> None:
        self.size = 0
        """Bytes so far."""
        self._bodies = bodies

    def grow(self, size: int) -> None:
        """So many more have come. RetryElsewhere (429 `busy`) if there is no room for them."""
        self.size += size
        self._bodies.held += size
        if self.size > self._bodies.free:
            raise busy("This executor has too many large requests in its memory.")

    def leave(self) -> None:
        """It is over. Once."""
        self._bodies.held -= self.size

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
