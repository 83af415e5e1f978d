"""How nodes find, reach and vouch for each other."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lloom.core.settings.base import Count, Group, Money, Port, Seconds


class NetworkSettings(Group, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    """Nodes of different names never hear each other: it is part of every signature."""
    host: str
    """Address to listen on (bridge over TCP, DHT over UDP)."""
    port: Port
    """First port: the DHT's and the first worker's; further workers take the following ones. 0: any free port."""
    advertise: str | None
    """Address told to others, where it is not `host`."""
    bootstrap: tuple[str, ...]
    """`[0xADDRESS@]host:port` of the validators that let us in; one with an address is pinned to it."""
    private: bool
    """Whether addresses of private networks (RFC 1918 and the like) make sense here."""
    relay: Literal["auto", "only", "off"]
    """How an executor is reached that may not be: through validators if need be, always, or never."""
    upnp: bool
    """Ask the router of this network to open the ports."""
    mdns: bool
    """Find, and be found by, nodes on the same local network without being told."""


class DhtSettings(Group, frozen=True):
    k: Annotated[int, Meta(ge=1, le=32)]
    alpha: Annotated[int, Meta(ge=1, le=16)]
    paths: Annotated[int, Meta(ge=1, le=8)]
    max_queries: Count
    lookup_seconds: Seconds
    rpc_seconds: Seconds
    hedge_seconds: Seconds
    """A query older than this no longer holds its slot (upper bound; adapts to the measured round trips)."""
    record_ttl_seconds: Seconds
    """How long an announcement lives; it is refreshed at a third of this."""
    table_refresh_seconds: Seconds
    bootstrap_seconds: Seconds
    """The longest pause between two tries to get into the network."""
    records_per_key: Count
    records_per_publisher: Count
    records_per_subnet: Count
    """Publishers of one key from one subnet."""
    records: Count
    shards: Annotated[int, Meta(ge=1, le=255)]
    """Further keys of a model whose first one is half full."""
    contacts_per_subnet: Count
    """Contacts of one subnet in one bucket of the table."""
    clock_skew_seconds: Seconds
    """How far the time in a datagram may lie from our clock."""
    datagrams_per_second: Count
    """Calls answered for one subnet; as many again in a burst."""
    datagrams: Count
    """The same for all subnets together: each costs a signature check."""


class BridgeSettings(Group, frozen=True):
    connect_seconds: Seconds
    handshake_seconds: Seconds
    """From the accepted connection to a verified HELLO."""
    handshakes: Count
    """Unauthenticated connections at once."""
    handshakes_per_address: Count
    clock_skew_seconds: Seconds
    """How far the timestamp of a HELLO may lie from our clock."""
    connections: Count
    handshakes_per_second: Count
    """Handshakes begun from one address; as many again in a burst."""
    connections_per_address: Count
    """Proven connections from one address."""
    streams: Annotated[int, Meta(ge=1, le=100_000)]
    """Open streams per connection."""
    stream_window: Count
    """Bytes a peer may send on one stream before it needs new credit."""
    connection_window: Count
    """The same over all streams of a connection."""
    control_bytes: Annotated[int, Meta(ge=8192, lt=1 << 32)]
    """Largest control message."""
    small_frames_per_second: Count
    """Frames of hardly any content from one peer; as many again in a burst."""
    send_buffer: Count
    """Bytes waiting for a slow reader before senders are held back."""
    ping_seconds: Seconds
    """Pause between pings; two unanswered ones close the connection."""
    idle_seconds: Seconds
    """A connection without streams is closed after this."""
    drain_seconds: Seconds
    """How long a GOAWAY waits for open streams."""
    certificate_seconds: Seconds
    """Life of a server certificate (at most a day)."""


class RelaySettings(Group, frozen=True):
    """Relaying, on both sides of it."""

    validators: Annotated[int, Meta(ge=1, le=8)]
    """Executor: through so many validators it is reached."""
    check_seconds: Seconds
    """Executor: pause between two checks of whether it can be reached directly."""
    executors: Count
    """Validator: workers that it relays for, at once."""
    streams: Count
    """Validator: relayed connections at once, of all."""
    streams_per_peer: Count
    """Validator: relayed connections of one client, or of one worker."""
    bytes_per_second: Count
    """Validator: to and from one peer, on average."""


class ValidatorSettings(Group, frozen=True):
    """What a validator does for others."""

    executors: Count
    """Offers in the catalogue at once."""
    page: Annotated[int, Meta(ge=1, le=1000)]
    """Entries of one answer, at most."""
    gossip_seconds: Seconds
    """Pause between two exchanges with a fellow validator."""
    probe_seconds: Seconds
    """Pause between two probes of one executor."""
    probe_timeout_seconds: Seconds
    """The whole of one probe of one model."""
    probe_tokens: Count
    """Tokens of a probe's answer, at most."""
    probe_logprobs: Annotated[float, Meta(ge=0, le=1)]
    """Share of questions with which models that offer logprobs are asked for them."""
    probe_context: Count
    """Tokens of the longest prompt of a probe, if the offer's context is not shorter."""
    probes: Count
    """Executors probed at once."""
    probe_keys: Annotated[int, Meta(ge=1, le=64)]
    """Identities that probe at the same time, each other executors."""
    probe_key_seconds: Seconds
    """After this they are others."""
    probe_cost: Money
    """Models one of whose questions may cost more are not probed."""
    purse: Annotated[int, Meta(ge=0, lt=1 << 31)]
    """Number of the identity that pays for probes."""
    vouch_seconds: Seconds
    """How long a statement about an executor holds."""
