"""Refusals of real providers, as they come, become the right typed error with a safe message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.errors import ProviderError, RateLimitError
from tokenwire.providers.failures import error_event, from_object, from_response, redact

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "conformance" / "providers" / "failures.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['status']}-{c['error']}")
def test_refusals_get_their_type(case: dict[str, Any]) -> None:
    body = case["body"]
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    error = from_response(case["status"], case["headers"], data)
    assert type(error).__name__ == case["error"]
    assert error.status == case["status"]


def test_hints_of_the_headers_are_read() -> None:
    headers = {"retry-after": "7", "x-should-retry": "true", "x-request-id": "req_1"}
    error = from_response(429, headers, b"{}")
    assert (error.retry_after, error.should_retry, error.request_id) == (7.0, True, "req_1")
    assert from_response(429, {"retry-after-ms": "1500"}, b"").retry_after == 1.5
    dates = {
        "retry-after": "Fri, 06 Nov 2026 10:00:30 GMT",
        "date": "Fri, 06 Nov 2026 10:00:00 GMT",
    }
    assert from_response(503, dates, b"").retry_after == 30.0
    google = {"error": {"code": 429, "details": [{"@type": "RetryInfo", "retryDelay": "12.5s"}]}}
    assert from_response(429, {}, json.dumps(google).encode()).retry_after == 12.5


def test_a_used_up_quota_is_not_worth_a_retry() -> None:
    error = from_response(429, {}, b'{"error":{"code":"insufficient_quota","message":"billing"}}')
    assert type(error) is RateLimitError
    assert error.should_retry is False


def test_the_message_names_the_field_and_code_but_not_the_prose() -> None:
    body = {"error": {"message": "Bad sk-abcdef1234567890", "type": "invalid_request_error",
                      "code": "unsupported_parameter", "param": "max_tokens"}}  # fmt: skip
    error = from_response(400, {}, json.dumps(body).encode())
    assert "unsupported_parameter" in str(error)
    assert "'max_tokens'" in str(error)
    assert "Bad" not in str(error)
    assert error.details["provider_message"] == "Bad [hidden]"


SECRET = [
    "sk-proj-abcdefghij0123456789",
    "Bearer abcdef.ghijkl",
    "https://user:pass@example.org/x",
    "https://example.org/?key=AIzaSyA1234567890",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "/home/somebody/keys.txt",
    "gsk_abcdefghij0123456789",
    "sk-****************wxyz",
    "0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("secret", SECRET)
def test_secrets_are_hidden_everywhere(secret: str) -> None:
    hidden = redact(f"Incorrect key provided: {secret}.")
    for piece in ("abcdefghij", "ghijkl", "pass", "AIza", "c2ln", "somebody", "wxyz", "89abcdef"):
        assert piece not in hidden
    for status in (400, 401, 500):
        error = from_response(status, {}, json.dumps({"error": {"message": secret}}).encode())
        event = error_event(error, raw={"deep": [{"message": secret}]})
        assert secret not in str(error) + repr(error.details) + repr(event)


def test_an_error_inside_a_stream_may_bring_its_status() -> None:
    error = from_object({"error": {"code": 429, "message": "x"}})
    assert type(error) is RateLimitError
    assert error.status == 429
    event = error_event(error, after_output=True)
    assert (event.code, event.retryable, event.after_output) == ("rate_limited", True, True)


@given(st.integers(300, 599), st.binary(max_size=200))
def test_any_body_gives_a_typed_error(status: int, body: bytes) -> None:
    assert isinstance(from_response(status, {}, body), ProviderError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "type", "message", "details", "status", "param"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_object_gives_a_typed_error(value: Any) -> None:
    assert isinstance(from_object(value), ProviderError)
