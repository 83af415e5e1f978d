"""Drafts and receipts come out of a pickle as they went in."""

from __future__ import annotations

import pickle

from msgspec.structs import replace

from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, Status
from lloom.core.identity import NodeId
from lloom.core.messages import SignedReceipt
from lloom.core.parcel import Drafts, Given, Issued, Judgements
from lloom.core.payment.payable import Judged
from lloom.core.payment.voucher import MAX_AMOUNT

DRAFT = Draft(
    lane=Lane(b"\xff" * 20, b"\x01" * 20, 2**63 - 1),
    request_digest=b"\xfe" * 32,
    model=bytes(32),
    response_hash=b"\x80" * 32,
    response_bytes=2**40,
    input_tokens=3,
    cached_tokens=2,
    output_tokens=1,
    cost=MAX_AMOUNT,
    started_at=1_700_000_000_000,
    finished_at=1_700_000_000_001,
    status=Status.UNPAID,
)
RECEIPT = SignedReceipt(b"\xff" * 416, b"\x80" * 65)
BATCH = 176
"""accounting.batch."""
JUDGED = Judged(b"\xff" * 20, 2**63 - 1, RECEIPT, "a cost", 7, MAX_AMOUNT, (1, 2))


def test_drafts_come_back_the_same_however_much_they_cost() -> None:
    drafts = Drafts([DRAFT, replace(DRAFT, cost=0, status=Status.COMPLETE)])
    back = pickle.loads(pickle.dumps(drafts, 5))
    assert back == drafts
    assert [type(draft.status) for draft in back] == [Status, Status]


def test_receipts_come_back_the_same() -> None:
    issued = Issued([RECEIPT, SignedReceipt(b"", bytes(65))])
    given = Given([(NodeId(b"\xff" * 20), RECEIPT), (NodeId(bytes(20)), RECEIPT)])
    judged = Judgements([JUDGED, replace(JUDGED, problem="", left_out=())])
    for many in (issued, given, judged):
        back = pickle.loads(pickle.dumps(many, 5))
        assert (type(back), back) == (type(many), many)
        assert type(back[0]) is type(many[0])


def test_many_are_pickled_as_one_piece() -> None:
    given = Given([(NodeId(bytes(20)), RECEIPT)] * 9)
    for many in (Drafts([DRAFT] * 9), Issued([RECEIPT] * 9), given, Judgements([JUDGED] * 9)):
        pickled = pickle.dumps(many, 5)
        assert pickled.count(b"lloom.core") == 1, "the parcel's own module, and no other"


def test_a_batch_of_receipts_that_are_paid_goes_along_with_its_call() -> None:
    made = [replace(RECEIPT, receipt=bytes([number]) * 416, signature=bytes([number]) * 65) for number in range(BATCH)]
    many = Judgements(replace(JUDGED, signed=each, seq=number << 32) for number, each in enumerate(made))
    assert len(pickle.dumps(many, 5)) < 100 * 1024, "what is larger Ray puts elsewhere"


def test_none_are_as_good_as_many() -> None:
    assert pickle.loads(pickle.dumps(Drafts(), 5)) == []
    assert pickle.loads(pickle.dumps(Issued(), 5)) == []
