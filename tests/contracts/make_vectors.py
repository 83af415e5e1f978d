"""Writes vectors.json: digests, signatures, hashes and costs that Python and Solidity have to agree on.

Nothing of Lloom computes them: typed data by eth-account, ABI words by eth-abi, costs by fractions. Run it to make the file anew.
"""

from __future__ import annotations

import json
import random
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, Final

from eth_abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak

PLACE: Final = Path(__file__).parent / "vectors.json"

ZERO: Final = "0x" + "00" * 20
EXECUTOR: Final = "0x" + "e8ec" * 10
TOKEN: Final = "0x" + "70" * 20
MOST: Final = "0x" + "ff" * 20
KEYS: Final = ("0x" + "11" * 32, "0x" + f"{1:064x}", "0x" + "fe" * 32)
DOMAINS: Final = ((0, ZERO), (31337, "0x" + "5f" * 20), (11155111, "0x" + "ac" * 20), ((1 << 63) - 1, MOST))
"""Chain id and contract: none, a local chain's, a test net's, and extreme ones."""

TYPES: Final = {
    "Voucher": "address client,address executor,address token,uint64 lane,uint128 cumulative,uint128 accepted,bytes32 usageHash",
    "Reserve": "address client,address executor,address token,uint64 lane,uint128 total,uint64 deadline",
    "SignerProof": "address client,address signer,uint40 validUntil,uint8 flags,uint256 deadline",
}
NO_USAGE: Final = "0x" + keccak(encode(["(bytes32,uint80,uint80,uint56)[]"], [[]])).hex()

U8, U40, U56, U64, U80, U128 = ((1 << bits) - 1 for bits in (8, 40, 56, 64, 80, 128))


def signed(name: str, key: str, domain: tuple[int, str], values: dict[str, Any]) -> dict[str, str]:
    """One case: the members as text, where and by whom it is signed, the digest and the 64-byte signature."""
    chain_id, contract = domain
    members = [dict(zip(("type", "name"), member.split(" "), strict=True)) for member in TYPES[name].split(",")]
    described = {"name": "Lloom", "version": "1", "chainId": chain_id, "verifyingContract": contract}
    message = encode_typed_data(described, {name: members}, values)
    made = Account.sign_message(message, key)
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    return {
        "key": key,
        "chainId": str(chain_id),
        "contract": contract,
        **{member: str(value) for member, value in values.items()},
        "digest": "0x" + digest.hex(),
        "r": f"0x{made.r:064x}",
        "vs": f"0x{made.s | (made.v - 27) << 255:064x}",
    }


def voucher(key: str, domain: int, to: tuple[str, str], lane: int, owed: tuple[int, int], usage: str) -> dict[str, str]:
    """`owed`: all that is promised, and what of it is accepted."""
    client, (executor, token) = address(key), to
    members = ("client", "executor", "token", "lane", "cumulative", "accepted", "usageHash")
    values = dict(zip(members, (client, executor, token, lane, *owed, usage), strict=True))
    lane_id = keccak(encode(["address", "address", "address", "uint64"], [client, executor, token, lane]))
    return signed("Voucher", key, DOMAINS[domain], values) | {"laneId": "0x" + lane_id.hex()}


def reserve(key: str, domain: int, to: tuple[str, str], lane: int, total: int, deadline: int) -> dict[str, str]:
    members = ("client", "executor", "token", "lane", "total", "deadline")
    values = dict(zip(members, (address(key), *to, lane, total, deadline), strict=True))
    return signed("Reserve", key, DOMAINS[domain], values)


def proof(key: str, domain: int, client: str, valid_until: int, flags: int, deadline: int) -> dict[str, str]:
    members = ("client", "signer", "validUntil", "flags", "deadline")
    values = dict(zip(members, (client, address(key), valid_until, flags, deadline), strict=True))
    return signed("SignerProof", key, DOMAINS[domain], values)


def address(key: str) -> str:
    return str(Account.from_key(key).address).lower()


