"""The plain, frozen form of the YAML tree. It holds names of secrets, never secrets, and no default: those stand in conf/."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from lloom.core.api.request import Operation

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Tokens = Annotated[int, Meta(ge=1, le=2**53)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Price = Annotated[int, Meta(ge=0, le=2**62)]
"""Smallest units of the payment token per million tokens."""

Money = Annotated[int, Meta(ge=0)]
"""Smallest units of the payment token."""

Role = Literal["client", "executor", "validator", "demo"]
Command = Literal[
    "serve", "ask", "models", "keygen", "key", "doctor", "deploy", "deposit", "withdraw", "settle", "usage"
]
Feature = Literal["tools", "json", "json_schema", "vision", "audio", "reasoning", "logprobs", "prefill", "seed"]
"""What a model can do beyond plain chat."""


class Group(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all groups: an unknown key is an error, not a silent nothing."""


class IdentitySettings(Group, frozen=True):
    """Where the node's key comes from."""

    source: Literal["file", "env"]
    path: str
    """Keystore (JSON) or raw-hex file; made at the first start if it is not there."""
    key_env: str
    """Name of the variable that holds the key; if it is set, it wins over the file."""
    passphrase_env: str
    """Name of the variable that unlocks an encrypted keystore."""


class KeygenSettings(Group, frozen=True):
    """What command=keygen does."""

    encrypted: bool
    """A keystore that needs a passphrase at every start; else raw hex."""
    overwrite: bool


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


class GatewayKey(Group, frozen=True):
    """What somebody may do who has a key to the gateway. What is left out has no limit."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """Of the key, in hexadecimal. A key has 256 random bits, so nothing can be learned from this."""
    models: tuple[str, ...] = ("*",)
    """Patterns of ids, as `fnmatch` reads them."""
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    """Prompt and answer."""
    concurrent: Count | None = None
    """Requests at once."""
    tokens_per_day: Tokens | None = None
    """A day of UTC."""
    tokens_per_month: Tokens | None = None
    """The last 30 days, this one included."""
    metrics: bool = False
    """May read /metrics, which show what all do."""


class GatewaySettings(Group, frozen=True):
    host: str
    port: Port
    max_body: Count
    """Largest accepted request body in bytes."""
    body_seconds: Seconds
    """Longest pause between two pieces of a body."""
    hold_headers_seconds: Seconds
    """The 200 is held back until content arrives or this has passed."""
    keep_alive_seconds: Seconds
    """Pause between SSE comments while nothing comes."""
    drain_seconds: Seconds
    header_bytes: Count
    """Of one request, its first line included."""
    keys: dict[Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")], GatewayKey]
    """By name; none: whoever reaches the gateway may use it."""
    assumed_output: Count
    """Tokens set aside for an answer whose length its caller did not limit."""
    replay_seconds: Seconds
    """How long an answer is kept for who asks again with the same Idempotency-Key."""
    replay_bytes: Count
    """Of all answers that are kept, of each endpoint."""
    cors: tuple[str, ...]
    """Origins whose web pages may use the gateway; `*`: all."""


Policy = Literal["balanced", "cheapest", "fastest", "pinned"]
Attempts = Annotated[int, Meta(ge=1, le=32)]
Continuations = Annotated[int, Meta(ge=0, le=32)]
Share = Annotated[float, Meta(ge=0, le=1)]
Waiting = Annotated[int, Meta(ge=0, le=100_000)]


class ModelRouting(Group, frozen=True):
    """What of `routing` is different for some models; what is not said stays as it is."""

    policy: Policy | UnsetType = UNSET
    executors: tuple[str, ...] | UnsetType = UNSET
    allow: tuple[str, ...] | UnsetType = UNSET
    deny: tuple[str, ...] | UnsetType = UNSET
    attempts: Attempts | UnsetType = UNSET
    continuations: Continuations | UnsetType = UNSET
    first_token_seconds: Seconds | UnsetType = UNSET
    between_tokens_seconds: Seconds | UnsetType = UNSET
    total_seconds: Seconds | UnsetType = UNSET
    max_input_price: Price | UnsetType | None = UNSET
    max_output_price: Price | UnsetType | None = UNSET
    affinity: Share | UnsetType = UNSET
    explore: Share | UnsetType = UNSET
    hedge_share: Share | UnsetType = UNSET
    reputation: Share | UnsetType = UNSET
    queue: Waiting | UnsetType = UNSET
    queue_seconds: Seconds | UnsetType = UNSET


class RoutingSettings(Group, frozen=True):
    policy: Policy
    executors: tuple[str, ...]
    """Only these addresses (policy=pinned)."""
    allow: tuple[str, ...]
    """Executors' addresses; empty: everybody."""
    deny: tuple[str, ...]
    attempts: Attempts
    continuations: Continuations
    """How often an answer that broke off is taken up by another executor."""
    first_token_seconds: Seconds
    """From the request to an executor to its first content."""
    between_tokens_seconds: Seconds
    total_seconds: Seconds
    cooldown_seconds: Seconds
    """How long an executor that failed is passed over (doubles with every further failure)."""
    memory_seconds: Seconds
    """An outcome of so long ago weighs half of one of now."""
    directory_seconds: Seconds
    """Age at which what the directory knows of a model is asked anew, behind the answer."""
    negative_seconds: Seconds
    """How long it is remembered that nobody serves a model, or that an executor cannot be reached."""
    max_input_price: Price | None
    """Executors that take more for a million tokens are not asked; None: no limit."""
    max_output_price: Price | None
    grace_seconds: Seconds
    """How long the first usable executor of a lookup waits for others to choose from."""
    affinity: Share
    """How much worse than another one the executor may be that has the beginning of a prompt in its cache; 0: does not matter."""
    explore: Share
    """Of the requests: those for which newcomers count as well as others."""
    hedge_share: Share
    """Of the requests: those that may be sent to a second executor while the first one is unusually late."""
    reputation: Share
    """Of an executor's score: what is lost without any reputation; 0: reputations do not matter."""
    reputation_seconds: Seconds
    """Evidence about an executor of so long ago weighs half of that of now."""
    queue: Waiting
    """Requests for one model that may wait while all its executors are busy."""
    queue_seconds: Seconds
    aliases: dict[str, tuple[str, ...]]
    """Other names of models: what each stands for, in order of preference; patterns allowed."""
    models: dict[str, ModelRouting]
    """What is different for some models, by their ids or patterns of them."""


