from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.adapters.llm.failure import MAX_TEXT, failure, retry_after
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.messages import Refusal


@given(
    st.integers(300, 599), st.binary(), st.dictionaries(st.sampled_from(["retry-after", "Retry-After-Ms"]), st.text())
)
def test_every_failure_fits_through_the_bridge(status: int, body: bytes, headers: dict[str, str]) -> None:
    error = failure(status, body, headers)
    refusal = Refusal.of(error)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(refusal), type=Refusal) == refusal


@pytest.mark.parametrize(
    "body",
    [
        {
            "error": {
                "message": "too long",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
        {"error": {"message": "too long", "type": "exceed_context_size_error", "code": 400, "param": "messages"}},
    ],
)
def test_the_caller_learns_what_the_backend_said(body: object) -> None:
    error = failure(400, msgspec.json.encode(body), {})
    assert isinstance(error, CallerFault)
    assert (str(error), error.status, error.code, error.param) == (
        "too long",
        400,
        "context_length_exceeded",
        "messages",
    )


@pytest.mark.parametrize("body", [{"error": "too long"}, {"detail": "too long"}, {"message": "too long"}])
def test_other_spellings_of_an_error_are_understood(body: object) -> None:
    assert str(failure(422, msgspec.json.encode(body), {})) == "too long"


@pytest.mark.parametrize("body", [b"", b"<html>oops</html>", b"[]", b'{"error":null}', b"[" * 100_000])
def test_what_is_no_error_object_is_not_shown(body: bytes) -> None:
    assert str(failure(400, body, {})) == "the backend refused the request (400)"


def test_a_long_message_is_cut() -> None:
    assert len(str(failure(400, msgspec.json.encode({"error": "x" * 10_000}), {}))) == MAX_TEXT


@pytest.mark.parametrize("name", ["sk-proj-abcd1234", "org-AbCdEfGh", "proj_12345678", "req_0123456789"])
def test_names_of_keys_and_accounts_are_struck_out(name: str) -> None:
    error = failure(400, msgspec.json.encode({"error": {"message": f"bad request in {name}, see {name}"}}), {})
    assert isinstance(error, CallerFault)
    assert name not in str(error)


@pytest.mark.parametrize("status", [400, 401, 402, 403])
def test_what_is_wrong_with_the_account_is_not_the_callers_fault(status: int) -> None:
    error = failure(status, msgspec.json.encode({"error": {"message": "Your credit balance is too low"}}), {})
    assert isinstance(error, RetryElsewhere)
    assert "credit" not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "999999999"}, 86_400),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": f"Wed, 21 Oct {10**20} 07:28:00 GMT"}, None),
        ({"retry-after": f"Wed, 21 Oct 2015 07:28:00 +{10**20}"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_the_wait_that_a_backend_asks_for_is_read_and_bounded(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_wait_may_be_given_as_a_date() -> None:
    wait = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)})
    assert wait is not None
    assert 3500 < wait <= 3600
