"""The chains that money is on: does a server answer, is the contract there, has this role what it needs. It sends nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final

from lloom.adapters.chain import deployment, gas
from lloom.adapters.chain.contract import Contract, text
from lloom.adapters.chain.oracle import Oracle
from lloom.adapters.chain.rpc import Rpc, urls
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.finding import Finding, ok, problem, warning
from lloom.core.identity import Identity, checksum, parse_address
from lloom.core.payment import units
from lloom.core.payment.domain import paying, token_of
from lloom.core.payment.fees import price
from lloom.core.payment.settlement import BATCH_BYTES, BATCH_GAS, FIRST_GAS, LANE_BYTES
from lloom.core.settings import Chain, Settings
from lloom.core.visitors import payer

COIN_DECIMALS: Final = 18
FEW: Final = 10
"""Settlements that an executor should have gas for."""


async def check(
    settings: Settings, identity: Identity | None, secrets: Mapping[str, str]
) -> AsyncGenerator[Finding, None]:
    """A finding for each chain. `identity` None: there is no key yet; `secrets`: URLs of servers by variable."""
    if settings.accounting.mode == "off" or not settings.chain:
        yield ok("chain", "none: nobody is paid" if not settings.chain else "accounting=off: nobody is paid")
        return
    for name, chain in deployment.resolved(settings).chain.items():
        pays = name in paying(settings)
        owner = payer(identity, settings) if pays and identity is not None else identity
        yield await _one(name, chain, "payer" if pays else settings.role, owner, urls(chain, secrets))


async def _one(name: str, chain: Chain, role: str, identity: Identity | None, servers: tuple[str, ...]) -> Finding:
    what = f"chain {name}"
    rpc = Rpc.open(name, chain, servers)
    assert chain.contract is not None
    try:
        await rpc.survey()
        await deployment.check(rpc, parse_address(chain.contract))
        if identity is None or role not in ("payer", "executor"):
            return ok(what, f"the contract is at {chain.contract}")
        if role == "payer":
            return await _payer(what, name, chain, rpc, identity)
        return await _executor(what, chain, rpc, identity)
    except ConfigError as error:
        advice = f"command=deploy chain={name}, or name the right one: chain.{name}.contract=0x…"
        return problem(what, str(error), advice)
    except RetryElsewhere as error:
        if chain.local:
            return ok(what, f"no server answers at {', '.join(chain.rpc)}: a node starts one of its own")
        return problem(what, str(error), f"name a server that answers: chain.{name}.rpc=[https://…]")
    finally:
        await rpc.close()


async def _payer(what: str, name: str, chain: Chain, rpc: Rpc, identity: Identity) -> Finding:
    assert chain.contract is not None
    funds = await Contract(rpc, parse_address(chain.contract)).funds(identity.address, token_of(chain))
    if not funds.available:
        return warning(
            what, "nothing is paid in: only free executors will answer", f"command=deposit chain={name} amount=…"
        )
    return ok(what, f"{units.show(funds.available, chain.decimals)} {chain.symbol} is paid in")


async def _executor(what: str, chain: Chain, rpc: Rpc, identity: Identity) -> Finding:
    """Redeeming takes gas, which the executor pays in the chain's own coin."""
    assert chain.contract is not None
    earned = await Contract(rpc, parse_address(chain.contract)).earned(identity.address, token_of(chain))
    market = await gas.market(rpc)
    data = await Oracle(rpc, chain).fee(BATCH_BYTES + LANE_BYTES)
    one = (BATCH_GAS + FIRST_GAS) * price(market.base_fee, market.fees) + data
    coin = int(str(await rpc.call("eth_getBalance", text(identity.address), "latest")), 16)
    told = f"{units.show(earned, chain.decimals)} {chain.symbol} earned; {units.show(coin, COIN_DECIMALS)} of the coin for gas"
    if coin < FEW * one:
        short = "which does not pay one settlement" if coin < one else f"which pays {coin // one} settlements"
        advice = f"send some of the chain's coin to {checksum(identity.address)}"
        return (problem if coin < one else warning)(what, f"{told}, {short}", advice)
    return ok(what, told)
