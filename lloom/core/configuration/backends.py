"""What backends are configured to offer, as far as that can be judged without asking them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lloom.core.configuration.literals import model_id
from lloom.core.errors import ConfigError
from lloom.core.lineup import is_pattern
from lloom.core.settings import Backend, LiteLLMBackend, Model, OpenAIBackend


def check(backends: Mapping[str, Backend]) -> None:
    """ConfigError for what cannot be offered, or twice."""
    offered: dict[str, str] = {}
    for name, backend in backends.items():
        if isinstance(backend, OpenAIBackend | LiteLLMBackend) and "@" in _authority(backend.base_url or ""):
            raise ConfigError(
                f"llm.{name}.base_url: addresses are logged, so there is no password in one; put it into the variable that "
                f"llm.{name}.key_env names"
            )
        if not backend.models:
            raise ConfigError(
                f"llm.{name}.models: say what it serves, for instance '+llm.{name}.models={{qwen3-8b:{{context:32768}}}}'"
            )
        listing = isinstance(backend, OpenAIBackend | LiteLLMBackend)
        for key, terms in backend.models.items():
            for model in _ids(f"llm.{name}.models.{key}", key, terms, listing):
                if (other := offered.get(model)) is not None:
                    who = f"{name} twice offers" if other == name else f"{other} and {name} both offer"
                    raise ConfigError(f"llm: {who} {model}; give one of them another id, or leave it out")
                offered[model] = name


def _ids(where: str, key: str, terms: Model | None, listing: bool) -> list[str]:
    """The ids that an entry of `models` offers for certain; `listing`: the backend can be asked what there is."""
    if is_pattern(key) and listing:
        if model_id(where, key.replace("*", "x")) != key.replace("*", "x"):
            raise ConfigError(f"{where}: patterns are lower case, whatever the backend's names are")
        if terms is not None and (terms.name or terms.aliases):
            raise ConfigError(f"{where}: name and aliases are for one model, not for all that fit a pattern")
        return []
    ids = [key, *(terms.aliases if terms else ())]
    for model in ids:
        if model != (wanted := model_id(where, model)):
            raise ConfigError(f"{where}: ids are lower case; write {wanted}, with name: {model} for the backend")
    if terms is not None and terms.max_output and terms.context and terms.max_output > terms.context:
        raise ConfigError(f"{where}: max_output ({terms.max_output}) does not fit into context ({terms.context})")
    return ids if terms is not None else []


def _authority(url: str) -> str:
    """Host and port, and who logs in there (RFC 3986, 3.2)."""
    return re.split(r"[/?#]", url.partition("://")[2])[0]
