"""Money by command: deploy, deposit, withdraw, settle, on a real chain, with time that is made to pass."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chain_support import FINNEY, ORACLE, Local
from loguru import logger
from money_support import accounting

from lloom.__main__ import main
from lloom.adapters.chain import anvil, deployment
from lloom.adapters.journal import lanes, receipts
from lloom.adapters.journal.writer import Writer
from lloom.core.billing.receipt import Draft, Status, sign_receipt
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, checksum
from lloom.core.payment.receivable import Receivable
from lloom.core.payment.voucher import CheckedVoucher

HOURS = 3600
TOKEN = bytes.fromhex(
    "6080604052348015600e575f5ffd5b50335f908152602081905260409020624c4b409055610328806100305f395ff3fe60806040523480"
    "1561000f575f5ffd5b5060043610610055575f3560e01c8063095ea7b31461005957806323b872dd1461008157806370a0823114610094"
    "578063a9059cbb146100c1578063dd62ed3e146100d4575b5f5ffd5b61006c61006736600461023b565b6100fe565b6040519015158152"
    "6020015b60405180910390f35b61006c61008f366004610263565b61012b565b6100b36100a236600461029d565b5f6020819052908152"
    "604090205481565b604051908152602001610078565b61006c6100cf36600461023b565b6101c6565b6100b36100e23660046102bd565b"
    "600160209081525f928352604080842090915290825290205481565b335f9081526001602081815260408084206001600160a01b038716"
    "85529091529091208290555b92915050565b6001600160a01b0383165f9081526001602090815260408083203384529091528120805483"
    "9190839061015f908490610302565b90915550506001600160a01b0384165f908152602081905260408120805484929061018b90849061"
    "0302565b90915550506001600160a01b0383165f90815260208190526040812080548492906101b7908490610315565b90915550600195"
    "945050505050565b335f908152602081905260408120805483919083906101e6908490610302565b90915550506001600160a01b038316"
    "5f9081526020819052604081208054849290610212908490610315565b909155506001949350505050565b80356001600160a01b038116"
    "8114610236575f5ffd5b919050565b5f5f6040838503121561024c575f5ffd5b61025583610220565b946020939093013593505050565b"
    "5f5f5f60608486031215610275575f5ffd5b61027e84610220565b925061028c60208501610220565b9295929450505060409190910135"
    "90565b5f602082840312156102ad575f5ffd5b6102b682610220565b9392505050565b5f5f604083850312156102ce575f5ffd5b6102d7"
    "83610220565b91506102e560208401610220565b90509250929050565b634e487b7160e01b5f52601160045260245ffd5b818103818111"
    "15610125576101256102ee565b80820180821115610125576101256102ee56"
)
"""A token that gives five million to who deploys it: balances, allowances, transfer, nothing else (solc 0.8.37)."""
ROOT = Path(__file__).resolve().parents[2]
Lloom = Callable[..., Coroutine[Any, Any, "Done"]]


@dataclass
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
async def lloom(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> AsyncIterator[Lloom]:
    """Runs a command as `who` on the test's chain."""
    monkeypatch.setenv("LLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ACCOUNTING_CONTRACT", raising=False)

    async def run(*words: str, who: Identity | None, variable: str = "LLOOM_PRIVATE_KEY") -> Done:
        if who is not None:
            monkeypatch.setenv(variable, who.secret.hex())
        capfd.readouterr()
        chain = () if any(word.startswith("chain.anvil.rpc") for word in words) else (f"chain.anvil.rpc=[{local.url}]",)
        status = await asyncio.to_thread(main, ["chain=anvil", *chain, *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        if who is not None:
            assert who.secret.hex() not in out + err
        return Done(status, out, err)

    yield run
    logger.remove()  # it writes to what this test's standard error was
    logger.add(sys.stderr)


async def coins(local: Local, who: Identity) -> int:
    return int(await local.call("eth_getBalance", "0x" + who.address.hex(), "latest"), 16)


async def test_money_that_is_paid_in_can_be_taken_out_once_it_has_thawed(local: Local, lloom: Lloom) -> None:
    client = await local.person()
    paid = await lloom("command=deposit", "amount=0.05", who=client)
    assert paid.status == 0
    assert "0 ETH → 0.05 ETH" in paid.out
    assert "gas" in paid.out
    assert "paying in: sent 0x" in paid.err
    more = (await lloom("command=deposit", "amount=0.01", "output=json", who=client)).json
    assert (more["before"], more["after"]) == (str(50 * FINNEY), str(60 * FINNEY))
    assert more["gas"] > 21_000

    begun = await lloom("command=withdraw", "role=client", "amount=0.02", who=client)
    assert "0.02 ETH thaw for 48 h 0 min more" in begun.out
    early = (await lloom("command=withdraw", "role=client", "output=json", who=client)).json
    assert early["state"] == "thawing"
    assert 47 * HOURS < early["seconds"] <= 48 * HOURS
    assert "transaction" not in early
    await local.call("evm_increaseTime", hex(48 * HOURS + 1))
    await local.mine()
    before = await coins(local, client)
    taken = (await lloom("command=withdraw", "role=client", "output=json", who=client)).json
    assert (taken["state"], taken["amount"], taken["left"]) == ("withdrawn", str(20 * FINNEY), str(40 * FINNEY))
    assert await coins(local, client) == before + 20 * FINNEY - int(taken["gas_cost"])


async def test_a_validator_pays_into_its_purse_and_another_number_is_another_one(local: Local, lloom: Lloom) -> None:
    validator = await local.person()
    words = ("role=validator", "output=json")
    for purse in (0, 1):
        paid = await lloom("command=deposit", "amount=0.01", f"validator.purse={purse}", *words, who=validator)
        assert (paid.json["before"], paid.json["after"]) == ("0", str(10 * FINNEY)), paid.err
        assert checksum(validator.address) not in paid.out
    begun = await lloom("command=withdraw", *words, who=validator)
    assert (begun.json["state"], begun.json["amount"]) == ("thawing", str(10 * FINNEY))


async def test_another_amount_begins_the_thaw_anew_and_no_amount_means_all(local: Local, lloom: Lloom) -> None:
    client = await local.client(60 * FINNEY)
    assert "0.06 ETH thaw" in (await lloom("command=withdraw", "role=client", who=client)).out
    await local.call("evm_increaseTime", hex(HOURS))
    await local.mine()
    again = await lloom("command=withdraw", "role=client", "amount=0.01", who=client)
    assert "0.01 ETH thaw for 48 h" in again.out
    assert "the thaw of 0.06 ETH is replaced" in again.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["command=withdraw", "role=client", "amount=2"], "holds 1 ETH, not 2 ETH"),
        (["command=deposit", "amount=100"], "which does not pay 100 and the gas"),
        (["command=withdraw", "role=executor"], "nothing is earned on anvil yet; command=settle"),
        (["command=deposit", "amount=1", "chain.anvil.id=5"], "serves the chain 31337, not 5"),
        (["command=deposit", "amount=0.1", "chain.anvil.max_fee=1"], "chain.anvil.max_fee allows"),
        (
            ["command=deposit", "amount=1", f"chain.anvil.contract='0x{'11' * 20}'"],
            "command=deploy chain=anvil puts it there",
        ),
        (["command=deposit", "amount=1", "chain.anvil.rpc=[http://127.0.0.1:9]"], "A node with chain=anvil starts one"),
    ],
)
async def test_what_cannot_be_is_told_in_one_sentence(local: Local, lloom: Lloom, words: list[str], told: str) -> None:
    done = await lloom(*words, who=await local.client())
    assert done.status in (1, 2)
    assert done.out == ""
    (line,) = (line for line in done.err.splitlines() if line.startswith("lloom: "))
    assert told in line


