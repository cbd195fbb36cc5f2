"""Data of older answers in the stored conversation: a page that is loaded again shows them all."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from support.mounted import serving
from tokenwire import RunContext
from tokenwire.server import Live
from tokenwire.testing import ScriptedModel


def app() -> Any:
    async def prepare(ctx: RunContext) -> None:
        ctx.data("sources", [ctx.prompt])

    def everybody(connection: HTTPConnection) -> str:
        return "ann"

    model: Any = ScriptedModel(*[[f"Answer {number}."] for number in range(9)])
    live = Live(
        "memory:", models=["any"], registry=model, http=model, prepare=prepare, user=everybody
    )
    return Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)


def ask(place: str, text: str, name: str | None, query: str) -> str:
    """The id of the run, which has ended."""
    if name is None:
        body: dict[str, Any] = {"prompt": text, "thread": "t"}
        run = httpx.post(f"{place}/v1/runs", json=body, timeout=60).json()["id"]
        assert "run-end" in httpx.get(f"{place}/v1/runs/{run}/events", timeout=60).text
        return run
    message = {"id": name, "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": "t", "message": message}
    answer = httpx.post(f"{place}/api/chat{query}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.headers["tokenwire-run"]


def sources(messages: list[dict[str, Any]]) -> list[Any]:
    answers = [one["parts"] for one in messages if one["role"] == "assistant"]
    return [[p["data"] for p in parts if p["type"] == "data-sources"] for parts in answers]


def stored(place: str, **query: Any) -> dict[str, Any]:
    query = {"as": "ui-messages", **query}
    return httpx.get(f"{place}/v1/threads/t", params=query, timeout=60).json()


@pytest.mark.parametrize(
    ("query", "names"),
    [("", True), ("?history=thread", True), ("", False)],
    ids=["stored", "history", "native"],
)
def test_every_answer_keeps_its_data(query: str, names: bool) -> None:
    with serving(app()) as url:
        place = f"{url}/ai"
        runs = [ask(place, f"q{n}", f"u{n}" if names else None, query) for n in range(3)]
        whole = stored(place)["messages"]
        assert sources(whole) == [[[f"q{n}"]] for n in range(3)]
        assert [one["parts"][0]["type"] for one in whole[1::2]] == ["data-sources"] * 3
        page = stored(place, limit=4)
        assert page["messages"] == whole[2:]
        assert stored(place, before=page["page"]["cursor"])["messages"] == whole[:2]
        # A run that is erased takes its data with it, and nothing else.
        gone = httpx.delete(f"{place}/v1/runs/{runs[0]}", timeout=60)
        assert gone.status_code == 204, gone.text
        kept = stored(place)["messages"]
        assert sources(kept)[-2:] == [[["q1"]], [["q2"]]]
        assert [["q0"]] not in sources(kept)


def test_a_regenerated_answer_has_its_own_data() -> None:
    with serving(app()) as url:
        place = f"{url}/ai"
        ask(place, "first", "u0", "")
        ask(place, "better", "u0", "")
        ask(place, "more", "u1", "")
        assert sources(stored(place)["messages"]) == [[["better"]], [["more"]]]
