"""The doctor over real sockets: a healthy node, a closed port, a wrong clock and dead validators are told apart."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lloom.__main__ import compose
from lloom.actors import trial
from lloom.adapters.bridge import Link, Listener, Service
from lloom.adapters.dht import Dht
from lloom.adapters.doctor import backends, machine, network, ports, visit
from lloom.adapters.machine import home, mdns
from lloom.adapters.validator.dialback import DialBack
from lloom.adapters.validator.service import Service as Counter
from lloom.commands import doctor
from lloom.core.catalogue import Catalogue
from lloom.core.configuration import argv, checks
from lloom.core.errors import RetryElsewhere
from lloom.core.finding import Finding, ok
from lloom.core.identity import Identity, checksum
from lloom.core.messages import ReachCall
from lloom.core.offer import Endpoint, ModelOffer, Offer, seal
from lloom.core.settings import Settings
from tests.free_ports import free_port
from tests.integration import bridge_support, dht_support
from tests.integration.bridge_support import NETWORK, certificate
from tests.integration.llm_support import mock
from tests.integration.test_prober import SETTINGS as VALIDATOR


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "SECOND_CHANCE", 0.4)


def settings(*words: str, seeds: tuple[str, ...] = (), **changes: Any) -> Settings:
    """Those of an executor on loopback whose validators are `seeds`, quick to give up."""
    tree = compose(argv.rewrite(["role=executor", "llm=mock", *words]))
    assert tree is not None
    found = checks.settings(tree)
    quick = replace(found.dht, rpc_seconds=0.3, lookup_seconds=1)
    chosen = replace(found.network, name=NETWORK, bootstrap=seeds, port=0)
    return replace(found, dht=quick, network=replace(chosen, **changes))


@dataclass
class Validator:
    me: Identity
    dht: Dht
    catalogue: Catalogue

    @property
    def seed(self) -> str:
        return f"{checksum(self.me.address)}@127.0.0.1:{self.dht.port}"

    def put(self, executor: Identity) -> None:
        terms: dict[str, Any] = {"context": 4096, "max_output": 512, "parallel": 1, "encoding": "o200k_base"}
        said = Offer(
            executor=executor.address,
            seq=1,
            expires=int(time.time() + 600),
            endpoints=(Endpoint("127.0.0.1", 9),),
            models=(ModelOffer(id="m", backend="mock", **terms),),
            software="test",
        )
        assert self.catalogue.put_offer(seal(said, executor, NETWORK), said, time.time())


@asynccontextmanager
async def validator(*, bridge: bool = True) -> AsyncIterator[Validator]:
    """One that answers over UDP and, with `bridge`, over TCP; an executor has registered."""
    me, catalogue = Identity.generate(), Catalogue(10, 1)
    dht = await Dht.start(me, dht_support.network(name=NETWORK, port=free_port()), dht_support.SETTINGS, client=False)
    back = DialBack(Link(me, NETWORK, bridge_support.settings(connect_seconds=1)))
    counter = Counter(catalogue, NETWORK, VALIDATOR, lambda: {}, {ReachCall: back.answer})
    service = Service(me.address, NETWORK, bridge_support.settings(), counter.handle, lambda _, __: None)
    listener = await Listener.start("127.0.0.1", dht.port if bridge else 0, certificate(me), service)
    found = Validator(me, dht, catalogue)
    found.put(Identity.generate())
    try:
        yield found
    finally:
        await listener.close()
        await dht.stop()


async def diagnosis(chosen: Settings, **changes: Any) -> dict[str, Finding]:
    """What is found of the network, by check."""
    options: dict[str, Any] = {"identity": None, "running": False, **changes}
    async with asyncio.timeout(20):
        return {found.check: found async for found in network.check(chosen, **options)}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {check.partition(" ")[0]: finding.verdict for check, finding in found.items()}


WELL = dict.fromkeys(("clock", "bootstrap", "address", "reachability", "DHT", "catalogue"), "ok")


async def test_a_healthy_node_is_well() -> None:
    async with validator() as one, validator() as other:
        found = await diagnosis(settings(seeds=(one.seed, other.seed)))
        assert verdicts(found) == WELL
        assert checksum(one.me.address) in found[f"bootstrap {one.seed}"].found
        assert "validators reach 127.0.0.1" in found["reachability"].found
        assert "1 executor (0 vouched for), 1 model" in found["catalogue"].found


@pytest.mark.parametrize(("relay", "verdict"), [("auto", "warning"), ("off", "problem")])
async def test_a_closed_port_is_told_with_what_the_validator_saw(relay: str, verdict: str) -> None:
    # The node is said to run, so its port is left to it; nobody is there, as if a firewall stood in between.
    async with validator() as one:
        chosen = settings(seeds=(one.seed,), port=free_port(), relay=relay)
        found = await diagnosis(chosen, identity=Identity.generate(), running=True)
        assert verdicts(found) == {**WELL, "reachability": verdict}
        assert "[Errno 111]" in found["reachability"].found
        assert "open TCP and UDP" in found["reachability"].advice


async def test_the_node_that_runs_is_dialled_itself_and_only_if_it_is_this_one() -> None:
    me = Identity.generate()

    async def refuse(_stream: object) -> None:
        raise RetryElsewhere("no", code="no")

    service = Service(me.address, NETWORK, bridge_support.settings(), refuse, lambda _, __: None)
    listener = await Listener.start("127.0.0.1", 0, certificate(me), service)
    try:
        async with validator() as one:
            chosen = settings(seeds=(one.seed,), port=listener.port)
            assert (await diagnosis(chosen, identity=me, running=True))["reachability"].verdict == "ok"
            other = await diagnosis(chosen, identity=Identity.generate(), running=True)
            assert other["reachability"].verdict == "warning"
    finally:
        await listener.close()


@pytest.mark.parametrize(("ahead", "said"), [(-300.0, "300 s behind that of 1 peer"), (300.0, "300 s ahead of")])
async def test_a_wrong_clock_is_blamed_and_nothing_else(ahead: float, said: str) -> None:
    async with validator() as one:
        found = await diagnosis(settings(seeds=(one.seed,)), clock=lambda: time.time() + ahead)
        assert verdicts(found) == {"clock": "problem", "network": "warning"}
        assert said in found["clock"].found
        assert "timedatectl" in found["clock"].advice


async def test_dead_validators_are_named_one_by_one() -> None:
    seeds = tuple(f"127.0.0.1:{free_port()}" for _ in range(3))
    found = await diagnosis(settings(seeds=seeds))
    assert all(found[f"bootstrap {seed}"].verdict == "problem" for seed in seeds)
    assert found["network"].verdict == "problem"
    assert found["clock"].verdict == found["reachability"].verdict == found["catalogue"].verdict == "warning"


async def test_one_dead_validator_of_two_is_no_more_than_a_warning() -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with validator() as one:
        found = await diagnosis(settings(seeds=(one.seed, dead)))
        assert found[f"bootstrap {one.seed}"].verdict == "ok"
        assert found[f"bootstrap {dead}"].verdict == "warning"
        assert "network" not in found


async def test_somebody_else_at_a_pinned_address_is_not_taken_for_a_validator() -> None:
    async with validator() as one:
        pinned = f"{checksum(Identity.generate().address)}@127.0.0.1:{one.dht.port}"
        found = (await diagnosis(settings(seeds=(pinned,))))[f"bootstrap {pinned}"]
        assert found.verdict == "problem"
        assert checksum(one.me.address) in found.found
        assert "do not just take the new one" in found.advice


async def test_a_validator_whose_tcp_port_is_closed_is_told_apart_from_a_dead_one() -> None:
    async with validator(bridge=False) as one:
        found = await diagnosis(settings(seeds=(one.seed,)))
        bridge = found[f"bootstrap {one.seed}"]
        assert bridge.verdict == "warning"
        assert "UDP answers" in bridge.found
        assert "TCP does not" in bridge.found
        assert found["catalogue"].verdict == "problem"


async def test_neighbours_are_found_by_multicast_where_no_validator_is_configured() -> None:
    async with validator() as one:
        own = mdns.Announcement(one.me.address, NETWORK, "127.0.0.1", one.dht.port)
        async with mdns.announced(own, "127.0.0.1", lambda *_: None):
            found = await diagnosis(settings(mdns=True))
    assert found["bootstrap"].verdict == "warning"
    assert found["DHT"].verdict == "ok"
    assert "about 2 nodes, 1 of them known" in found["DHT"].found


async def test_a_validator_that_names_itself_does_not_wait_for_itself() -> None:
    me = Identity.generate()
    chosen = settings(seeds=(f"{checksum(me.address)}@127.0.0.1:{free_port()}",))
    found = await diagnosis(replace(chosen, role="validator"), identity=me)
    assert found["bootstrap"].verdict == "ok"


def test_who_has_the_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        [found] = ports.check(settings(port=port), None)
        assert found.verdict == "problem"
        assert f"process {os.getpid()}, listens at {port}" in found.found
        [found] = ports.check(settings(port=port), 4711)
        assert found.verdict == "ok"


def test_a_node_that_runs_is_noticed_without_being_disturbed(tmp_path: Path) -> None:
    chosen = replace(settings(), home=str(tmp_path))
    assert home.running(chosen) is None
    with home.only_one(chosen):
        assert home.running(chosen) == os.getpid()
    with home.only_one(chosen):
        pass


async def backend(*words: str, **environ: str) -> Finding:
    chosen = settings(*words)
    keys = backends.take_keys(chosen, environ)
    assert not environ.get("OPENAI_API_KEY")
    [found] = await backends.check(chosen, keys)
    return found


async def test_a_backend_without_its_key_is_told_which_variable_is_missing() -> None:
    found = await backend("llm=openai")
    assert (found.verdict, "OPENAI_API_KEY" in found.advice) == ("problem", True)


async def test_a_backend_is_asked_for_its_models_and_no_key_is_shown() -> None:
    async with mock() as server:
        url = f"llm.openai.base_url={server.url}/v1"
        found = await backend("llm=openai", url, OPENAI_API_KEY="sk-very-secret")
        assert found.verdict == "warning"
        assert "does not list gpt-4.1-mini, gpt-5.4-mini" in found.found
        assert "it has mock" in found.advice
        assert "secret" not in repr(found)
        found = await backend(
            "llm=vllm", f"llm.vllm.base_url={server.url}/v1", "+llm.vllm.models={mock:{context:4096}}"
        )
        assert found.verdict == "ok"
        assert "lists 1; offered: mock" in found.found


async def test_the_difference_between_what_is_offered_and_what_is_there_is_shown() -> None:
    details = {"big": {"max_model_len": 8192}, "small": {"max_model_len": 1024}}
    async with mock(models=("big", "small"), details=details) as server:
        url = f"llm.vllm.base_url={server.url}/v1"
        found = await backend("llm=vllm", url)
        assert (found.verdict, found.found) == ("ok", f"{server.url}/v1 lists 2; offered: big, small")
        found = await backend("llm=vllm", url, "+llm.vllm.models={small:{context:4096}}")
        assert found.verdict == "warning"
        assert "4096 tokens are offered, but it has 1024" in found.advice
        found = await backend("llm=vllm", url, "+llm.vllm.models={*:null,qwen*:{}}")
        assert (found.verdict, "offered: nothing" in found.found) == ("problem", True)


async def test_a_backend_that_is_not_there_is_a_problem() -> None:
    found = await backend("llm=openai", f"llm.openai.base_url=http://127.0.0.1:{free_port()}/v1", OPENAI_API_KEY="k")
    assert found.verdict == "problem"
    assert "cannot be reached" in found.found


async def test_the_built_in_model_and_the_mock_need_nothing() -> None:
    found = await backends.check(settings("llm=[smollm2,mock]"), {})
    assert [each.verdict for each in found] == ["ok", "ok"]


def test_a_missing_key_is_not_made_and_a_readable_one_is_refused(tmp_path: Path) -> None:
    chosen = settings(f"identity.path={tmp_path}/key")
    assert machine.key(chosen, {})[0].verdict == "warning"
    assert not (tmp_path / "key").exists()
    (tmp_path / "key").write_text(Identity.generate().secret.hex())
    (tmp_path / "key").chmod(0o644)
    found, identity = machine.key(chosen, {})
    assert (found.verdict, identity) == ("problem", None)
    (tmp_path / "key").chmod(0o600)
    assert machine.key(chosen, {})[0].verdict == "ok"


async def test_the_command_tells_programs_whether_the_node_can_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def no_ray(*_arguments: object) -> Finding:
        return ok("Ray", "is left out here")

    monkeypatch.setattr(trial, "start", no_ray)
    monkeypatch.setattr(doctor.cluster, "prepare", lambda *_: None)
    secret = Identity.generate().secret.hex()
    async with validator() as one:
        chosen = replace(settings(seeds=(one.seed,)), home=str(tmp_path), output="json")
        monkeypatch.setenv("LLOOM_PRIVATE_KEY", secret)
        assert await doctor._diagnose(chosen, tmp_path) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["healthy"]
        assert {each["verdict"] for each in told["findings"]} <= {"ok", "warning"}
        assert secret not in repr(told)
    dead = replace(settings(seeds=(f"127.0.0.1:{free_port()}",)), home=str(tmp_path))
    assert await doctor._diagnose(dead, tmp_path) == 1
    text = capsys.readouterr().out
    assert "problem   bootstrap 127.0.0.1:" in text
    assert "          → " in text
