"""The wire vocabulary of the bridge: one frozen type per message, msgpack arrays with a type tag. It never checks signatures.

Where each stands: HELLO carries `Hello`, WELCOME `Welcome`; OPEN a `Call`; END `Done`; RESET `Refusal`; CANCEL `Cancel`;
GOAWAY `Refusal`; CONTROL (stream 0) a `Control`. DATA is raw bytes: the request's JSON one way, SSE events the other. Who asks a
validator, or for a lane, gets its answer as one message in DATA, at most `MAX_PAGE` bytes.
"""

from __future__ import annotations

from lloom.core.messages.base import (
    FROM_EXECUTOR,
    MIN_CONTROL,
    VERSION,
    Address,
    Amount,
    ChainId,
    Hash,
    LaneNumber,
    Limits,
    Message,
    Milliseconds,
    Sequence,
    Signature,
    Text,
    Tokens,
    Wei,
    Word,
    amount,
    decode,
    decoder,
    encode,
    wei,
)
from lloom.core.messages.chat import (
    Cancel,
    Done,
    ModelCall,
    OfferCall,
    Refusal,
)
from lloom.core.messages.money import (
    Control,
    LaneCall,
    LaneState,
    Need,
    Receipts,
    SignedReceipt,
    SignedVoucher,
    Usage,
)
from lloom.core.messages.opening import (
    Hello,
    Welcome,
)
from lloom.core.messages.validators import (
    MAX_PAGE,
    Answered,
    CatalogueCall,
    GossipCall,
    Listing,
    Models,
    ModelsPage,
    ModelSummary,
    News,
    Numbers,
    OffersPage,
    Query,
    ReachCall,
    Reached,
    RegisterCall,
    RelayCall,
    RelayedCall,
    ReserveCall,
    Search,
    Statistics,
)

Call = (
    ModelCall
    | LaneCall
    | OfferCall
    | RegisterCall
    | CatalogueCall
    | GossipCall
    | ReachCall
    | ReserveCall
    | RelayCall
    | RelayedCall
)

__all__ = [
    "FROM_EXECUTOR",
    "MAX_PAGE",
    "MIN_CONTROL",
    "VERSION",
    "Address",
    "Amount",
    "Answered",
    "Call",
    "Cancel",
    "CatalogueCall",
    "ChainId",
    "Control",
    "Done",
    "GossipCall",
    "Hash",
    "Hello",
    "LaneCall",
    "LaneNumber",
    "LaneState",
    "Limits",
    "Listing",
    "Message",
    "Milliseconds",
    "ModelCall",
    "ModelSummary",
    "Models",
    "ModelsPage",
    "Need",
    "News",
    "Numbers",
    "OfferCall",
    "OffersPage",
    "Query",
    "ReachCall",
    "Reached",
    "Receipts",
    "Refusal",
    "RegisterCall",
    "RelayCall",
    "RelayedCall",
    "ReserveCall",
    "Search",
    "Sequence",
    "Signature",
    "SignedReceipt",
    "SignedVoucher",
    "Statistics",
    "Text",
    "Tokens",
    "Usage",
    "Wei",
    "Welcome",
    "Word",
    "amount",
    "decode",
    "decoder",
    "encode",
    "wei",
]