class Resources(Group, frozen=True):
    """What Ray reserves for one Worker."""

    num_cpus: Annotated[float, Meta(ge=0)]
    num_gpus: Annotated[float, Meta(ge=0)]


class ExecutorSettings(Group, frozen=True):
    workers: Annotated[int, Meta(ge=1, le=1024)]
    worker: Resources
    max_body: Count
    """Largest accepted request body in bytes."""
    queue: Annotated[int, Meta(ge=0, le=100_000)]
    """Requests that may wait for a free place of a backend."""
    queue_seconds: Seconds
    request_seconds: Seconds
    """Longest time one request may run."""
    requests_per_client: Count
    """Requests at once from one client; addresses cost nothing, so `parallel` bounds the whole."""
    discovery_seconds: Seconds
    """Pause between two looks at what backends serve, and the longest one between two tries to reach one."""
    discovered_models: Annotated[int, Meta(ge=1, le=512)]
    """Models of one backend that are offered without being named."""


class Model(Group, frozen=True):
    """One model of a backend, or all that fit a pattern. None: as the backend says, else as LiteLLM's map has it."""

    context: Count | None = None
    """Tokens, prompt and answer together."""
    max_output: Count | None = None
    name: str | None = None
    """What the backend calls it; None: as we do."""
    aliases: tuple[str, ...] = ()
    """Further ids in the network, under the same terms."""
    encoding: str = "o200k_base"
    """The tiktoken encoding it is billed by."""
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1, max_length=3)] = ("chat",)
    """What it can be asked to do."""
    features: tuple[Feature, ...] | None = None
    input_price: Price = 0
    output_price: Price = 0


class OpenAIBackend(Group, frozen=True, tag_field="kind", tag="openai"):
    """Any endpoint that speaks OpenAI: bytes go through as they are."""

    base_url: str
    provider: str | None
    """What kind of server it is, in LiteLLM's words: says where it tells of its models, and what LiteLLM's map knows of them."""
    models: dict[str, Model | None]
    """By id in the network, or by a pattern (`*`) over what it lists; None: not offered."""
    parallel: Count
    requests_per_minute: Count | None
    """Of all Workers together, in even shares; None: no limit."""
    tokens_per_minute: Count | None
    key_env: str | None
    """Name of the variable with the API key; None: no key is sent."""
    limit_field: Literal["max_tokens", "max_completion_tokens"]
    """How a chat's limit is called there: OpenAI's newest models know the one only, most other servers the other."""
    prefill_fields: dict[str, bool]
    """What a chat bears besides if its last message is the assistant's, so that the model continues that."""
    connect_seconds: Seconds
    idle_seconds: Seconds
    """Longest silence within an answer."""


