"""Files in a request: bounded apart from its other bytes, kept with the run, found again; and those
that a model makes, to our readers."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from support.cli import model_that_says
from support.server import Site, site
from tokenwire.client import Client
from tokenwire.events.message import user
from tokenwire.events.model import FileDelta, TextDelta
from tokenwire.server.app import create_app
from tokenwire.server.edge.guard import _inline, parse_json
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(body_limit=20_000, media_limit=100_000) as found:
        yield found


def asked(size: int, *, more: str = "") -> dict[str, Any]:
    """A question with a file of ``size`` base64 characters."""
    parts: list[dict[str, str]] = [
        {"type": "file", "media_type": "image/png", "data": "A" * size, "name": "a.png"},
        {"type": "text", "text": "scenario:empty" + more},
    ]
    return {"messages": [{"role": "user", "content": parts}]}


@pytest.mark.parametrize(
    ("size", "status"), [(99_999, 201), (100_000, 201), (100_001, 413), (130_000, 413)]
)
def test_the_limit_of_files(here: Site, size: int, status: int) -> None:
    answer = here.client.post("/v1/runs", json=asked(size))
    assert answer.status_code == status
    if status == 413:
        assert answer.json()["error"]["limit"] in ("media", "body")


def test_files_add_nothing_to_what_else_a_body_may_hold(here: Site) -> None:
    words = " word" * 3000
    assert here.client.post("/v1/runs", json=asked(90_000, more=words)).status_code == 201
    answer = here.client.post("/v1/runs", json=asked(60_000, more=words * 2))
    assert answer.status_code == 413
    assert "without its files" in answer.json()["error"]["message"]
    nested = b'{"x":[' + b"[]," * 20_000 + b"[]]}"
    assert here.client.post("/v1/runs", content=nested, headers=JSON).status_code == 413


def test_elsewhere_a_body_holds_no_files(here: Site) -> None:
    answer = here.client.put("/v1/threads/one", json={"title": "A" * 30_000})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {
                "model": "demo",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "scenario:empty"},
                            {
                                "type": "image_url",
                                "image_url": {"url": "data:image/png;base64," + "A" * 80_000},
                            },
                        ],
                    }
                ],
            },
        ),
        (
            "/v1/messages",
            {
                "model": "demo",
                "max_tokens": 10,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "scenario:empty"},
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": "A" * 80_000,
                                },
                            },
                        ],
                    }
                ],
            },
        ),
        (
            "/v1/responses",
            {
                "model": "demo",
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "scenario:empty"},
                            {
                                "type": "input_image",
                                "image_url": "data:image/png;base64," + "A" * 80_000,
                            },
                        ],
                    }
                ],
            },
        ),
    ],
)
def test_other_wires_take_files_too(here: Site, path: str, body: dict[str, Any]) -> None:
    assert here.client.post(path, json=body).status_code == 200


def test_a_file_is_kept_with_its_run(here: Site) -> None:
    data = base64.b64encode(bytes(range(256)) * 4).decode()
    body = asked(4)
    body["messages"][0]["content"][0]["data"] = data
    run = here.client.post("/v1/runs", json=body).json()["id"]
    (kept,) = here.client.get(f"/v1/runs/{run}").json()["input"]
    assert kept["content"][0]["data"] == data


def test_what_counts_as_a_file() -> None:
    assert _inline(b'{"a":"' + b"A" * 5000 + b'","b":"' + b"B" * 100 + b'"}') == 5000
    # Looked at once: a search from every byte of a run would take minutes.
    assert _inline((b"A" * 4000 + b'"') * 2000) == 0


def test_a_long_text_beside_many_brackets_is_looked_at_once() -> None:
    """The depth of JSON is counted outside of texts, which may be megabytes of base64."""
    value: dict[str, Any] = {"data": "A" * 8_000_000, "list": [[]] * 100, "quote": '\\"[' * 1000}
    assert parse_json(json.dumps(value).encode(), 64) == value


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_large_picture_in_one_piece_reaches_our_reader(transport: str) -> None:
    """A line of two megabytes from the model; our readers take lines of one."""
    picture = base64.b64encode(random.Random(1).randbytes(1_600_000)).decode()
    url = f"data:image/png;base64,{picture}"
    drawn = {"images": [{"type": "image_url", "image_url": {"url": url}}]}
    text = "a" * 2_000_000

    async def read(server: ThreadedServer) -> list[Any]:
        async with Client(server.url, transport=transport) as client:
            run = await client.start([user("Draw a cat.")])
            return [event async for event in client.follow(run)]

    with model_that_says(text, drawn) as model:
        app = create_app(Settings(port=0, model=[model], store="memory:"))
        with ThreadedServer(app) as server:
            events = asyncio.run(read(server))
    assert events[-1].outcome == "complete"
    assert "".join(e.text for e in events if isinstance(e, FileDelta)) == picture
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == text
