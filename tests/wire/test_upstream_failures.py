"""What callers of the OpenAI and Anthropic routes get when the provider fails: status, code,
``Retry-After``, streaming or not; and what the official SDKs make of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import anthropic
import httpx
import openai
import pytest

from support.node import serving
from support.upstream import Upstream, http, sse, text_chunk, upstream


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


@pytest.fixture(scope="module")
def url(provider: Upstream) -> Iterator[str]:
    with serving(model=[provider.model]) as server:
        yield server.url


def body_for(path: str, model: str, stream: bool) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"model": model, "input": "Hello", "stream": stream}
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    if path == "/v1/messages":
        body["max_tokens"] = 10
    return {**body, "stream": stream}


PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
}


def error(message: str, code: str | None = None, kind: str = "x") -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "code": code}}).encode()


OVERFLOW = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
#: upstream status and body -> our status, our code, requests that the provider may get at most.
CASES: dict[str, tuple[int, bytes, int, str, int]] = {
    "overflow": (400, error(OVERFLOW, "context_length_exceeded"), 400, "context_overflow", 1),
    "overflow in words": (400, error(OVERFLOW), 400, "context_overflow", 1),
    "overflow as 500": (500, error(OVERFLOW), 400, "context_overflow", 1),
    "bad image": (400, error("Invalid image data"), 400, "provider_bad_request", 1),
    "unprocessable": (422, error("bad field"), 400, "provider_bad_request", 1),
    "no such model": (404, error("no model m", "model_not_found"), 404, "model_not_found", 1),
    "wrong key": (401, error("Incorrect API key provided"), 502, "provider_auth", 1),
    "no right": (403, error("not allowed"), 502, "provider_permission", 1),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
def test_a_failure_has_one_status_and_one_code(
    url: str, provider: Upstream, path: str, case: str, stream: bool
) -> None:
    status, body, want, code, most = CASES[case]
    provider.will(http(status, body))
    answer = httpx.post(url + path, json=body_for(path, provider.model, stream), timeout=30)
    assert answer.status_code == want, answer.text
    assert provider.requests <= most
    said = answer.json()["error"]
    if path == "/v1/messages":
        assert said["type"] == ANTHROPIC_TYPES[want]
    else:
        assert said["code"] == code
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", ["90", "90s", "date", "date without Date"])
def test_retry_after_is_passed_on_in_every_form(
    url: str, provider: Upstream, path: str, form: str, stream: bool
) -> None:
    now = time.time()
    value = formatdate(now + 90, usegmt=True) if form.startswith("date") else form
    date = [f"Date: {formatdate(now, usegmt=True)}"] if form == "date" else []
    provider.will(http(429, error("slow down"), f"Retry-After: {value}", *date))
    answer = httpx.post(url + path, json=body_for(path, provider.model, stream), timeout=30)
    assert answer.status_code == 429, answer.text
    assert 80 <= int(answer.headers["retry-after"]) <= 91
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
def test_after_output_a_failure_is_in_the_stream(url: str, provider: Upstream, path: str) -> None:
    provider.will(sse(text_chunk("Hel")[6:].strip(), '{"error":{"message":"broken","code":"x"}}'))
    body = body_for(path, provider.model, True)
    answer = httpx.post(url + path, json=body, timeout=30)
    assert answer.status_code == 200
    assert "Hel" in answer.text
    marks = {
        "/v1/chat/completions": '"error":{',
        "/v1/responses": "response.failed",
        "/v1/messages": "event: error",
    }
    assert marks[path] in answer.text
    whole = httpx.post(url + path, json={**body, "stream": False}, timeout=30)
    assert whole.status_code >= 500, whole.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_openai_sdk_raises_the_right_class_and_does_not_repeat(
    url: str, provider: Upstream, stream: bool
) -> None:
    expected = {
        "overflow": openai.BadRequestError,
        "overflow as 500": openai.BadRequestError,
        "bad image": openai.BadRequestError,
        "no such model": openai.NotFoundError,
        "wrong key": openai.InternalServerError,
    }
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=2) as client:
        for case, kind in expected.items():
            provider.will(http(*CASES[case][:2]))
            with pytest.raises(kind) as caught:
                client.chat.completions.create(
                    model=provider.model,
                    messages=[{"role": "user", "content": "Hello"}],
                    stream=stream,
                )
            assert caught.value.code == CASES[case][3]
            assert provider.requests == 1, case
            with pytest.raises(kind):
                client.responses.create(model=provider.model, input="Hello", stream=stream)
            assert provider.requests == 2, case


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_anthropic_sdk_raises_the_right_class_and_does_not_repeat(
    url: str, provider: Upstream, stream: bool
) -> None:
    expected = {
        "overflow": anthropic.BadRequestError,
        "overflow as 500": anthropic.BadRequestError,
        "no such model": anthropic.NotFoundError,
        "wrong key": anthropic.InternalServerError,
    }
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=2) as client:
        for case, kind in expected.items():
            provider.will(http(*CASES[case][:2]))
            with pytest.raises(kind):
                client.messages.create(
                    model=provider.model,
                    max_tokens=10,
                    messages=[{"role": "user", "content": "Hello"}],
                    stream=stream,
                )
            assert provider.requests == 1, case


def test_a_key_of_ours_and_one_of_the_provider_are_told_apart(provider: Upstream) -> None:
    with serving(model=[provider.model], api_keys=["a:" + "k" * 32]) as server:
        provider.will(http(401, error("Incorrect API key provided")))
        for path in PATHS:
            body = body_for(path, provider.model, False)
            ours = httpx.post(server.url + path, json=body, timeout=30)
            assert ours.status_code == 401
            headers = {"authorization": "Bearer " + "k" * 32}
            theirs = httpx.post(server.url + path, json=body, headers=headers, timeout=30)
            assert theirs.status_code == 502
            if path != "/v1/messages":
                assert ours.json()["error"]["code"] == "invalid_api_key"
                assert theirs.json()["error"]["code"] == "provider_auth"