class LiteLLMBackend(Group, frozen=True, tag_field="kind", tag="litellm"):
    """Any provider of LiteLLM."""

    provider: str
    """LiteLLM's prefix: anthropic, cohere, gemini, bedrock …"""
    models: dict[str, Model | None]
    """By id in the network, or by a pattern (`*`) over what LiteLLM's map has of this provider; None: not offered."""
    parallel: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    key_env: str | None
    base_url: str | None
    idle_seconds: Seconds
    options: dict[str, str | int | float | bool]
    """Further keyword arguments of `litellm.acompletion` (region names and the like; no secrets)."""


class SmolLM2Backend(Group, frozen=True, tag_field="kind", tag="smollm2"):
    """The built-in model, run by xllamacpp."""

    models: dict[str, Model]
    parallel: Count
    threads: Annotated[int, Meta(ge=0, le=1024)]
    """0: as many as there are cores."""
    idle_seconds: Seconds


class Faults(Group, frozen=True):
    """What the mock does wrong, for tests: each a share of the requests, from 0 to 1."""

    error: Annotated[float, Meta(ge=0, le=1)]
    """Answers 500."""
    stall: Annotated[float, Meta(ge=0, le=1)]
    """Accepts and never answers."""
    cut: Annotated[float, Meta(ge=0, le=1)]
    """Closes the connection in the middle of the answer."""
    wrong_usage: Annotated[float, Meta(ge=0, le=1)]
    """Reports ten times the tokens."""
    seed: int


class MockBackend(Group, frozen=True, tag_field="kind", tag="mock"):
    """A deterministic OpenAI-like server within the Worker."""

    models: dict[str, Model]
    parallel: Count
    tokens: Count
    """Tokens of an answer where the request does not limit it."""
    first_token_seconds: Annotated[float, Meta(ge=0)]
    token_seconds: Annotated[float, Meta(ge=0)]
    faults: Faults
    idle_seconds: Seconds


Backend = OpenAIBackend | LiteLLMBackend | SmolLM2Backend | MockBackend


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


class PrepaySettings(Group, frozen=True):
    """Client: what may be promised before it is delivered."""

    per_executor: Money
    """To one executor, over all requests that are open there."""
    newcomers: Money
    """To all executors together that have not delivered anything yet."""
    ahead: Annotated[float, Meta(ge=0, le=100)]
    """Requests like the present one that are paid for in advance, so that the next ones wait for nothing."""


class SettlementSettings(Group, frozen=True):
    """Executor: when vouchers are redeemed."""

    gas_multiple: Count
    """What is due should be so many times the cost of its gas."""
    share: Annotated[float, Meta(gt=0, le=1)]
    """Or this share of what the client has left in the contract."""
    age_seconds: Annotated[float, Meta(gt=0, le=31_536_000)]
    """What is due so long is redeemed if it is worth its gas."""
    check_seconds: Seconds
    """Pause between two looks at what is due."""


