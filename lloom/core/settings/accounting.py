"""What is promised, paid and settled, and the chains that money is on."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lloom.core.settings.base import Count, Group, Money, Seconds


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


class L1Oracle(Group, frozen=True):
    """Of an OP stack chain: its contract that says what a transaction's bytes cost on Ethereum."""

    address: str
    max_fee: Money
    """Most that a byte is believed to cost, in smallest units of the coin."""


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
    l1_oracle: L1Oracle | None
    """None: nothing is paid for bytes besides their gas."""
    settle_above: Money
    """θ_abs: what a client may owe before it is redeemed in any case."""
    local: bool
    """A chain for tests on this machine (anvil), which is started if nobody answers."""
