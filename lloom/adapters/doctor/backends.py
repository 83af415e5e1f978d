"""Whether the backends of an executor are there: keys, addresses, models, files. It spends no tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from lloom.adapters.llm.litellm import LiteLLMEngine
from lloom.adapters.llm.smollm2 import weights
from lloom.core.errors import ConfigError
from lloom.core.finding import Finding, ok, problem, warning
from lloom.core.messages import FROM_EXECUTOR
from lloom.core.settings import Backend, LiteLLMBackend, OpenAIBackend, Settings, SmolLM2Backend

ANSWER_SECONDS: Final = 5.0
"""For a list of models, the connection included."""
IMPORT_SECONDS: Final = 15.0
"""LiteLLM takes 4 to 8."""
MAX_LIST: Final = 8 * 1024 * 1024
"""Bytes. OpenRouter's list of models has half a megabyte."""

_Keys = Mapping[str, str]


class _Entry(Struct, frozen=True):
    id: str


class _Listed(Struct, frozen=True):
    data: list[_Entry]


def take_keys(settings: Settings, environ: MutableMapping[str, str]) -> dict[str, str]:
    """The secrets of providers that are set, by variable, out of `environ`: nothing that is started later inherits them."""
    named = {getattr(backend, "key_env", None) for backend in settings.llm.values()}
    named |= {chain.rpc_env for chain in settings.chain.values()}
    return {name: value for name in named if name and (value := environ.pop(name, "").strip())}


async def check(settings: Settings, keys: _Keys) -> list[Finding]:
    """One finding for each backend, all looked at together."""
    return list(await asyncio.gather(*(_backend(name, backend, keys) for name, backend in settings.llm.items())))


async def _backend(name: str, backend: Backend, keys: _Keys) -> Finding:
    check = f"backend {name}"
    variable = getattr(backend, "key_env", None)
    if variable is not None and variable not in keys:
        return problem(check, f"its API key is missing: {variable} is not set", f"export {variable}=…")
    match backend:
        case OpenAIBackend():
            return await _openai(check, backend, keys.get(variable or ""))
        case LiteLLMBackend():
            return await _litellm(name, check, backend)
        case SmolLM2Backend():
            return _smollm2(name, check)
    return ok(check, "runs within the worker")


def _smollm2(name: str, check: str) -> Finding:
    try:
        file = weights(name)
    except ConfigError as error:
        return problem(check, str(error), "run ./scripts/just once, or choose another backend")
    return ok(check, f"{file.name}, {file.stat().st_size >> 20} MB")


async def _litellm(name: str, check: str, backend: LiteLLMBackend) -> Finding:
    """Whether LiteLLM is there and knows the provider; whether the provider takes the key, only a request would tell."""
    engine = LiteLLMEngine(name, replace(backend, key_env=None))
    try:
        async with asyncio.timeout(IMPORT_SECONDS):
            await engine.start()
    except ConfigError as error:
        return problem(check, str(error), "mend the configuration as said")
    except ImportError as error:
        return problem(check, f"LiteLLM cannot be imported: {error}", "run ./scripts/just once")
    except TimeoutError:
        return warning(check, f"LiteLLM was not imported within {IMPORT_SECONDS:g} s", "is this machine busy?")
    await engine.close()
    return ok(check, f"LiteLLM knows {backend.provider}; the key is set (only a request would prove it)")


async def _openai(check: str, backend: OpenAIBackend, key: str | None) -> Finding:
    url = f"{backend.base_url.rstrip('/')}/models"
    headers = {FROM_EXECUTOR: "1"} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session,
            # A redirect would carry the key to somebody else.
            session.get(url, allow_redirects=False) as response,
        ):
            return _judge(check, backend, response.status, await _body(response))
    except TimeoutError:
        why = f"no answer within {ANSWER_SECONDS:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: no URL, or a key that is no header
        why = type(error).__name__
    return problem(check, f"{backend.base_url} does not answer ({why})", "does it run, and is base_url right?")


def _judge(check: str, backend: OpenAIBackend, status: int, body: bytes) -> Finding:
    """What the answer to a request for the list of models says."""
    where = backend.base_url
    if status in (401, 403):
        return problem(
            check, f"{where} refuses the API key ({status})", f"set {backend.key_env or 'key_env'} to a valid one"
        )
    if status == 508:
        return problem(
            check, f"{where} is a Lloom gateway: requests would go in a circle", "name the model's own server"
        )
    if status != 200:
        advice = "if chats work nevertheless, let it be; else base_url is wrong (it usually ends with /v1)"
        return warning(check, f"{where} answers, but has no list of models ({status})", advice)
    try:
        listed = {entry.id for entry in msgspec.json.decode(body, type=_Listed).data}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return warning(check, f"{where} answers, but its list of models is not OpenAI's", "is base_url right?")
    wanted = {terms.name or model for model, terms in backend.models.items()}
    if missing := sorted(wanted - listed):
        advice = f"load it there, or correct llm.….models; it has {', '.join(sorted(listed)[:5]) or 'none'}"
        return warning(check, f"{where} does not list {', '.join(missing)}", advice)
    return ok(check, f"{where} has {', '.join(sorted(wanted))}")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """At most `MAX_LIST` bytes of it."""
    body = bytearray()
    while len(body) < MAX_LIST and (data := await response.content.read(MAX_LIST - len(body))):
        body += data
    return bytes(body)
