"""Where the contract stands: at one address on every chain (CREATE2), and whether that is really it. It owns nothing there.

Source: EIP-1014; the deterministic deployment proxy, github.com/Arachnid/deterministic-deployment-proxy.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from lloom.adapters.chain.answers import data
from lloom.adapters.chain.artifact import artifact
from lloom.adapters.chain.contract import text
from lloom.adapters.chain.rpc import Rpc
from lloom.core.errors import ConfigError
from lloom.core.identity import ADDRESS_BYTES, NodeId, checksum, keccak, parse_address
from lloom.core.settings import Chain, Settings

PROXY: Final = parse_address("0x4e59b44847b379578588920cA78FbF26c0B4956C")
"""Deploys what it is sent: 32 bytes of salt, then the code."""
SALT: Final = bytes(32)


def address() -> NodeId:
    """Where the contract is on every chain, once somebody deployed it there: it follows from its code alone."""
    code = keccak(artifact().creation)
    return NodeId(keccak(b"\xff" + PROXY + SALT + code)[-ADDRESS_BYTES:])


def resolved(settings: Settings) -> Settings:
    """The same settings with the contract's address on every chain. It asks nobody."""
    chains = {name: _resolved(chain) for name, chain in settings.chain.items()}
    return replace(settings, chain=chains) if chains else settings


def deployment() -> bytes:
    """What to send to the proxy."""
    return SALT + artifact().creation


async def deployed(rpc: Rpc, contract: bytes) -> bool:
    """Whether the contract stands at that address; ConfigError if something else does."""
    code = await rpc.ask(data, "eth_getCode", text(contract), "latest")
    if code and artifact().masked(code) != artifact().deployed:
        raise ConfigError(
            f"chain.{rpc.name}.contract: what stands at {checksum(NodeId(contract))} is not the accounting contract of "
            "this version of Lloom"
        )
    return bool(code)


async def check(rpc: Rpc, contract: bytes) -> None:
    """ConfigError unless the contract stands at that address."""
    if not await deployed(rpc, contract):
        raise ConfigError(
            f"chain.{rpc.name}: there is no contract at {checksum(NodeId(contract))}; "
            f"command=deploy chain={rpc.name} puts it there"
        )


def _resolved(chain: Chain) -> Chain:
    return chain if chain.contract is not None else replace(chain, contract=checksum(address()))
