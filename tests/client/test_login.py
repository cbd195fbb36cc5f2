"""A client behind the login of an application: headers and cookies, for its own origin only."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from client.test_api import RUN, answer, run_with, saying, seen
from support.mounted import fastapi_app, serving
from tokenwire.client import Client
from tokenwire.errors import ConfigError, NotAuthenticatedError, ServerProtocolError, TokenwireError

SECRET = "a-secret-of-the-login"


def by_both(connection: HTTPConnection) -> str | None:
    """A login that wants a cookie and a header."""
    is_ours = connection.headers.get("x-csrf") == "yes"
    return connection.cookies.get("login") if is_ours else None


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_login_by_cookie_and_header(transport: Any) -> None:
    login: dict[str, Any] = {"headers": {"X-Csrf": "yes"}, "cookies": {"a": "1", "login": "ann"}}

    async def whole(client: Client) -> None:
        run = await client.start("scenario:text")
        assert await client.text(run)
        assert (await client.info(run)).state == "complete"

    async def refused(client: Client) -> None:
        with pytest.raises(NotAuthenticatedError):
            await client.start("scenario:text")

    with serving(fastapi_app(by_both)) as url:
        run_with(f"{url}/ai", whole, transport=transport, **login)
        run_with(f"{url}/ai", refused, transport=transport, cookies=login["cookies"])
        run_with(f"{url}/ai", refused, transport=transport, headers=login["headers"])


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_redirect_takes_them_nowhere(transport: Any) -> None:
    login: dict[str, Any] = {"headers": {"x-login": SECRET}, "cookies": {"login": SECRET}}
    with saying(b"") as (elsewhere, asked_elsewhere):
        place = elsewhere if transport == "sse" else elsewhere.replace("http", "ws")
        with saying(answer(307, b"", b"location: " + place.encode())) as (url, asked):
            with pytest.raises(ServerProtocolError, match="redirect") as failure:
                run_with(url, seen, transport=transport, **login)
            assert asked[0].count(SECRET.encode()) == 2
            assert RUN.encode() in asked[0] or transport == "websocket"
        assert not asked_elsewhere
        socket.create_connection(("127.0.0.1", int(elsewhere.rpartition(":")[2]))).close()
    assert SECRET not in f"{failure.value!r} {failure.value.details}"


@pytest.mark.parametrize(
    "login",
    [
        {"headers": {"x-login": f"{SECRET}\r\nx: y"}},
        {"headers": {"x-login": f" {SECRET}"}},
        {"headers": {"x-login": ""}},
        {"headers": {"x login": SECRET}},
        {"headers": {"x-login": 7}},
        {"headers": {"Host": SECRET}},
        {"headers": {"Content-Length": SECRET}},
        {"headers": {"Sec-WebSocket-Protocol": SECRET}},
        {"headers": {"X-Login": SECRET, "x-login": SECRET}},
        {"cookies": {"login": f"{SECRET}; admin=1"}},
        {"cookies": {"login": f"{SECRET}\n"}},
        {"cookies": {"log=in": SECRET}},
        {"cookies": {"login": None}},
        {"cookies": {"login": SECRET}, "headers": {"Cookie": SECRET}},
        {"api_key": SECRET, "headers": {"Authorization": SECRET}},
    ],
)
def test_headers_and_cookies_that_are_refused(login: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        Client("http://127.0.0.1:1", **login)
    assert SECRET not in str(refusal.value)


def test_no_text_of_a_client_holds_them() -> None:
    client = Client("http://127.0.0.1:1", headers={"x-login": SECRET}, cookies={"login": SECRET})
    assert SECRET not in f"{client!r} {client._origin!r}"

    async def fails(client: Client) -> None:
        with pytest.raises(TokenwireError) as failure:
            await client.info(RUN)
        assert SECRET not in f"{failure.value!r} {failure.value.details}"

    with saying(answer(400, b"no")) as (url, _):
        run_with(url, fails, headers={"x-login": SECRET}, cookies={"login": SECRET})
