"""The routing table: kademlia's buckets with exact neighbours. It never admits anybody by itself; the protocol does."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from lloom.adapters.dht.addresses import subnet


class Table(RoutingTable):  # type: ignore[misc]
    """Stock buckets; `find_neighbors` gives the k nearest (stock: the first k it meets), a full bucket's oldest is pinged.

    At most `per_subnet` contacts of one subnet are in one bucket: a table is not to be had by whoever rents one network.
    """

    def __init__(self, protocol: Any, ksize: int, node: Node, per_subnet: int) -> None:
        super().__init__(protocol, ksize, node)
        self._per_subnet = per_subnet

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets)

    def __iter__(self) -> Iterator[Node]:
        for bucket in self.buckets:
            yield from bucket.get_nodes()

    def __contains__(self, node_id: bytes) -> bool:
        return self.get(node_id) is not None

    def get(self, node_id: bytes) -> Node | None:
        """The contact with this id, None if it is not in the table."""
        return self.buckets[self.get_bucket_for(Node(node_id))][node_id]

    def get_bucket_for(self, node: Node) -> int:
        """The index of the bucket whose range holds `node`. Ranges include both ends (stock looks one bucket too far there)."""
        return next(index for index, bucket in enumerate(self.buckets) if node.long_id <= bucket.range[1])

    def find_neighbors(self, node: Node, k: int | None = None, exclude: Node | None = None) -> list[Node]:
        """The `k` contacts nearest to `node`, nearest first, neither `node` itself nor who shares the address of `exclude`."""
        others = (n for n in self if n.id != node.id and not (exclude is not None and n.same_home_as(exclude)))
        return heapq.nsmallest(k or self.ksize, others, key=node.distance_to)

    def add_contact(self, node: Node) -> None:
        """Add `node`, or move it to the fresh end; a full bucket is split where the paper (4.2) says so, else `node` waits."""
        while True:
            index = self.get_bucket_for(node)
            bucket = self.buckets[index]
            if bucket[node.id] is None and self._neighbours(bucket, node) >= self._per_subnet:
                return
            if bucket.add_node(node):
                return
            if not bucket.has_in_range(self.node) and bucket.depth() % 5 == 0:
                self.protocol.doubt(bucket.head())
                return
            self.split_bucket(index)

    def _neighbours(self, bucket: KBucket, node: Node) -> int:
        """How many contacts of `bucket` are of the subnet of `node`."""
        own = subnet(node.ip, node.port)
        return sum(subnet(other.ip, other.port) == own for other in bucket.get_nodes())

    def remove_contact(self, node: Node) -> None:
        """Remove `node` if it is there; tells the protocol when it was the last."""
        before = len(self)
        super().remove_contact(node)
        if before and not len(self):
            self.protocol.emptied.set()
