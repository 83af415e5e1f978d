"""The peers of the last run, kept on disk as JSON, so that a node gets in although its validators are away. It asks nobody."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from kademlia.node import Node
from loguru import logger
from msgspec import Meta, Struct

from lloom.adapters.dht.addresses import Reach

FILE: Final = "peers.json"
MOST: Final = 200
MAX_BYTES: Final = 100_000


class Peer(Struct, frozen=True, forbid_unknown_fields=True):
    """A node that answered: where, and who it was."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{40}$")]
    host: Annotated[str, Meta(max_length=45)]
    port: Annotated[int, Meta(ge=1, le=65_535)]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    network: Annotated[str, Meta(max_length=64)]
    peers: Annotated[list[Peer], Meta(max_length=MOST)]


_decoder = msgspec.json.Decoder(_File)


class KnownPeers:
    """The file `peers.json` in `folder`; None: nothing is kept."""

    def __init__(self, folder: Path | None, network: str, reach: Reach) -> None:
        self._path = folder / FILE if folder is not None else None
        self._network = network
        self._reach = reach
        self._kept: list[Peer] = []

    def load(self) -> list[Peer]:
        """Those of this network that can be reached from here. A file that cannot be read is set aside, with a warning."""
        if self._path is None or not self._path.exists():
            return []
        try:
            if self._path.stat().st_size > MAX_BYTES:
                raise ValueError("it is too long")
            found = _decoder.decode(self._path.read_bytes())
        except (
            OSError,
            ValueError,
            RecursionError,
        ) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
            self._set_aside(error)
            return []
        if found.network != self._network:
            return []
        self._kept = [peer for peer in found.peers if self._reach.accepts(peer.host, peer.port)]
        return list(self._kept)

    def save(self, peers: Iterable[Node]) -> None:
        """Keep `peers`, who all answered, and of those known before as many as there is room for. Blocks for a moment."""
        if self._path is None:
            return
        fresh = [Peer(node.id.hex(), node.ip, node.port) for node in peers]
        ids = {peer.id for peer in fresh}
        kept = (fresh + [peer for peer in self._kept if peer.id not in ids])[:MOST]
        if kept == self._kept or not fresh:
            return
        self._kept = kept
        text = msgspec.json.format(msgspec.json.encode(_File(1, self._network, kept)), indent=1)
        draft = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(text)
            draft.replace(self._path)
        except OSError as error:
            logger.warning("The known peers could not be kept in {}: {}", self._path, error.strerror or error)

    def _set_aside(self, error: Exception) -> None:
        assert self._path is not None
        logger.warning("The known peers in {} cannot be read and are set aside: {}", self._path, error)
        try:
            self._path.replace(self._path.with_suffix(".broken"))
        except OSError:
            logger.debug("{} could not be renamed either", self._path)
