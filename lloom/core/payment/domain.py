"""Where signatures about money are good: one contract on one chain, or nowhere; and on which chains money is."""

from __future__ import annotations

from lloom.core.eip712 import Domain
from lloom.core.identity import ADDRESS_BYTES, NodeId, parse_address
from lloom.core.offer import Payment
from lloom.core.settings import Chain, Settings


def domain(chain: Chain | None) -> Domain:
    """The domain of what is signed for `chain`, whose contract must be known by now; None: of what nobody pays."""
    if chain is None:
        return Domain()
    assert chain.contract is not None, "the contract is looked up when a node starts"
    return Domain(chain.id, parse_address(chain.contract))


def active(settings: Settings) -> dict[str, Chain]:
    """The chains that requests are paid on, by name; none: nobody pays."""
    return settings.chain if settings.accounting.mode == "batched" else {}


def paying(settings: Settings) -> dict[str, Chain]:
    """The chains that the node itself spends on: a client, and a validator that may pay for probes."""
    if settings.role == "client":
        return active(settings)
    return active(settings) if settings.role == "validator" and settings.accounting.budget != 0 else {}


def token_of(chain: Chain) -> NodeId:
    """What is paid in; zeros: the chain's own coin."""
    return NodeId(bytes(ADDRESS_BYTES)) if chain.token is None else parse_address(chain.token)


def payment(chain: Chain) -> Payment:
    """The way to pay an executor on `chain`."""
    return Payment(chain.id, domain(chain).contract, token_of(chain), chain.rate)
