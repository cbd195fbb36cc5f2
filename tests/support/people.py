"""A server inside of an application whose requests say in a header who sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from starlette.requests import HTTPConnection

from support.mounted import live_of, serving
from tokenwire import Principal, PrincipalLimits, tool
from tokenwire.server import Live
from tokenwire.server.settings import Settings
from tokenwire.tools.demo import delete_file

__all__ = ["Person", "people_server"]


def who(connection: HTTPConnection) -> Principal | str | None:
    """The login of these tests: a header that holds what `Principal` takes, or a name."""
    text = connection.headers.get("x-who")
    value = json.loads(text) if text else None
    if not isinstance(value, dict):
        return value
    limits = {
        name: PrincipalLimits(**value.pop(name))
        for name in ("limits", "tenant_limits")
        if name in value
    }
    return Principal(**value, **limits)


@tool(executor="client")
def get_weather(city: str) -> dict[str, str]:
    """The weather, which the client knows. ``scenario:tool`` calls it."""
    raise NotImplementedError


class Person:
    """Requests of one principal."""

    def __init__(self, url: str, name: str, **more: Any) -> None:
        self.url, self.name = url, name
        value = {"id": name, **more} if more else name
        self.headers = {"x-who": json.dumps(value)}
        none_kept = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(base_url=url, headers=self.headers, timeout=30, limits=none_kept)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request, with a JSON body unless it is None."""
        return self.client.request(method, path, json=body, headers=headers)

    def start(self, prompt: str, **more: Any) -> str:
        """A run's id."""
        made = self.ask("POST", "/v1/runs", {"prompt": prompt, **more})
        assert made.status_code == 201, made.text
        return made.json()["id"]

    def waiting(self, prompt: str, **more: Any) -> tuple[str, str]:
        """A run that waits, and what it waits for."""
        run = self.start(prompt, **more)
        with self.client.stream("GET", f"/v1/runs/{run}/events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {") and json.loads(line[6:])["type"] == "run-wait":
                    break
        return run, self.ask("GET", f"/v1/runs/{run}").json()["waiting"][0]


@contextmanager
def people_server(**more: Any) -> Iterator[tuple[str, Live]]:
    """The server's address below its prefix, and what it is."""
    settings = Settings(
        starts_per_minute=60_000,
        starts_burst=1000,
        runs_per_principal=100,
        waiting_runs_per_principal=100,
        durable_streams="readwrite",
        usage=True,
    )
    more = {"settings": settings, **more}
    live = live_of(user=who, tools=[delete_file, get_weather], **more)
    with serving(live.wrap(_nothing, prefix="/ai")) as url:
        yield f"{url}/ai", live


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        raise ValueError("no sockets")
