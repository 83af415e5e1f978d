"""Fields that OpenAI's chat and older completions share. It never says what contradicts what, but for streams."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from lloom.core.api.reading import contradiction

_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Bias = Annotated[int, Meta(ge=-100, le=100)]


class StreamOptions(Struct):
    """What a stream brings beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Generation(Struct, kw_only=True):
    """How a text is made, whatever it is made of. null stands for a field left out."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    logit_bias: dict[Annotated[int, Meta(ge=0)], _Bias] | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: str | Annotated[list[str], Meta(min_length=1, max_length=4)] | None = None
    user: str | None = None

    def check_stream(self) -> None:
        """CallerFault for options of a stream that is none."""
        if self.stream_options is not None and not self.stream:
            raise contradiction("stream_options", "'stream_options' is only allowed when 'stream' is true.")

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)
