"""Backends of an executor: one engine per configured backend. It never decides who may use them."""

from __future__ import annotations

from collections.abc import Mapping

from lloom.adapters.llm.engine import Engine
from lloom.adapters.llm.litellm import LiteLLMEngine
from lloom.adapters.llm.mock import MockEngine
from lloom.adapters.llm.openai import OpenAIEngine
from lloom.adapters.llm.smollm2 import SmolLM2Engine
from lloom.core.settings import Backend, LiteLLMBackend, MockBackend, OpenAIBackend

__all__ = ["Engine", "engines"]


def engines(backends: Mapping[str, Backend], most: int) -> list[Engine]:
    """One engine per backend, in order, none of them started; each offers `most` models that nobody named, at most."""
    return [_engine(name, backend, most) for name, backend in backends.items()]


def _engine(name: str, backend: Backend, most: int) -> Engine:
    if isinstance(backend, OpenAIBackend):
        return OpenAIEngine(name, backend, most)
    if isinstance(backend, LiteLLMBackend):
        return LiteLLMEngine(name, backend, most)
    if isinstance(backend, MockBackend):
        return MockEngine(name, backend)
    return SmolLM2Engine(name, backend)