class AccountingSettings(Group, frozen=True):
    mode: Literal["off", "batched"]
    """off: receipts are numbered, signed and journaled, nobody pays. batched: paid by vouchers where there is a chain."""
    batch: Count
    """Receipts signed and committed together, at most."""
    batch_seconds: Seconds
    """How long the first of a batch waits for company."""
    report_seconds: Seconds
    """How long the receipt of a finished request waits for others before all of them go to the journal's process."""
    ready_seconds: Seconds
    """How long a call waits for a journal that is not open yet (start, restart)."""
    backlog: Count
    """Receipts that may wait while the journal is away or slow: at a Worker, and at the actor."""
    prepay: PrepaySettings
    budget: Money | None
    """Client: what may be promised within 24 hours; None: no limit but the deposit."""
    tolerance: Annotated[float, Meta(ge=0, le=10)]
    """Client: how much more tokens than it counts itself it accepts where the backend counts."""
    slack: Annotated[int, Meta(ge=0, le=1_000_000)]
    """Client: and so many tokens besides, for templates."""
    credit_limit: Money
    """Executor: what a client may owe beyond its vouchers."""
    window: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Executor: output tokens that are paid for before they are made."""
    credit_seconds: Seconds
    """Executor: how long an answer waits for credit before it is ended and billed."""
    closing_seconds: Seconds
    """Client: a lane that was idle so long gets a voucher over just what was accepted."""
    settlement: SettlementSettings


class Chain(Group, frozen=True):
    """One chain that money is on (EIP-155 id; CAIP-2 `eip155:<id>`)."""

    id: Annotated[int, Meta(ge=1, lt=1 << 53)]
    rpc: tuple[str, ...]
    """URLs of JSON-RPC servers, in order of preference."""
    rpc_env: str | None
    """Name of a variable with one more, which comes first; for URLs with a key in them."""
    contract: str | None
    """Address of the accounting contract; None: where command=deploy puts it on every chain."""
    token: str | None
    """Address of the ERC-20 that is paid in; None: the chain's own coin."""
    symbol: str
    decimals: Annotated[int, Meta(ge=0, le=36)]
    """Of the token that is paid in."""
    rate: Count
    """Millionths: prices on this chain are the offers' prices times this."""
    gas_rate: Count
    """Millionths: how many smallest units of the token one smallest unit of the chain's coin is worth."""
    finality: Literal["latest", "safe", "finalized"]
    """From which block on good news is believed; bad news is at once."""
    block_seconds: Seconds
    """Usual time between two blocks."""
    rpc_seconds: Seconds
    """One call of a server, after which the next one is asked."""
    max_fee: Money
    """Most that is paid for one unit of gas, in smallest units of the coin."""
    settle_above: Money
    """θ_abs: what a client may owe before it is redeemed in any case."""
    local: bool
    """A chain for tests on this machine (anvil), which is started if nobody answers."""


class RaySettings(Group, frozen=True):
    address: str | None
    """None: a cluster of the node's own, on loopback. Else a cluster with authentication."""
    dashboard: bool
    start_seconds: Seconds
    """How long the cluster may take to start."""
    restarts: Count
    """How often in a row an actor whose work fails is started again before the node gives up."""
    object_store: Count
    """Bytes of Ray's object store; no request crosses it, so it is small."""


class MetricsSettings(Group, frozen=True):
    """Numbers of an executor or a validator for Prometheus; a client's are at its gateway."""

    host: str
    """Loopback."""
    port: Port | None
    """None: they are not shown. 0: any free port."""


class LogSettings(Group, frozen=True):
    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["human", "json"]
    """What standard error gets."""
    file: str | None
    """Gets the same as JSON, one file for each process: its name comes before the suffix."""
    file_bytes: Count
    """A file of this size is set aside."""
    files: Count
    """That many of those are kept."""


class DemoSettings(Group, frozen=True):
    stay: bool
    model: str
    prompt: str
    executors: Annotated[int, Meta(ge=1, le=8)]
    input_price: Price
    """Of the built-in model, where there is a chain."""
    output_price: Price
    deposit: Money
    """What the demo's client pays in."""


class Settings(Group, frozen=True):
    """The whole tree."""

    role: Role
    command: Command
    model: str | None
    explain: str | None
    """command=models: why executors of this model are chosen or not."""
    prompt: str | None
    """One question, literally; `-` reads standard input."""
    output: Literal["text", "json", "csv"]
    home: str
    """Folder of keys and journals; each role has its own within."""
    identity: IdentitySettings
    keygen: KeygenSettings
    network: NetworkSettings
    dht: DhtSettings
    bridge: BridgeSettings
    gateway: GatewaySettings
    routing: RoutingSettings
    executor: ExecutorSettings
    validator: ValidatorSettings
    relay: RelaySettings
    llm: dict[str, Backend]
    accounting: AccountingSettings
    chain: dict[str, Chain]
    amount: str | None
    """Money for command=deposit and withdraw, in whole tokens: `0.05`."""
    source: Literal["ledger", "chain", "both"]
    """command=usage: the node's own journal, the contract's events, or both compared."""
    by: Literal["peer", "model", "day", "chain"]
    """command=usage: a line each."""
    ray: RaySettings
    metrics: MetricsSettings
    log: LogSettings
    demo: DemoSettings
