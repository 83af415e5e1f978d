"""Which models a backend offers, and under which terms: by its YAML, its own word and LiteLLM's map. It asks nobody.

The keys of `models` in YAML are ids of the network, or patterns over what the backend calls its models: `*`, `openai/*`. A
pattern offers every chat model that fits and that no id names already; of several the longest decides. null offers nothing.
What an entry leaves out of a model's terms, its price as well, the patterns say that fit, the longest first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from lloom.core.api.request import Operation
from lloom.core.offer import ModelOffer, canonical
from lloom.core.settings import Feature, Model

FALLBACK_CONTEXT: Final = 4096
"""Tokens, where nobody says how long a model's context is: what even old ones have."""
ENCODING: Final = "o200k_base"
OPERATIONS: Final[tuple[Operation, ...]] = ("chat",)
"""What a model does where YAML does not say."""
_TERMS: Final = ("context", "max_output", "encoding", "operations", "features", "input_price", "output_price")
"""Of a model in YAML, beside its names."""
LARGEST: Final = 1 << 31
"""Tokens; who claims more errs, or means ill."""


class Known(Struct, frozen=True, kw_only=True):
    """What somebody says of a model; None: nothing. `context` and `max_output` are tokens."""

    context: int | None = None
    max_output: int | None = None
    features: tuple[Feature, ...] | None = None
    chat: bool | None = None
    """Whether it takes chats at all."""


Knows = Callable[[str], Known | None]
"""What is known of a model, by the backend's name of it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model as the backend calls it and the network is offered it."""

    name: str
    offer: ModelOffer


@dataclass(frozen=True, slots=True)
class Lineup:
    """What is served, by id, and what its owner should know about that, a sentence each."""

    served: Mapping[str, Served]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Common:
    """What all models of a backend have in common. `most`: models that may be offered without being named."""

    backend: str
    parallel: int
    most: int


def is_pattern(key: str) -> bool:
    """Whether a key of `models` stands for many."""
    return "*" in key


def network_id(name: str) -> str | None:
    """The network's id for what a backend calls `name`, so that all executors that serve it say the same; None if none fits.

    `Qwen/Qwen3-8B`, `qwen3:8b` and `/models/Qwen3-8B.gguf` are all `qwen3-8b`; Ollama's tag `latest` goes without saying.
    """
    last = re.split(r"[/\\]", name.strip().lower())[-1].removesuffix(".gguf").removesuffix(":latest")
    try:
        return canonical(re.sub(r"[^a-z0-9._@+-]", "-", last))
    except ValueError:
        return None


def lineup(common: Common, models: Mapping[str, Model | None], listed: Mapping[str, Known], known: Knows) -> Lineup:
    """What `models` (YAML, ids canonical) make of a backend that lists `listed`, by its own names.

    Of what YAML leaves out, the backend's word comes first, then what is `known`, then a safe guess with a remark.
    """
    sources = _Sources(common, models, listed, known)
    served: dict[str, Served] = {}
    for model_id, model in models.items():
        if model is not None and not is_pattern(model_id):
            name = model.name or model_id
            offer = sources.offer(model_id, sources.filled(model, name), name)
            served |= {each: Served(name, replace(offer, id=each)) for each in (model_id, *model.aliases)}
    named = {each.name.lower() for each in served.values()}
    found = [each for each in sources.discovered() if each[0].lower() not in named and each[1] not in served]
    if len(found) > common.most:
        sources.remarks.append(
            f"llm.{common.backend} has {len(found)} models that nobody named; executor.discovered_models lets {common.most} in"
        )
    for name, model_id, model in found[: common.most]:
        if model_id not in served:  # two names may come to one id
            served[model_id] = Served(name, sources.offer(model_id, model, name))
    return Lineup(served, tuple(sources.remarks))


def unlisted(models: Mapping[str, Model | None], listed: Collection[str]) -> list[str]:
    """What a backend does not list of the models that YAML names, by the backend's names."""
    names = {model.name or key for key, model in models.items() if model is not None and not is_pattern(key)}
    return sorted(names - set(listed))


class _Sources:
    """Who says what of the models of one backend."""

    def __init__(
        self, common: Common, models: Mapping[str, Model | None], listed: Mapping[str, Known], known: Knows
    ) -> None:
        self.remarks: list[str] = []
        self._common = common
        self._models = models
        self._listed = listed
        self._known = known
        self._patterns = sorted(filter(is_pattern, models), key=lambda key: (-len(key), key))

    def discovered(self) -> Iterator[tuple[str, str, Model]]:
        """Name, id and terms of what patterns offer, in a stable order."""
        for name in sorted(self._listed):
            model, model_id = next(iter(self._fitting(name)), None), network_id(name)
            if model is None or model_id is None or model_id in self._models:
                continue
            whole = self.filled(model, name)
            if "chat" not in (whole.operations or OPERATIONS) or self._chats(name):
                yield name, model_id, whole

    def filled(self, model: Model, name: str) -> Model:
        """`model`, which the backend calls `name`, with what it leaves out as the patterns have it."""
        for other in filter(None, self._fitting(name)):
            lacking = [term for term in _TERMS if getattr(model, term) is None]
            model = replace(model, **{term: getattr(other, term) for term in lacking})
        return model

    def offer(self, model_id: str, model: Model, name: str) -> ModelOffer:
        """The terms of `model`, as far as YAML has them, which the backend calls `name`."""
        said = self._said(name, model_id)
        context = self._context(model_id, model.context, [each.context for each in said])
        outputs = [model.max_output, *(each.max_output for each in said)]
        features = [model.features, *(each.features for each in said)]
        return ModelOffer(
            id=model_id,
            context=context,
            max_output=min(next((each for each in outputs if each), context), context),
            parallel=self._common.parallel,
            encoding=model.encoding or ENCODING,
            operations=model.operations or OPERATIONS,
            features=next((each for each in features if each is not None), ()),
            backend=self._common.backend,
            input_price=model.input_price or 0,
            output_price=model.output_price or 0,
        )

    def _fitting(self, name: str) -> list[Model | None]:
        """What the patterns say that fit, the longest first."""
        return [self._models[key] for key in self._patterns if fnmatchcase(name.lower(), _glob(key))]

    def _chats(self, name: str) -> bool:
        """As far as anybody knows."""
        return next((each.chat for each in self._said(name) if each.chat is not None), True)

    def _said(self, *names: str) -> list[Known]:
        """What the backend says, then what is known, by the first of `names` that finds anything there."""
        found = [self._listed.get(names[0]), next(filter(None, map(self._known, names)), None)]
        return [each for each in found if each is not None]

    def _context(self, model_id: str, wanted: int | None, said: Iterable[int | None]) -> int:
        """What is written, else what is said, else a guess; the owner hears of contradictions and of guesses."""
        key = f"llm.{self._common.backend}.models.{model_id}.context"
        told = next(filter(None, said), None)
        if wanted and told and wanted > told:
            self.remarks.append(f"{key}: {wanted} tokens are offered, but it has {told}")
        if found := wanted or told:
            return found
        self.remarks.append(
            f"{key}: nobody says how long it is; {FALLBACK_CONTEXT} tokens are offered until you write it"
        )
        return FALLBACK_CONTEXT


def _glob(pattern: str) -> str:
    """Only the star means something."""
    return re.sub(r"([?\[])", r"[\1]", pattern.lower())
