"""What a check of a node found, and what to do about it. It checks nothing itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

Verdict = Literal["ok", "warning", "problem"]


class Finding(Struct, frozen=True):
    """One line of a diagnosis. `advice`: what to do; empty where there is nothing to be done."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, advice: str) -> Finding:
    """The node works, but less well than it could, or this could not be checked."""
    return Finding(check, "warning", found, advice)


def problem(check: str, found: str, advice: str) -> Finding:
    """The node will not do its work."""
    return Finding(check, "problem", found, advice)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether there is no problem."""
    return all(finding.verdict != "problem" for finding in findings)
