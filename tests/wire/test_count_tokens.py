"""``POST /v1/messages/count_tokens``: an estimate that starts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from support.server import Site, site


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_the_sdk_gets_an_estimate(here: Site) -> None:
    before = here.runs_started
    with anthropic.Anthropic(base_url=here.url, api_key="k", max_retries=0) as client:
        one = client.messages.count_tokens(model="demo", messages=asked("Hello"))  # type: ignore[arg-type]
        more = client.messages.count_tokens(
            model="demo",
            system="Be brief. " * 40,
            messages=asked("Hello " * 1000),  # type: ignore[arg-type]
            tools=[{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
        )
    assert 1 <= one.input_tokens < 30
    assert 1200 < more.input_tokens < 2500
    assert here.runs_started == before


def test_it_is_said_to_be_an_estimate_and_grows_with_what_is_sent(here: Site) -> None:
    def count(content: Any) -> int:
        body = {"model": "demo", "messages": [{"role": "user", "content": content}]}
        answer = here.client.post("/v1/messages/count_tokens", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["estimate"] is True
        assert answer.headers["request-id"]
        return answer.json()["input_tokens"]

    assert count("語" * 100) > count("a" * 100)
    source = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
    assert count([{"type": "image", "source": source}]) > 500


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"model": "demo"}, 400, "invalid_request_error"),
        ({"model": "nobody", "messages": asked("x")}, 404, "not_found_error"),
        ({"model": "demo", "messages": asked("x"), "api_key": "x"}, 400, "invalid_request_error"),
    ],
)
def test_what_is_wrong_is_named(here: Site, body: Any, status: int, kind: str) -> None:
    answer = here.client.post("/v1/messages/count_tokens", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
