"""Proxies from the environment: which requests take one, and that they arrive by it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.free_ports import free_port
from support.proxy import http_proxy
from support.raw_provider import chunked, closing, raw_provider, sse_head
from support.spine import run_async
from support.tls import Authority
from tokenwire.errors import NetworkError
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.http.proxy import Proxies, Proxy

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("env", "host", "tls", "expected"),
    [
        ({}, "api.example", True, None),
        ({"HTTPS_PROXY": PROXY}, "api.example", True, "proxy.example:3128"),
        ({"HTTPS_PROXY": PROXY}, "api.example", False, None),
        ({"HTTP_PROXY": PROXY}, "api.example", False, "proxy.example:3128"),
        ({"HTTP_PROXY": PROXY}, "api.example", True, None),
        ({"ALL_PROXY": PROXY}, "api.example", True, "proxy.example:3128"),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": PROXY}, "api.example", True, "small:1"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": PROXY}, "api.example", True, "proxy.example:3128"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "api.example", True, "proxy.example:3128"),
        ({"HTTPS_PROXY": "http://proxy.example"}, "api.example", True, "proxy.example:80"),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, "api.example", False, None),
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, "a.b", False, "proxy.example:3128"),
        # Loopback is never reached by way of a proxy.
        *[
            ({"ALL_PROXY": PROXY}, host, tls, None)
            for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1")
            for tls in (True, False)
        ],
        ({"ALL_PROXY": PROXY}, "::ffff:127.0.0.1", True, None),
        ({"ALL_PROXY": PROXY}, "0.0.0.0", True, None),
        ({"ALL_PROXY": PROXY}, "localhost.example", True, "proxy.example:3128"),
    ],
)
def test_which_requests_take_a_proxy(
    env: dict[str, str], host: str, tls: bool, expected: str | None
) -> None:
    proxy = Proxies(env).of(host, 443 if tls else 80, tls=tls)
    assert (proxy.name if proxy else None) == expected


@pytest.mark.parametrize(
    ("listed", "host", "direct"),
    [
        ("*", "api.example", True),
        ("api.example", "api.example", True),
        ("api.example", "API.example.", True),
        ("example", "api.example", True),
        (".example", "api.example", True),
        ("*.example", "api.example", True),
        ("ample", "api.example", False),
        ("other, api.example", "api.example", True),
        ("other api.example", "api.example", True),
        ("api.example:443", "api.example", True),
        ("api.example:8443", "api.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("fd00::1", "fd00::2", False),
        ("", "api.example", False),
        (",,", "api.example", False),
        (".", "api.example", False),
    ],
)
def test_which_hosts_are_reached_without(listed: str, host: str, direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        proxies = Proxies({"ALL_PROXY": PROXY, name: listed})
        assert (proxies.of(host, 443, tls=True) is None) is direct


@pytest.mark.parametrize(
    "url", ["socks5://p:1", "https://p:1", "http://", "http://p:port", "http://[p", "ftp://p"]
)
def test_an_address_that_is_no_http_proxy_is_named_by_its_variable(url: str) -> None:
    with pytest.raises(NetworkError, match="HTTPS_PROXY") as caught:
        Proxies({"HTTPS_PROXY": url}).of("api.example", 443, tls=True)
    assert caught.value.should_retry is False


def test_the_password_of_a_proxy_is_in_no_text() -> None:
    proxy = Proxies({"HTTPS_PROXY": "http://user:s%40cret@p:1"}).of("api.example", 443, tls=True)
    assert isinstance(proxy, Proxy)
    assert proxy.authorization == "Basic dXNlcjpzQGNyZXQ="
    assert "cret" not in repr(proxy) + str(proxy) + proxy.name
    assert proxy.authorization not in repr(proxy) + str(proxy)
    with pytest.raises(NetworkError) as caught:
        Proxies({"HTTPS_PROXY": "ftp://user:secret@p:1"}).of("api.example", 443, tls=True)
    assert "secret" not in str(caught.value)


ANSWER = closing(sse_head(), chunked(b"data: hello\n\n"), b"0\r\n\r\n")


def call_to(url: str) -> Call:
    return Call(url=url, headers={"authorization": "Bearer k"}, body=b"{}")


async def text_of(client: HttpClient, url: str) -> str:
    stream = await client.open(call_to(url), connect_timeout=30)
    pieces = b""
    while data := await stream.read():
        pieces += data
    await stream.aclose()
    return pieces.decode()


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def test_a_plain_request_is_forwarded_with_the_whole_address() -> None:
    async def main() -> None:
        async with raw_provider(ANSWER) as provider:
            names = {"models.internal": port_of(provider.url)}
            async with http_proxy(names, "user:s@cret") as proxy:
                url = proxy.url.replace("//", "//user:s%40cret@")
                client = HttpClient(env={"HTTP_PROXY": url})
                assert await text_of(client, "http://models.internal/v1/chat") == "data: hello\n\n"
                await client.aclose()
            assert proxy.lines == ["POST http://models.internal/v1/chat HTTP/1.1"]
            assert b"host: models.internal\r\n" in provider.requests[0]
            assert provider.bodies == [b"{}"]

    run_async(main())


def test_a_secure_request_goes_through_a_tunnel_that_sees_no_header(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "test")
    pair = authority.certificate("models", "models.internal")

    async def main() -> None:
        served: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(2)
            writer.write(sse_head() + chunked(b"data: hello\n\n") + b"0\r\n\r\n")
            await writer.drain()
            writer.close()

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        names = {"models.internal": server.sockets[0].getsockname()[1]}
        trusting = ssl.create_default_context(cafile=str(authority.pem))
        async with server, http_proxy(names, "user:secret") as proxy:
            env = {"HTTPS_PROXY": proxy.url.replace("//", "//user:secret@")}
            client = HttpClient(ssl_context=trusting, env=env)
            url = "https://models.internal/v1/chat"
            assert await text_of(client, url) == "data: hello\n\n"
            assert proxy.lines == ["CONNECT models.internal:443 HTTP/1.1"]
            assert b"proxy-authorization" not in served[0].lower()
            # The certificate is the host's own: another name is refused inside the tunnel.
            names["other.internal"] = names["models.internal"]
            with pytest.raises(NetworkError, match="certificate"):
                await text_of(client, "https://other.internal/v1/chat")
            await client.aclose()

    run_async(main())


@pytest.mark.parametrize(
    ("password", "url", "words", "again"),
    [
        ("user:secret", "https://models.internal/v1", "user and password", False),
        ("user:secret", "http://models.internal/v1", "user and password", False),
        (None, "https://elsewhere.internal/v1", "status 502", None),
    ],
)
def test_what_a_proxy_refuses_is_named_as_its_doing(
    password: str | None, url: str, words: str, again: bool | None
) -> None:
    async def main() -> None:
        async with http_proxy({"models.internal": 9}, password) as proxy:
            client = HttpClient(env={"ALL_PROXY": proxy.url.replace("//", "//user:wrong@")})
            with pytest.raises(NetworkError) as caught:
                await client.open(call_to(url), connect_timeout=30)
            message = str(caught.value)
            assert words in message
            assert f"127.0.0.1:{port_of(proxy.url)}" in message
            assert "wrong" not in message
            assert caught.value.should_retry is again
            await client.aclose()

    run_async(main())


def test_a_proxy_that_is_not_there_is_named() -> None:
    async def main() -> None:
        client = HttpClient(env={"ALL_PROXY": f"http://127.0.0.1:{free_port()}"})
        for url in ("https://models.internal/v1", "http://models.internal/v1"):
            with pytest.raises(NetworkError, match="cannot connect to the proxy"):
                await client.open(call_to(url), connect_timeout=30)
        await client.aclose()

    run_async(main())


def test_a_loopback_address_is_reached_directly_whatever_is_set() -> None:
    async def main() -> None:
        async with raw_provider(ANSWER) as provider:
            client = HttpClient(env={"ALL_PROXY": f"http://127.0.0.1:{free_port()}"})
            assert await text_of(client, f"{provider.url}/v1") == "data: hello\n\n"
            await client.aclose()

    run_async(main())


def test_the_processs_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with raw_provider(ANSWER) as provider:
            async with http_proxy({"models.internal": port_of(provider.url)}) as proxy:
                monkeypatch.setenv("http_proxy", proxy.url)
                client = HttpClient()
                assert await text_of(client, "http://models.internal/v1") == "data: hello\n\n"
                await client.aclose()
            assert proxy.lines

    run_async(main())
