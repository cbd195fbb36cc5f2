"""The packages of OpenAI and Anthropic of npm, with their retries, against failing providers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.node import need_node, run_node, serving
from support.upstream import Upstream, http, sse, text_chunk, upstream

pytestmark = pytest.mark.node

WIRES = [f"{w}-{how}" for w in ("chat", "responses", "messages") for how in ("whole", "stream")]
OVERFLOW = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."


def error(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "code": code}}).encode()


#: The provider's answer, and the class and code that the caller gets: asked once, whatever the
#: package's retries.
FINAL: dict[str, tuple[bytes, str, str]] = {
    "bad": (http(400, error("Invalid image")), "BadRequestError", "provider_bad_request"),
    "overflow": (http(400, error(OVERFLOW)), "BadRequestError", "context_overflow"),
    "overflow413": (http(413, error(OVERFLOW)), "BadRequestError", "context_overflow"),
    "overflow500": (http(500, error(OVERFLOW)), "BadRequestError", "context_overflow"),
    "unprocessable": (http(422, error("bad")), "BadRequestError", "provider_bad_request"),
    "missing": (http(404, error("no m", "model_not_found")), "NotFoundError", "model_not_found"),
    "key": (http(401, error("Incorrect API key")), "InternalServerError", "provider_auth"),
    "right": (http(403, error("not allowed")), "InternalServerError", "provider_permission"),
    "money": (http(402, error("no credit")), "InternalServerError", "provider_permission"),
    "quota": (http(429, error("quota", "insufficient_quota")), "RateLimitError", "rate_limited"),
    "redirect": (http(302, b""), "InternalServerError", "protocol_error"),
    "key200": (
        http(200, error("no such key", "invalid_api_key")),
        "InternalServerError",
        "provider_auth",
    ),
    "silent": (b"", "InternalServerError", "timeout"),
}
#: The same where the package may ask again, after the provider's own time.
TRANSIENT: dict[str, tuple[bytes, str, str]] = {
    "limited": (
        http(429, error("slow down"), "Retry-After: 70"),
        "RateLimitError",
        "rate_limited",
    ),
    "down": (http(503, error("down"), "Retry-After: 70"), "InternalServerError", "overloaded"),
}
#: Anthropic's package has classes of its own for these.
FINER = {503: "ServiceUnavailableError", 504: "GatewayTimeoutError"}
BROKEN = sse(text_chunk("Hel")[6:].strip(), '{"error":{"message":"broken","code":"x"}}')
CUT = sse(text_chunk("Hel")[6:].strip())


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    need_node()
    with upstream() as server:
        server.answers = {name: case[0] for name, case in (FINAL | TRANSIENT).items()}
        server.answers |= {"silent": server.silent, "broken": BROKEN, "cut": CUT}
        yield server


@pytest.fixture(scope="module")
def outcomes(provider: Upstream) -> dict[str, Any]:
    with serving(model=[provider.model], keep_alive_timeout=2.0, starts_burst=1000) as server:
        runs = [("2", *FINAL, "broken", "cut"), ("0", *TRANSIENT)]
        told = [run_node("failures.mjs", server.url, provider.model, *args) for args in runs]
        return {name: outcome for each in told for name, outcome in each.items()}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", FINAL)
def test_what_cannot_be_helped_is_asked_once(
    outcomes: dict[str, Any], provider: Upstream, name: str, wire: str
) -> None:
    failure = outcomes[f"{name}:{wire}"].get("error")
    assert failure, outcomes[f"{name}:{wire}"]
    _, kind, code = FINAL[name]
    assert failure["name"] in (kind, FINER.get(failure["status"]))
    if not wire.startswith("messages"):  # Anthropic's errors have types alone
        assert failure["code"] == code
    assert provider.asked[f"case:{name}:{wire}"] == 1


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", TRANSIENT)
def test_what_passes_says_when_to_ask_again(
    outcomes: dict[str, Any], provider: Upstream, name: str, wire: str
) -> None:
    failure = outcomes[f"{name}:{wire}"].get("error")
    assert failure, outcomes[f"{name}:{wire}"]
    assert failure["name"] in (TRANSIENT[name][1], FINER.get(failure["status"]))
    assert failure["retryAfter"] == "70"
    # Longer than the server itself would wait.
    assert provider.asked[f"case:{name}:{wire}"] == 1


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ["broken", "cut"])
def test_a_failure_after_text_is_no_answer(
    outcomes: dict[str, Any], provider: Upstream, name: str, wire: str
) -> None:
    outcome = outcomes[f"{name}:{wire}"]
    if wire == "responses-stream":  # this package gives the event to its caller
        assert outcome["value"][-1] == "response.failed"
    else:
        assert outcome["error"]["name"]
    if wire.endswith("stream"):
        assert provider.asked[f"case:{name}:{wire}"] == 1
