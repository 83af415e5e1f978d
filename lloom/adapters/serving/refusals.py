"""What a client is told whose request the ledger has nothing for."""

from __future__ import annotations

from typing import Final

from lloom.core.errors import RetryElsewhere
from lloom.core.payment.receivable import Grant, Reason

_WHY: Final[dict[Reason, str]] = {
    "voucher": "This request needs a voucher of {needed} on its lane, {short} more than there is, in smallest units.",
    "funds": "Your deposit does not cover this request: {short} smallest units are missing for this executor to rely on.",
    "debt": "You owe this executor more than it lends, on another lane: send a voucher for that first.",
    "lanes": "You have too many lanes at this executor.",
    "chain": "The chain does not say right now what you have deposited.",
}


def refusal(grant: Grant) -> RetryElsewhere:
    """Why it was not granted all, and what would help."""
    text = _WHY[grant.reason or "voucher"].format(needed=grant.needed, short=grant.short)
    if grant.reason == "chain":
        return RetryElsewhere(text, status=503, code="chain_away", retry_after=5.0)
    return RetryElsewhere(text, status=402, code="payment_required")
