"""Whether an executor counts as we do, also where nobody pays. It counts only where sizes leave a doubt, and punishes nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from lloom.core import prompt, tokens
from lloom.core.api.request import ApiRequest
from lloom.core.billing.quote import Basis
from lloom.core.messages import Done
from lloom.core.payment.counting import LONG, accepted, known
from lloom.core.prompt import BYTES_PER_TOKEN
from lloom.core.settings import AccountingSettings

SPARSE: Final = 8
"""Bytes of a text that are hardly ever a single token: a report of no more needs no second look."""


class Report(Struct, frozen=True):
    """What an executor says of an answer that came whole, and what came. `text`: None where the model wrote more than that."""

    request: ApiRequest
    encoding: str
    done: Done
    text: str | None


def problem(report: Report, settings: AccountingSettings) -> str | None:
    """What is reported beyond our own count and what a payer tolerates; None if nothing is.

    It takes 2 ms at most, once the encoding's table is loaded (`tokens.loaded`): the first time that takes a few hundred.
    """
    request, done, encoding = report.request, report.done, known(report.encoding)

    def inputs() -> int:
        short = len(request.body) <= LONG
        return (
            prompt.count(request.operation, request.body, encoding) if short else len(request.body) // BYTES_PER_TOKEN
        )

    found = _overstated("input", done.input_tokens, len(request.body), inputs, settings)
    if found is not None or report.text is None:
        return found
    text = report.text
    size = len(text.encode(errors="replace"))

    def outputs() -> int:
        return tokens.count(text, encoding) if size <= LONG else size // BYTES_PER_TOKEN

    return _overstated("output", done.output_tokens, size, outputs, settings)


def _overstated(
    what: str, reported: int, size: int, count: Callable[[], int], settings: AccountingSettings
) -> str | None:
    if reported <= accepted(size // SPARSE, Basis.BACKEND, settings):
        return None
    counted = count()
    most = accepted(counted, Basis.BACKEND, settings)
    return None if reported <= most else f"{reported} {what} tokens where {counted} are counted, and {most} accepted"