async def test_an_empty_account_is_told(local: Local, lloom: Lloom) -> None:
    done = await lloom("command=withdraw", "role=client", who=await local.person())
    assert (done.status, done.out) == (1, "")
    assert "nothing in this account on anvil" in done.err


async def test_on_a_chain_for_tests_who_has_nothing_is_given_something(local: Local, lloom: Lloom) -> None:
    done = await lloom("command=deposit", "amount=0.5", who=Identity.generate())
    assert done.status == 0
    assert "this is a chain for tests" in done.err


async def test_the_contract_is_deployed_once_at_one_address(lloom: Lloom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLOOM_PRIVATE_KEY", raising=False)
    with anvil.started(31337) as empty:
        where = f"chain.anvil.rpc=[{empty}]"
        first = await lloom("command=deploy", where, who=anvil.RICH, variable="PRIVATE_KEY")
        assert first.status == 0, first.err
        assert checksum(deployment.address()) in first.err
        assert "deployed in block 1 for" in first.err
        monkeypatch.setenv("PRIVATE_KEY", anvil.RICH.secret.hex())
        second = await lloom("command=deploy", where, "output=json", who=anvil.RICH, variable="PRIVATE_KEY")
        (told,) = second.json
        assert told == {"chain": "anvil", "contract": checksum(deployment.address()), "deployed": False}


async def test_a_chain_without_the_deployment_proxy_gets_it(lloom: Lloom) -> None:
    with anvil.started(31337, options=("--disable-default-create2-deployer",)) as bare:
        done = await lloom("command=deploy", f"chain.anvil.rpc=[{bare}]", "output=json", who=anvil.RICH)
        assert done.status == 0, done.err
        assert "which this chain lacks (0.01)" in done.err
        (told,) = done.json
        assert told["deployed"] is True


async def test_an_erc20_is_allowed_and_paid_in(local: Local, lloom: Lloom) -> None:
    client = await local.person()
    token = await token_for(local, client)
    words = (f"chain.anvil.token='0x{token.hex()}'", "chain.anvil.decimals=6", "chain.anvil.symbol=USD")
    paid = await lloom("command=deposit", "amount=1.5", *words, who=client)
    assert paid.status == 0, paid.err
    assert "0 USD → 1.5 USD" in paid.out
    assert "allowing the transfer: sent" in paid.err
    much = await lloom("command=deposit", "amount=4", *words, who=client)
    assert much.status == 1
    assert "not 4000000" in much.err


Holds = Callable[[Identity, CheckedVoucher, int], Coroutine[Any, Any, None]]


@pytest.fixture
async def holds(tmp_path: Path) -> AsyncIterator[Holds]:
    """Puts a voucher, and what was charged, into the journal of an executor, which stays open as that of a running node."""
    opened: list[tuple[Writer, asyncio.Task[None]]] = []

    async def put(executor: Identity, claim: CheckedVoucher, charged: int) -> None:
        path = tmp_path / "home" / "executor" / f"ledger-anvil-{checksum(executor.address)}.sqlite"
        writer = Writer(path, accounting())
        await writer.open()
        opened.append((writer, asyncio.create_task(writer.run())))
        await writer.write(lambda db: lanes.save(db, None, Receivable(lane=claim.lane, charged=charged)), 1)
        await writer.write(lambda db: lanes.keep(db, claim, 1.0), 1)
        served = [
            Draft(
                lane=claim.lane,
                request_digest=usage.model,
                model=usage.model,
                response_hash=bytes(32),
                response_bytes=9,
                input_tokens=1,
                cached_tokens=0,
                output_tokens=1,
                cost=0,
                started_at=1,
                finished_at=2,
                status=Status.COMPLETE,
            )
            for usage in claim.usages
        ]
        signing = partial(sign_receipt, identity=executor, domain=Domain())
        await writer.write(lambda db: receipts.issue(db, served, signing), 1)

    yield put
    for writer, running in opened:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await writer.close()


async def test_what_the_journal_holds_is_redeemed_once_and_taken_out(local: Local, lloom: Lloom, holds: Holds) -> None:
    executor, client = await local.person(), await local.client()
    await holds(executor, local.voucher(client, executor, 9 * FINNEY), 7 * FINNEY)
    done = await lloom("command=settle", who=executor)
    assert done.status == 0, done.err
    assert "anvil: 0.007 ETH redeemed" in done.out
    assert "1 of 1 vouchers" in done.err
    (again,) = (await lloom("command=settle", "output=json", who=executor)).json
    assert (again["redeemed"], again["earned"], again["transactions"]) == ("0", str(7 * FINNEY), [])
    part = await lloom("command=withdraw", "role=executor", "amount=0.003", who=executor)
    assert "0.003 ETH taken out, 0.004 ETH left" in part.out
    rest = (await lloom("command=withdraw", "role=executor", "output=json", who=executor)).json
    assert (rest["amount"], rest["left"]) == (str(4 * FINNEY), "0")


async def test_a_voucher_that_is_not_worth_its_gas_is_kept(local: Local, lloom: Lloom, holds: Holds) -> None:
    executor, client = await local.person(), await local.client()
    await holds(executor, local.voucher(client, executor, 7 * FINNEY), 1000)
    done = await lloom("command=settle", who=executor)
    assert done.status == 0
    assert "and redeeming them costs" in done.err
    assert "anvil: 0 ETH redeemed" in done.out


async def test_the_bytes_of_a_settlement_are_held_against_what_it_brings(
    local: Local, lloom: Lloom, holds: Holds
) -> None:
    executor, client = await local.person(), await local.client()
    await local.oracle(10**13)
    await holds(executor, local.voucher(client, executor, 7 * FINNEY), 7 * FINNEY)
    words = ("command=settle", f"chain.anvil.l1_oracle={{address:'{ORACLE}',max_fee:{10**13}}}")
    kept = await lloom(*words, who=executor)
    assert "1 vouchers would bring 0.007 ETH, and redeeming them costs 0.007" in kept.err
    assert "anvil: 0 ETH redeemed" in kept.out
    await local.oracle(10**9)
    assert "anvil: 0.007 ETH redeemed" in (await lloom(*words, who=executor)).out


async def test_an_executor_without_a_journal_has_nothing_to_redeem(local: Local, lloom: Lloom) -> None:
    done = await lloom("command=settle", who=await local.person())
    assert done.status == 0
    assert "holds no voucher" in done.err


async def test_a_local_chain_is_started_with_the_contract_and_ends_with_its_user() -> None:
    """Also when that user is killed."""
    script = (
        "import asyncio, sys\n"
        "from lloom.adapters.chain import anvil\n"
        "from money_support import chain\n"
        "with anvil.started(31337) as url:\n"
        "    print(url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    user = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert user.stdout is not None
    url = (await asyncio.wait_for(user.stdout.readline(), 30)).decode().strip()
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    user.kill()
    await user.wait()
    assert await asyncio.wait_for(reader.read(), 10) == b"", "its socket closes when it ends"
    writer.close()


async def token_for(local: Local, who: Identity) -> bytes:
    """An ERC-20 of which `who` has five million."""
    address = "0x" + who.address.hex()
    await local.still()
    await local.call("anvil_impersonateAccount", address)
    sent = await local.call("eth_sendTransaction", {"from": address, "data": "0x" + TOKEN.hex()})
    await local.mine()
    await local.call("anvil_stopImpersonatingAccount", address)
    await local.call("evm_setAutomine", True)
    return bytes.fromhex((await local.call("eth_getTransactionReceipt", sent))["contractAddress"][2:])
