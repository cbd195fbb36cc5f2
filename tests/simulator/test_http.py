"""The simulator's HTTP server: many requests a connection, odd requests, people who leave."""

import asyncio
import json

import aiohttp
import pytest

from simulator.socket import hear
from tokenwire.simulator.app import SimulatorServer, serve, start_demo
from tokenwire.simulator.scenarios import SCENARIOS
from tokenwire.simulator.settings import Settings

BODY = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


async def talk(server, data):
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    writer.write_eof() if data.endswith(b"EOF") else None
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


def run(main, settings=None):
    async def outer():
        async with SimulatorServer(settings) as server:
            return await main(server)

    return asyncio.run(outer())


def test_two_requests_sent_at_once_are_answered_in_order():
    async def main(server):
        first = POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
        second = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answer = await talk(server, first + second)
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert answer.index(b"chat.completion") < answer.index(b'"object":"list"')

    run(main)


def test_a_chunked_request_and_100_continue():
    async def main(server):
        head = POST + b"connection: close\r\ntransfer-encoding: chunked\r\n"
        head += b"expect: 100-continue\r\n\r\n"
        pieces = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
        answer = await talk(server, head + pieces)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")

    run(main)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (POST + b"content-length: x\r\n\r\n", b"400"),
        (POST + b"content-length: 999999999999\r\n\r\n", b"413"),
        (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000, b"431"),
        (POST + b"connection: close\r\ncontent-length: 3\r\n\r\n{]}", b"400"),
        (POST + b"connection: close\r\ncontent-length: 2\r\n\r\n[]", b"400"),
        (b"GET /nothing HTTP/1.1\r\nconnection: close\r\n\r\n", b"404"),
    ],
)
def test_bad_requests_get_their_status(request_bytes, status):
    async def main(server):
        answer = await talk(server, request_bytes)
        assert answer.startswith(b"HTTP/1.1 " + status)

    run(main)


def test_pages_about_the_simulator():
    async def main(server):
        async with aiohttp.ClientSession(server.url) as http:

            async def get(path):
                async with http.get(path) as response:
                    assert response.status == 200
                    return await response.json()

            assert (await get("/v1/models"))["data"][0]["id"] == "demo"
            assert (await get("/v1/models/demo"))["id"] == "demo"
            assert (await get("/v1beta/models"))["models"][0]["name"] == "models/demo"
            assert (await get("/api/tags"))["models"][0]["name"] == "demo"
            assert (await get("/healthz"))["status"] == "ok"
            listed = await get("/scenarios")
            assert {one["name"] for one in listed["scenarios"]} == set(SCENARIOS)
            assert "cut-rst" in listed["faults"]
            await hear(server, "hello")
            (record,) = (await get("/sim/requests"))["requests"]
            assert (record["outcome"], record["wire"]) == ("complete", "openai-chat")
            assert record["bytes_sent"] > 100
            async with http.delete("/sim/requests") as response:
                assert response.status == 204
            assert (await get("/sim/requests"))["requests"] == []
            async with http.options("/v1/chat/completions") as response:
                assert response.headers["access-control-allow-origin"] == "*"

    run(main)


def test_a_key_is_demanded_when_one_is_set():
    async def main(server):
        async with aiohttp.ClientSession(server.url) as http:
            for headers, status in (
                ({}, 401),
                ({"authorization": "Bearer wrong"}, 401),
                ({"authorization": "Bearer right"}, 200),
                ({"x-api-key": "right"}, 200),
            ):
                async with http.post("/v1/chat/completions", data=BODY, headers=headers) as answer:
                    assert answer.status == status

    run(main, Settings(api_key="right"))


def test_a_reader_who_does_not_read_holds_up_only_itself():
    async def main(server):
        host, port = server.url.removeprefix("http://").split(":")
        _, lazy = await asyncio.open_connection(host, int(port))
        big = BODY.replace(b"hello", b"scenario:big").replace(
            b'{"model"', b'{"stream":true,"model"'
        )
        lazy.write(POST + b"content-length: %d\r\n\r\n" % len(big) + big)
        heard = await hear(server, "scenario:text")
        assert heard.ended
        assert server.requests[0].outcome == "running"
        lazy.transport.abort()
        record = await asyncio.wait_for(server.wait_ended(0), 60)
        assert record.outcome == "disconnected"
        assert record.bytes_sent < 9_000_000

    run(main)


def test_big_and_burst_arrive_whole():
    async def main(server):
        big = await hear(server, "scenario:big", quiet=20)
        assert big.ended
        assert len(big.body) > 10_000_000
        burst = await hear(server, "scenario:burst", quiet=20)
        assert len(burst.frames()) == 10_000 + 3

    run(main)


def test_closing_the_server_ends_open_streams():
    async def main():
        server = await start_demo()
        listening = asyncio.create_task(hear(server, "scenario:stall", quiet=20))
        while not server.requests:
            await asyncio.sleep(0)
        await server.aclose()
        heard = await listening
        assert not heard.ended
        assert server.requests[0].outcome == "disconnected"
        await server.aclose()

    asyncio.run(main())


def test_serve_until_cancelled():
    async def main():
        ready = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(Settings(), ready))
        async with aiohttp.ClientSession() as http, http.get(await ready + "/healthz") as answer:
            assert answer.status == 200
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_resets_and_disconnects_work_on_uvloop_too():
    uvloop = pytest.importorskip("uvloop")

    async def main():
        async with SimulatorServer() as server:
            heard = await hear(server, "scenario:text", "cut-rst@512")
            assert heard.reset
            assert len(heard.body) == 512
            heard = await hear(server, "scenario:stall", quiet=0.3)
            assert heard.silent
            record = await asyncio.wait_for(server.wait_ended(1), 60)
            assert record.outcome == "disconnected"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_hundreds_of_streams_at_once():
    async def main(server):
        answers = await asyncio.gather(*(hear(server, "hello") for _ in range(200)))
        assert all(heard.ended for heard in answers)
        assert len(
            {heard.body.partition(b'"choices"')[2].partition(b'"id"')[0] for heard in answers}
        )

    run(main, Settings(rate=500, jitter=0.5))
