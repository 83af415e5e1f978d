"""What commands do with money: deploy the contract, pay in, take out. Each step says what it does; none is journaled."""

from __future__ import annotations

from typing import Final

from lloom.adapters.chain import deployment
from lloom.adapters.chain.answers import data
from lloom.adapters.chain.contract import calldata, text
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.rpc import Refused
from lloom.adapters.chain.wallet import Mined, Wallet
from lloom.core.errors import LloomError
from lloom.core.identity import checksum, keccak, parse_address
from lloom.core.payment import units

COIN: Final = bytes(20)
"""As a token: the chain's own coin."""
PROXY_OWNER: Final = parse_address("0x3fAB184622Dc19b6109349B94811493BF2a45362")
PROXY_COSTS: Final = 10**16
"""Gas price and limit of the presigned transaction are part of it."""
PROXY_TRANSACTION: Final = bytes.fromhex(
    "f8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffffffffffffffffffffffffffff"
    "ffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf31ba0222222222222222222222222"
    "2222222222222222222222222222222222222222a02222222222222222222222222222222222222222222222222222222222222222"
)
"""Puts the deployment proxy where it is on every chain; nobody has the key that signed it (Nick's method)."""


async def deploy(wallet: Wallet) -> Mined | None:
    """Puts the contract where it belongs on every chain; None if it is there already."""
    if await deployment.deployed(wallet.rpc, deployment.address()):
        return None
    if not await wallet.rpc.ask(data, "eth_getCode", text(deployment.PROXY), "latest"):
        await _deploy_proxy(wallet)
    return await wallet.send(Transaction(deployment.PROXY, deployment.deployment()), "deploying the contract")


async def deposit(wallet: Wallet, contract: bytes, token: bytes, amount: int) -> list[Mined]:
    """Pays `amount` into the wallet's own account, allowing the contract first to take it if it is an ERC-20."""
    call = Transaction(contract, calldata("deposit", wallet.address, token, amount), 0 if token != COIN else amount)
    if token == COIN:
        return [await wallet.send(call, "paying in")]
    has = await _read(wallet, token, "balanceOf(address)", wallet.address)
    if has < amount:
        raise LloomError(
            f"paying in: {checksum(wallet.identity.address)} has {has} smallest units of the token, not {amount}"
        )
    done = []
    if await _read(wallet, token, "allowance(address,address)", wallet.address, contract) < amount:
        done.append(
            await wallet.send(_erc20(token, "approve(address,uint256)", contract, amount), "allowing the transfer")
        )
    return [*done, await wallet.send(call, "paying in")]


async def start_thaw(wallet: Wallet, contract: bytes, token: bytes, amount: int) -> Mined:
    """Announces that `amount` is to be taken out."""
    return await wallet.send(Transaction(contract, calldata("startThaw", token, amount)), "starting the thaw")


async def withdraw(wallet: Wallet, contract: bytes, token: bytes) -> Mined:
    """Takes out what has thawed, to the wallet's own address."""
    return await wallet.send(Transaction(contract, calldata("withdraw", token, wallet.address)), "taking out")


async def withdraw_earnings(wallet: Wallet, contract: bytes, token: bytes, amount: int) -> Mined:
    """Takes out of the wallet's earnings, to its own address."""
    data = calldata("withdrawEarnings", token, wallet.address, amount)
    return await wallet.send(Transaction(contract, data), "taking out")


async def _deploy_proxy(wallet: Wallet) -> None:
    await wallet.send(
        Transaction(PROXY_OWNER, b"", PROXY_COSTS),
        f"paying for the deployment proxy, which this chain lacks ({units.show(PROXY_COSTS, 18)})",
    )
    try:
        await wallet.rpc.call("eth_sendRawTransaction", text(PROXY_TRANSACTION))
    except Refused as error:
        raise LloomError(
            f"{wallet.rpc.name} lacks the deployment proxy {checksum(deployment.PROXY)} and refuses the transaction that "
            f"makes it ({error.reason}); ask the chain's operator for it, or deploy the contract yourself and say "
            f"chain.{wallet.rpc.name}.contract=0x…"
        ) from error
    await wallet.mined(keccak(PROXY_TRANSACTION), "deploying the deployment proxy")


async def _read(wallet: Wallet, token: bytes, signature: str, *addresses: bytes) -> int:
    call = {"to": text(token), "data": text(_call(signature, *addresses))}
    return int.from_bytes(await wallet.rpc.ask(data, "eth_call", call, "latest"), "big")


def _erc20(token: bytes, signature: str, *values: bytes | int) -> Transaction:
    return Transaction(token, _call(signature, *values))


def _call(signature: str, *values: bytes | int) -> bytes:
    """Calldata of one word each."""
    encoded = (value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0") for value in values)
    return keccak(signature.encode())[:4] + b"".join(encoded)
