"""Python clients against the server under a prefix; WebSockets and proxies below it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

import anthropic
import httpx
import openai
import pytest
from websockets.sync.client import connect

from support.mounted import HOSTS, everybody, me, serving
from support.reverse_proxy import nginx_with
from tokenwire.client import Client
from tokenwire.events.parts import TextDelta

NUMBERS = "".join(f"{n} " for n in range(1, 91))
SLOW = "scenario:slow"
ASKED: Any = [{"role": "user", "content": SLOW}]
KINDS = ["websockets-sansio", "wsproto"]


@pytest.fixture(scope="module", params=HOSTS)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    make, prefix = HOSTS[request.param]
    with serving(make(everybody)) as url:
        yield url + prefix


def test_openai(place: str) -> None:
    with openai.OpenAI(base_url=f"{place}/v1", api_key="unused", max_retries=0) as gpt:
        chunks = gpt.chat.completions.create(model="demo", messages=ASKED, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == NUMBERS
        begun = gpt.responses.create(model="demo", input=SLOW, background=True)
        assert gpt.responses.cancel(begun.id).status == "cancelled"
        assert [m.id for m in gpt.models.list()] == ["demo"]
        assert gpt.models.retrieve("demo").id == "demo"


def test_anthropic(place: str) -> None:
    with (
        anthropic.Anthropic(base_url=place, api_key="unused", max_retries=0) as claude,
        claude.messages.stream(model="demo", max_tokens=4000, messages=ASKED) as stream,
    ):
        assert "".join(stream.text_stream) == NUMBERS


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_our_client(place: str, transport: Literal["sse", "websocket"]) -> None:
    async def main() -> None:
        async with Client(place, transport=transport) as client:
            run = await client.start(SLOW)
            texts: list[str] = []
            async with client.follow(run) as follow:
                async for event in follow:
                    texts += [event.text] if isinstance(event, TextDelta) else []
                    if len(texts) == 5:
                        break
                cursor = follow.cursor
            async with client.follow(run, after=cursor) as follow:
                texts += [e.text async for e in follow if isinstance(e, TextDelta)]
            assert "".join(texts) == NUMBERS
            assert (await client.info(run)).state == "complete"
            waiting = await client.start("scenario:stall")
            await client.cancel(waiting)
            await client.text(waiting)
            assert (await client.info(waiting)).state == "cancelled"

    asyncio.run(main())


def heard(address: str, **cookies: str) -> str:
    """The text of a run that is started and read over one socket."""
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with connect(address, additional_headers={"Cookie": cookie}) as socket:
        socket.send(json.dumps({"op": "start", "id": 1, "request": {"prompt": SLOW}}))
        text = ""
        while True:
            events = [x["event"] for x in json.loads(socket.recv(timeout=20)).get("events", [])]
            text += "".join(e["text"] for e in events if e["type"] == "text-delta")
            if any(e["type"] == "run-end" for e in events):
                return text


@pytest.mark.parametrize("ws", KINDS)
@pytest.mark.parametrize("host", HOSTS)
def test_sockets_of_each_implementation(host: str, ws: str) -> None:
    make, prefix = HOSTS[host]
    with serving(make(me), ws=ws) as url:
        address = url.replace("http", "ws") + prefix + "/ws"
        assert heard(address, login="ann") == NUMBERS
        with pytest.raises(Exception, match=r"401|403"), connect(address):
            pass


STRIPPED = """
location /team/ {{
    proxy_pass http://{upstream}/;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
    proxy_buffering off;
}}
"""


@pytest.mark.parametrize("host", ["fastapi", "starlette", "wrapped"])
def test_behind_a_proxy_that_takes_a_prefix_off(host: str) -> None:
    make, prefix = HOSTS[host]
    with (
        serving(make(me), root_path="/team") as url,
        nginx_with(STRIPPED.format(upstream=urlsplit(url).netloc)) as proxy,
        httpx.Client(cookies={"login": "ann"}, timeout=20) as ann,
    ):
        place = f"{proxy.url}/team{prefix}"
        headers = {"origin": proxy.url}
        made = ann.post(f"{place}/v1/runs", json={"prompt": SLOW}, headers=headers)
        assert made.status_code == 201, made.text
        assert made.json()["events"].startswith(f"/team{prefix}/v1/runs/")
        assert "run-end" in ann.get(proxy.url + made.json()["events"]).text
        assert ann.get(httpx.URL(proxy.url).join(made.headers["location"])).status_code == 200
        message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "scenario:text"}]}
        chat = ann.post(f"{place}/ds/chat", json={"id": "c-1", "messages": [message]})
        assert chat.json()["streamUrl"].startswith(place)
        assert ann.get(chat.json()["streamUrl"]).status_code == 200
        assert heard(place.replace("http", "ws", 1) + "/ws", login="ann") == NUMBERS
