"""Puts one question to the network and shows the answer as it comes, who gave it, its tokens and its time."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import msgspec

from lloom.adapters.asking import Answer, Gateway, only_model
from lloom.adapters.machine import home, keystore
from lloom.adapters.machine.terminal import show
from lloom.commands import nodes
from lloom.core.errors import ConfigError
from lloom.core.settings import Settings
from lloom.node import Node, Running


def run(settings: Settings) -> int:
    """Asks the user's own running client node, or one brought up for the question."""
    prompt = _prompt(settings)
    return through_gateway(settings, lambda gateway: _ask(settings, gateway, prompt))


def through_gateway(settings: Settings, use: Callable[[Gateway], int]) -> int:
    """`use(gateway)` with the gateway of the user's running client node, or of one that lives as long as `use` takes."""
    seconds = settings.routing.total_seconds
    note = home.running_gateway(settings)
    if note is not None:
        gateway = Gateway(note.url, seconds, note.key)
        if gateway.node() == note.node:
            return use(gateway)
    identity = keystore.load(settings.identity, os.environ)
    gateway_settings = msgspec.structs.replace(settings.gateway, port=0)
    alone = msgspec.structs.replace(settings, gateway=gateway_settings)

    async def then(running: Running) -> int:
        own = home.running_gateway(settings)
        assert running.gateway is not None
        assert own is not None, "it is there as long as the gateway runs"
        return await asyncio.to_thread(use, Gateway(running.gateway, seconds, own.key))

    node = Node(alone, identity, keystore.provider_keys(alone, os.environ))
    return nodes.run(lambda _: [node], then)


def report(answer: Answer) -> str:
    """One line on an answer: who, how many tokens, how fast."""
    served = answer.served
    spent = max(answer.seconds - answer.first_token_seconds, 1e-3)
    return (
        f"{answer.model} by {served.executor}"
        f"{f' (attempt {served.attempts})' if served.attempts > 1 else ''}: "
        f"{served.input_tokens} + {served.output_tokens} tokens, first after {answer.first_token_seconds:.2f} s, "
        f"{answer.seconds:.2f} s in all, {served.output_tokens / spent:.0f} tokens/s"
    )


def _ask(settings: Settings, gateway: Gateway, prompt: str) -> int:
    model = settings.model or only_model(gateway.models())
    if settings.output == "json":
        _write(msgspec.json.encode(gateway.ask(model, prompt, lambda _: None)).decode() + "\n")
        return 0
    answer = gateway.ask(model, prompt, _write)
    _write("\n")
    show(report(answer) + "\n")
    return 0


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _prompt(settings: Settings) -> str:
    """The question; ConfigError if there is none, or none that is text."""
    prompt = settings.prompt
    if prompt == "-":
        try:
            prompt = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise ConfigError("standard input is no UTF-8 text") from error
    if not prompt or not prompt.strip():
        raise ConfigError('there is no question: put one with prompt="…", or prompt=- to read standard input')
    return prompt
