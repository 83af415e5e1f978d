"""Callers' JSON, decoded, and what is wrong with it in OpenAI's words. It never says what a field means."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from lloom.core.errors import CallerFault
from lloom.core.offer import canonical

T = TypeVar("T")


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """`body` by `decoder`; CallerFault names the field that is wrong."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into the strings that it skips
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from error
    except UnicodeDecodeError as error:
        raise CallerFault("The body of the request is not valid UTF-8.", code="invalid_json") from error
    except RecursionError as error:
        raise CallerFault("The JSON of the request is nested too deeply.", code="invalid_json") from error
    except msgspec.DecodeError as error:
        raise CallerFault(f"The body of the request is not valid JSON: {error}.", code="invalid_json") from error


def convert(value: Any, kind: type[T], where: str) -> T:
    """`value` (decoded JSON, which stands at `where` in the request) as a `kind`; CallerFault names the field that is wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _fault(str(error), where) from error
    except RecursionError as error:
        raise CallerFault("The JSON of the request is nested too deeply.", code="invalid_json") from error


def missing(param: str) -> CallerFault:
    """A field that must be there is not."""
    return CallerFault(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def contradiction(param: str, message: str) -> CallerFault:
    """A field that says what it may say, but not beside the others."""
    return CallerFault(f"Invalid value for '{param}': {message}", code="invalid_value", param=param)


def unsupported(param: str, reason: str) -> CallerFault:
    """A field that is right, and that nobody here can serve."""
    return CallerFault(f"Unsupported parameter: '{param}': {reason}", code="unsupported_parameter", param=param)


@contextlib.contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Faults found within a translated request name the caller's own field: `names` has those that are called otherwise.

    Where exactly in it is left out, since the translation is cut otherwise.
    """
    try:
        yield
    except CallerFault as fault:
        if fault.param is None:
            raise
        field = re.split(r"[.\[]", fault.param)[0]
        field = names.get(field, field)
        text = str(fault).replace(f"'{fault.param}'", f"'{field}'")
        raise CallerFault(text, status=fault.status, code=fault.code, param=field) from fault


def model_id(name: str) -> str:
    """The canonical id of the model that is called `name`; CallerFault (404) if no model can be called so."""
    try:
        return canonical(name)
    except ValueError as error:
        message = f"The model does not exist: {error}."
        raise CallerFault(message, status=404, code="model_not_found", param="model") from error


def unknown_model(model: str) -> CallerFault:
    """A model that could be called so, and that nobody serves."""
    text = f"The model '{model}' does not exist: no executor announces it."
    return CallerFault(text, status=404, code="model_not_found", param="model")


def _fault(message: str, where: str = "") -> CallerFault:
    """msgspec's "Expected `int | null`, got `str` - at `$.n`" as OpenAI would put it. `where`: what `$` is in the request."""
    found = re.fullmatch(r"(?s)(.*?)(?: - at `(?:key` in `)?\$\.?(.*?)(?:\[\.\.\.\])*`)?", message)
    assert found is not None
    what, inner = found[1].replace(" | null", "").replace("`", ""), found[2] or ""
    param = f"{where}.{inner}" if where and inner and not inner.startswith("[") else where + inner
    if absent := re.fullmatch(r"Object missing required field (\w+)", what):
        return missing(f"{param}.{absent[1]}" if param else absent[1])
    code = "invalid_type" if ", got " in what else "invalid_value"
    if not param:
        return CallerFault(f"The body of the request is wrong: {_lower(what)}.", code=code)
    return CallerFault(f"Invalid value for '{param}': {_lower(what)}.", code=code, param=param)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
