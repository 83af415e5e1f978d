"""A whole network on this machine: validator, executors with a real model, client, one question. Its keys are gone with it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from lloom.adapters.asking import Answer, Gateway
from lloom.adapters.machine import keystore, ports
from lloom.adapters.machine.terminal import show
from lloom.commands import nodes
from lloom.commands.ask import report
from lloom.core.identity import Identity
from lloom.core.settings import MockBackend, Role, Settings
from lloom.node import Node, Running


def run(settings: Settings) -> int:
    """Exit status: 0 once the question was answered (and, with `demo.stay`, the user has seen enough)."""

    keystore.forget(settings.identity, os.environ)
    keys = keystore.provider_keys(settings, os.environ)

    async def then(running: Running) -> int | None:
        answer = await asyncio.to_thread(_ask, settings, running)
        show(f"\n{report(answer)}\n")
        if not settings.demo.stay:
            return 0
        show(_invitation(running, answer.model))
        return None

    return nodes.run(lambda folder: network(settings, keys, folder), then)


def network(settings: Settings, keys: Mapping[str, str], folder: Path) -> Sequence[Node]:
    """The nodes of the demo: validator, executors, client. The first executor also serves the mock."""
    local = settings.network
    port = ports.first_port(local.host, local.port, ports.VALIDATOR, "network.port")
    ready = replace(settings, network=replace(local, port=0, bootstrap=(f"{local.host}:{port}",)))
    validator = replace(settings, network=replace(local, port=port, bootstrap=()))
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
