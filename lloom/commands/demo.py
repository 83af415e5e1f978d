"""A whole network on this machine: validator, executors with a real model, client; one question and its bill."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from lloom.adapters.asking import Answer, Gateway
from lloom.adapters.chain import anvil
from lloom.adapters.machine import keystore, ports
from lloom.adapters.machine.terminal import show
from lloom.commands import bill, nodes
from lloom.commands.ask import report
from lloom.commands.bill import Teller
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity
from lloom.core.settings import Chain, MockBackend, Role, Settings, SmolLM2Backend
from lloom.node import Node, Running


def run(settings: Settings) -> int:
    """Exit status: 0 once the question was answered, and paid for (and, with `demo.stay`, the user has seen enough)."""
    keystore.forget(settings.identity, os.environ)
    keys = keystore.provider_keys(settings, os.environ)
    priced = _priced(_affordable(settings))
    made: list[Node] = []

    def make(folder: Path) -> Sequence[Node]:
        made.extend(network(priced, keys, folder))
        return made

    async def first(chains: Mapping[str, Chain]) -> None:
        async for teller in _tellers(chains, made):
            await teller.pay_in(settings.demo.deposit, [node.identity for node in _payers(made)])

    async def then(running: Running) -> int | None:
        answer = await asyncio.to_thread(_ask, priced, running)
        show(f"\n{report(answer)}\n")
        async for teller in _tellers(running.chains, made):
            await _show_bills(teller, priced, made)
        if not settings.demo.stay:
            return 0
        show(_invitation(running, answer.model))
        return None

    return nodes.run(make, then, first)


def _affordable(settings: Settings) -> Settings:
    """The same settings with a chain of the demo's own at any free port, or none where none can be had."""
    if not settings.chain:
        return settings
    try:
        anvil.binary()
    except ConfigError as error:
        show(f"Nobody is paid: {error}.\n")
        return replace(settings, chain={})
    return replace(settings, chain={name: replace(each, rpc=()) for name, each in settings.chain.items() if each.local})


def _priced(settings: Settings) -> Settings:
    """The same settings, where the built-in model costs something if there is a chain to pay on."""
    if not settings.chain:
        return settings
    prices = {"input_price": settings.demo.input_price, "output_price": settings.demo.output_price}
    llm = {
        name: replace(backend, models={each: replace(model, **prices) for each, model in backend.models.items()})
        if isinstance(backend, SmolLM2Backend)
        else backend
        for name, backend in settings.llm.items()
    }
    return replace(settings, llm=llm)


def _payers(made: Sequence[Node]) -> list[Node]:
    """Those that move money; the client is the last one."""
    return [node for node in made if node.settings.role in ("executor", "client")]


async def _tellers(chains: Mapping[str, Chain], made: Sequence[Node]) -> AsyncIterator[Teller]:
    """Somebody on each chain who moves the demo's money."""
    for name, chain in chains.items():
        async with bill.teller(name, chain, _payers(made)[-1].identity) as teller:
            yield teller


async def _show_bills(teller: Teller, settings: Settings, made: Sequence[Node]) -> None:
    price = (settings.demo.input_price, settings.demo.output_price)
    for node in made:
        if node.settings.role == "executor" and (found := await teller.collect(node)) is not None:
            show(f"\n{teller.text(found, price)}")


def network(settings: Settings, keys: Mapping[str, str], folder: Path) -> Sequence[Node]:
    """The nodes of the demo: validator, executors, client. The first executor also serves the mock."""
    local = settings.network
    port = ports.first_port(local.host, local.port, ports.VALIDATOR, "network.port")
    ready = replace(settings, network=replace(local, port=0, bootstrap=(f"{local.host}:{port}",)))
    thrifty = replace(settings.accounting, budget=0)  # it has no money to probe with
    validator = replace(settings, network=replace(local, port=port, bootstrap=()), accounting=thrifty)
    few = {name: backend for name, backend in settings.llm.items() if not isinstance(backend, MockBackend)}
    backends = [settings.llm, *[few] * (settings.demo.executors - 1)]

    def node(role: Role, label: str, chosen: Settings) -> Node:
        own = replace(chosen, role=role, home=str(folder / label))
        return Node(own, Identity.generate(), keys if role == "executor" else {}, label)

    executors = [
        node("executor", f"executor {number}", replace(ready, llm=llm)) for number, llm in enumerate(backends, start=1)
    ]
    return [node("validator", "validator", validator), *executors, node("client", "client", ready)]


def _ask(settings: Settings, running: Running) -> Answer:
    assert running.gateway is not None
    gateway = Gateway(running.gateway, settings.routing.total_seconds)
    prompt = settings.prompt or settings.demo.prompt
    show(f"\nQuestion: {prompt}\nAnswer:   ")
    return gateway.ask(settings.model or settings.demo.model, prompt, _write)


def _invitation(running: Running, model: str) -> str:
    """What a newcomer can do now."""
    dashboard = (
        f"Ray dashboard:   {running.dashboard}  (its token: cat {running.token_file})\n"
        if running.dashboard
        else "Ray dashboard:   off (ray.dashboard=true brings it)\n"
    )
    return (
        f"\nOpenAI endpoint: {running.gateway}/v1\n{dashboard}"
        f"Try it:          curl {running.gateway}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f'                   -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'\n'
        "Stop it:         Ctrl-C\n"
    )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