def usage(entries: list[tuple[str, int, int, int]]) -> dict[str, Any]:
    """Usage in columns, as Solidity's JSON cheat codes read it, and its hash."""
    rows = [(bytes.fromhex(model[2:]), *numbers) for model, *numbers in entries]
    return {
        "models": [model for model, *_ in entries],
        "inputTokens": [str(row[1]) for row in rows],
        "outputTokens": [str(row[2]) for row in rows],
        "requests": [str(row[3]) for row in rows],
        "hash": "0x" + keccak(encode(["(bytes32,uint80,uint80,uint56)[]"], [rows])).hex(),
    }


def usages() -> list[dict[str, Any]]:
    draw = random.Random(712)
    models = sorted("0x" + keccak(f"model {number}".encode()).hex() for number in range(16))
    return [
        usage([]),
        usage([(models[0], 1200, 340, 7)]),
        usage([("0x" + "00" * 32, 0, 0, 0), (models[3], 1, U80, 0), ("0x" + "ff" * 32, U80, U80, U56)]),
        usage([(model, draw.randrange(1 << 40), draw.randrange(1 << 40), draw.randrange(1 << 32)) for model in models]),
    ]


def cost(tokens: tuple[int, int, int], prices: tuple[int, int, int], fee: int) -> dict[str, str]:
    """`tokens` and `prices`: input, cached, output; prices per million tokens."""
    names = ("inputTokens", "cachedTokens", "outputTokens", "inputPrice", "cachedPrice", "outputPrice", "requestFee")
    owed = fee + ceil(sum(Fraction(count * price, 10**6) for count, price in zip(tokens, prices, strict=True)))
    return dict(zip((*names, "cost"), map(str, (*tokens, *prices, fee, owed)), strict=True))


def vectors() -> dict[str, Any]:
    first, second, third = KEYS
    counted = usages()
    return {
        "types": {name: f"{name}({members})" for name, members in TYPES.items()},
        "vouchers": [
            voucher(first, 1, (EXECUTOR, ZERO), 0, (1, 1), NO_USAGE),
            voucher(second, 2, (EXECUTOR, TOKEN), 1, (10**18, 10**17), counted[1]["hash"]),
            voucher(third, 3, (MOST, MOST), U64, (U128, U128), "0x" + "ff" * 32),
            voucher(first, 0, (ZERO, ZERO), 0, (0, 0), "0x" + "00" * 32),
            voucher(second, 1, (EXECUTOR, ZERO), 1 << 32, (1 << 64, 1 << 63), counted[3]["hash"]),
        ],
        "reserves": [
            reserve(first, 1, (EXECUTOR, ZERO), 0, 1, 1_800_000_000),
            reserve(second, 2, (EXECUTOR, ZERO), 7, 10**18, 0),
            reserve(third, 3, (MOST, ZERO), U64, U128, U64),
            reserve(first, 0, (ZERO, ZERO), 0, 0, 0),
        ],
        "signerProofs": [
            proof(first, 1, EXECUTOR, 1_800_086_400, 0, 1_800_000_000),
            proof(second, 2, TOKEN, 2, 1, 1),
            proof(third, 3, MOST, U40, U8, U40 - 1),
            proof(first, 1, EXECUTOR, U40, 1, (1 << 256) - 1),
            proof(second, 0, ZERO, 0, 0, 0),
        ],
        "usages": counted,
        "costs": [
            cost((0, 0, 0), (0, 0, 0), 0),
            cost((0, 0, 0), (150_000, 75_000, 600_000), 5),
            cost((1, 0, 0), (1, 0, 0), 0),
            cost((1, 1, 1), (333_333, 333_333, 333_334), 0),
            cost((1, 1, 1), (333_333, 333_334, 333_334), 0),
            cost((1200, 800, 340), (150_000, 75_000, 600_000), 0),
            cost((1200, 800, 340), (15 * 10**16, 75 * 10**15, 6 * 10**17), 10**12),
            cost((U40, U40, U40), (10**24, 10**24, 10**24), U64),
            cost(((1 << 32) - 1, 0, (1 << 32) - 1), (U64, U64, U64), U128 >> 1),
        ],
    }


def text() -> str:
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    PLACE.write_text(text())
