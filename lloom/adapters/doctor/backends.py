"""Whether the backends of an executor are there: keys, addresses, models, files. It spends no tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Final

from msgspec.structs import replace

from lloom.adapters.llm.listing import Listing
from lloom.adapters.llm.litellm import LiteLLMEngine
from lloom.adapters.llm.model_map import ModelMap
from lloom.adapters.llm.smollm2 import weights
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.finding import Finding, ok, problem, warning
from lloom.core.lineup import Common, Lineup, lineup, unlisted
from lloom.core.settings import Backend, LiteLLMBackend, OpenAIBackend, Settings, SmolLM2Backend

IMPORT_SECONDS: Final = 15.0
"""LiteLLM takes 4 to 8."""
_ADVICE: Final = {
    "": "does it run, and is base_url right?",
    "backend_account": "set the variable that key_env names to a valid API key",
    "loop": "name the model's own server",
}
"""By the code of what went wrong."""

_Keys = Mapping[str, str]


def take_keys(settings: Settings, environ: MutableMapping[str, str]) -> dict[str, str]:
    """The secrets of providers that are set, by variable, out of `environ`: nothing that is started later inherits them."""
    named = {getattr(backend, "key_env", None) for backend in settings.llm.values()}
    named |= {chain.rpc_env for chain in settings.chain.values()}
    return {name: value for name in named if name and (value := environ.pop(name, "").strip())}


async def check(settings: Settings, keys: _Keys) -> list[Finding]:
    """One finding for each backend, all looked at together."""
    most = settings.executor.discovered_models
    return list(await asyncio.gather(*(_backend(name, backend, keys, most) for name, backend in settings.llm.items())))


async def _backend(name: str, backend: Backend, keys: _Keys, most: int) -> Finding:
    check = f"backend {name}"
    variable = getattr(backend, "key_env", None)
    if variable is not None and variable not in keys:
        return problem(check, f"its API key is missing: {variable} is not set", f"export {variable}=…")
    match backend:
        case OpenAIBackend():
            return await _openai(name, check, backend, keys.get(variable or ""), most)
        case LiteLLMBackend():
            return await _litellm(name, check, backend, most)
        case SmolLM2Backend():
            return _smollm2(name, check)
    return ok(check, "runs within the worker")


def _smollm2(name: str, check: str) -> Finding:
    try:
        file = weights(name)
    except ConfigError as error:
        return problem(check, str(error), "run ./scripts/just once, or choose another backend")
    return ok(check, f"{file.name}, {file.stat().st_size >> 20} MB")


async def _litellm(name: str, check: str, backend: LiteLLMBackend, most: int) -> Finding:
    """Whether LiteLLM is there and knows the provider; whether the provider takes the key, only a request would tell."""
    engine = LiteLLMEngine(name, replace(backend, key_env=None), most)
    try:
        async with asyncio.timeout(IMPORT_SECONDS):
            await engine.start()
            found = await engine.look()
    except ConfigError as error:
        return problem(check, str(error), "mend the configuration as said")
    except ImportError as error:
        return problem(check, f"LiteLLM cannot be imported: {error}", "run ./scripts/just once")
    except TimeoutError:
        return warning(check, f"LiteLLM was not imported within {IMPORT_SECONDS:g} s", "is this machine busy?")
    await engine.close()
    where = f"LiteLLM knows {backend.provider}; the key is set (only a request would prove it)"
    return _judge(check, where, found)


async def _openai(name: str, check: str, backend: OpenAIBackend, key: str | None, most: int) -> Finding:
    """What the server lists, and what of it the configuration makes an offer of."""
    where = backend.base_url
    try:
        listed = await Listing(backend, key).ask()
    except RetryElsewhere as error:
        return problem(check, str(error), _ADVICE.get(error.code, _ADVICE[""]))
    if listed is None:
        advice = "if chats work nevertheless, let it be; else base_url is wrong (it usually ends with /v1)"
        return warning(check, f"{where} answers, but has no list of models", advice)
    if missing := unlisted(backend.models, listed):
        advice = f"load it there, or correct llm.{name}.models; it has {', '.join(sorted(listed)[:5]) or 'none'}"
        return warning(check, f"{where} does not list {', '.join(missing)}", advice)
    known = await asyncio.to_thread(ModelMap.of, backend.provider) if backend.provider else ModelMap({})
    found = lineup(Common(name, backend.parallel, most), backend.models, listed, known.get)
    return _judge(check, f"{where} lists {len(listed)}", found)


def _judge(check: str, where: str, found: Lineup) -> Finding:
    """What is offered, and what its owner should look at."""
    served = f"{where}; offered: {', '.join(sorted(found.served)) or 'nothing'}"
    if not found.served:
        return problem(check, served, "name a model, or a pattern that fits: models")
    if found.remarks:
        return warning(check, served, "; ".join(found.remarks))
    return ok(check, served)
