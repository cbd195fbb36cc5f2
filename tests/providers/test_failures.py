"""Refusals of real providers, as they come, become the right typed error with a safe message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
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


OVERFLOWS = [
    "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
    "This endpoint's maximum context length is 128000 tokens. However, you requested about 130000.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Input tokens exceed the configured limit of 272000 tokens.",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Input is too long for requested model.",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "too many tokens: size limit exceeded by 1234 tokens. Try using shorter or fewer inputs.",
    "Please reduce the length of the messages or completion.",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "Requested token count exceeds the model's maximum context length of 4096 tokens.",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "the request exceeds the available context size. try increasing the context size",
    "the input length exceeds the context length",
    "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded"
    " with context length of only 4096 tokens, which is not enough.",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "The prompt is too long: 140000, model maximum context length: 131071",
    "litellm.ContextWindowExceededError: litellm.BadRequestError: too long",
    "Range of input length should be [1, 98304]",
    "Invalid request: Your request exceeded model token limit: 8192 (requested: 9999)",
    "invalid params, context window exceeds limit",
    "Prompt exceeds max length",
    "prompt token count of 130000 exceeds the limit of 128000",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
]


@pytest.mark.parametrize("text", OVERFLOWS)
@pytest.mark.parametrize("status", [400, 413, 422, 500, 502, 503])
def test_overflow_in_every_gateway_s_words(text: str, status: int) -> None:
    bodies = [
        {"error": {"message": text, "type": "x", "code": status}},
        {"error": text},
        {"detail": text},
        {"message": text},
        {"error": {"message": "Provider returned error", "metadata": {"raw": text}}},
    ]
    for body in [*map(msgspec.json.encode, bodies), text.encode()]:
        error = from_response(status, {"x-should-retry": "true"}, body)
        assert error.code == "context_overflow", body
        assert (error.http_status, error.should_retry) == (400, False)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (429, "This request would exceed your rate limit of 40,000 input tokens per minute."),
        (
            413,
            "Request too large for model x on tokens per minute (TPM): Limit 6000, Requested 8000",
        ),
        (503, "Too many tokens, please wait before trying again."),
        (500, "context deadline exceeded"),
        (500, "internal error"),
        (502, "<html>maximum context length</html>"),
    ],
)
def test_what_is_no_overflow(status: int, text: str) -> None:
    body = text if text.startswith("<") else msgspec.json.encode({"error": {"message": text}})
    data = body.encode() if isinstance(body, str) else body
    assert from_response(status, {}, data).code != "context_overflow"
