"""One connection can neither fill memory nor stay for ever: trailers, upgrades, drips, pipelines,
answers that nobody reads. On plain sockets, as an attacker would."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.raw_client import ask, plain, rest_of, until, until_true, upgrade
from support.server import Site, site, status_of
from tokenwire.server.budget import Budget
from tokenwire.server.edge.connection.watch import Watch
from tokenwire.server.settings import Settings

KEY_A, KEY_B = "ann-has-a-long-key", "bob-has-a-long-key"
KEYS = [f"ann:{KEY_A}", f"bob:{KEY_B}"]
JSON = b'{"prompt":"scenario:text"}'


def watch_of(here: Site) -> Watch:
    return here.server._server.config.http_protocol_class.watch  # type: ignore[union-attr]


def chunked(headers: bytes, trailers: bytes, body: bytes = JSON) -> bytes:
    return (
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + headers
        + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)
    )


@pytest.fixture(scope="module")
def keyed() -> Iterator[Site]:
    with site(api_keys=KEYS, trust_proxy=["127.0.0.1"]) as here:
        yield here


# --- trailers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trailer",
    [
        b"Authorization: Bearer " + KEY_A.encode(),
        b"X-Api-Key: " + KEY_A.encode(),
        b"Cookie: tokenwire_session=x",
        b"Host: evil.test",
    ],
)
def test_a_trailer_is_no_header(keyed: Site, trailer: bytes) -> None:
    assert status_of(ask(keyed, chunked(b"", trailer + b"\r\n"))) == 401


@pytest.mark.parametrize(
    "trailer",
    [
        b"Authorization: Bearer " + KEY_B.encode(),
        b"Origin: https://evil.test",
        b"Sec-Fetch-Site: cross-site",
        b"Host: evil.test",
        b"Content-Encoding: gzip",
        b"Content-Type: text/plain",
        b"X-Forwarded-For: 203.0.113.9",
        b"Accept: text/event-stream",
    ],
)
def test_trailers_change_nothing(keyed: Site, trailer: bytes) -> None:
    key = b"Authorization: Bearer " + KEY_A.encode() + b"\r\n"
    answer = ask(keyed, chunked(key, trailer + b"\r\n"))
    assert status_of(answer) == 201, answer
    run = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]
    who = {"authorization": f"Bearer {KEY_A}"}
    assert keyed.client.get(f"/v1/runs/{run}", headers=who).status_code == 200
    keyed.client.post(f"/v1/runs/{run}/cancel", headers=who)


def test_an_idempotency_key_in_a_trailer_does_not_count(keyed: Site) -> None:
    key = b"Authorization: Bearer " + KEY_A.encode() + b"\r\n"
    runs = set()
    for _ in range(2):
        answer = ask(keyed, chunked(key, b"Idempotency-Key: twice\r\n"))
        run = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]
        keyed.client.delete(f"/v1/runs/{run}", headers={"authorization": f"Bearer {KEY_A}"})
        runs.add(run)
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("piece", "number"),
    [
        (b"X-Trailer: " + b"a" * 1000 + b"\r\n", 5000),
        (b"a" * 1000, 5000),
        (b"a:\r\n", 50_000),
    ],
    ids=["many", "one", "small"],
)
def test_endless_trailers_are_cut_off(keyed: Site, piece: bytes, number: int) -> None:
    head = chunked(b"", b"")[: -len(b"\r\n")]
    assert_cut_off(keyed, head, piece, number)


@pytest.mark.parametrize(
    "piece", [b"1;" + b"x" * 4000 + b"\r\na\r\n", b"x" * 4000], ids=["chunks", "one"]
)
def test_endless_chunk_extensions_are_cut_off(keyed: Site, piece: bytes) -> None:
    head = chunked(b"Authorization: Bearer " + KEY_A.encode() + b"\r\n", b"")
    head = head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + b"1;"
    assert_cut_off(keyed, head, piece, 1200)


def assert_cut_off(here: Site, head: bytes, piece: bytes, number: int) -> None:
    with plain(here) as connection:
        sent = 0
        try:
            connection.sendall(head)
            for _ in range(number):
                connection.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        answer = rest_of(connection)
    assert answer.count(b"HTTP/1.1 ") <= 1, "one answer at most"
    assert status_of(answer) in (0, 400, 401, 413, 431)
    until_true(lambda: not any(c.held() for c in tuple(watch_of(here).open)))


def test_an_answer_without_a_key_says_how_to_send_one(keyed: Site) -> None:
    answer = ask(keyed, b"GET /v1/runs/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status_of(answer) == 401
    assert b"'Bearer KEY' in the Authorization header" in answer


# --- bodies that nobody reads ------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_head",
    [
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc",
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 1000\r\n\r\n",
        b"DELETE /v1/session HTTP/1.1\r\nHost: x.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_answer_to_an_unread_body_closes(keyed: Site, request_head: bytes) -> None:
    answer = ask(keyed, request_head)  # returns when the server closes
    assert status_of(answer) in (200, 401, 421)
    assert b"connection: close" in answer.lower()


def test_a_request_that_was_read_keeps_its_connection(keyed: Site) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
    with plain(keyed) as connection:
        for _ in range(3):
            connection.sendall(request)
            answer = until(connection, b'"version"')
            assert b"connection: close" not in answer.lower()


def test_a_body_that_drips_beside_a_stream_has_its_clock() -> None:
    with site(body_deadline=0.5, header_deadline=5.0) as here:
        run = here.start("scenario:stall")
        with plain(here) as connection:
            connection.sendall(
                b"GET /v1/runs/%b/events HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 100000\r\n\r\n" % run.encode()
            )
            until(connection, b"text-delta")
            end = time.monotonic() + 40
            try:
                while time.monotonic() < end:
                    connection.sendall(b"x")
                    time.sleep(0.1)
            except OSError:
                pass
            assert time.monotonic() < end, "the drip went on"
        here.client.post(f"/v1/runs/{run}/cancel")


# --- pipelines ---------------------------------------------------------------------------------


BEHIND = {
    "half": b"GET /healthz HTTP/1.1\r\nHo",
    "a byte": b"G",
    "garbage": b"\x00\x01 garbage \r\n\r\n",
    "huge": b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000,
    "many": b"GET /x HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    "chunk": b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "body": b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc",
    "upgrade": upgrade(),
    "upgrade body": upgrade(more=b"Content-Length: 5\r\n"),
}


def test_what_comes_behind_an_open_stream_writes_nothing_into_it() -> None:
    """All at once on one server: each waits until every clock has passed."""
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(site(header_deadline=0.5, body_deadline=0.5))
        streams: dict[str, tuple[str, socket.socket, bytes]] = {}
        for name, behind in BEHIND.items():
            run = here.start("scenario:stall")
            connection = stack.enter_context(plain(here))
            connection.sendall(
                b"GET /v1/runs/%b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % run.encode()
            )
            data = until(connection, b"text-delta")
            with contextlib.suppress(OSError):
                connection.sendall(behind)
            streams[name] = run, connection, data
        time.sleep(3.2)  # longer than every clock
        for name, (run, connection, data) in streams.items():
            here.client.post(f"/v1/runs/{run}/cancel")
            if b"run-end" not in data:
                data += until(connection, b"run-end")
            stream = data.partition(b"run-end")[0]
            assert stream.count(b"HTTP/1.1 ") == 1, (name, data[-500:])
            assert b"101 Switching" not in stream, name
            assert b"run-end" in data, f"{name}: the stream itself went on"


def test_a_pipeline_is_answered_in_order_and_bounded(keyed: Site) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with plain(keyed) as connection:
        connection.sendall(one * 10)
        data = b""
        while data.count(b'"version"') < 10:
            data += connection.recv(65536)
        assert data.count(b"HTTP/1.1 200") == 10
    answers = ask(keyed, one * 4000)
    assert 1 <= answers.count(b"HTTP/1.1 200") < 100, "the rest is not kept"


def test_readers_behind_a_pipeline_go_when_the_connection_goes() -> None:
    with site() as here:
        run = here.start("scenario:stall")
        follow = b"GET /v1/runs/%b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % run.encode()
        with plain(here) as connection:
            connection.sendall(follow * 3)
            until(connection, b"text-delta")
            assert len(here.app.state.connections) == 1
        until_true(lambda: len(here.app.state.connections) == 0)
        here.client.post(f"/v1/runs/{run}/cancel")


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"5\r\nhello!!\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"5;\x00\r\n"]
)
def test_a_broken_body_is_refused_and_closes(keyed: Site, body: bytes) -> None:
    head = chunked(b"Authorization: Bearer " + KEY_A.encode() + b"\r\n", b"")
    answer = ask(keyed, head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


# --- answers that nobody reads -----------------------------------------------------------------


def stream_of(here: Site, size: int) -> str:
    """A Durable Stream of so many bytes; its path."""
    path = f"/ds/v1/stream/{os.urandom(6).hex()}"
    headers = {"content-type": "application/octet-stream", "authorization": f"Bearer {KEY_A}"}
    assert here.client.put(path, headers=headers).status_code == 201
    while size > 0:
        part = min(size, 4 << 20)
        assert here.client.post(path, content=b"x" * part, headers=headers).status_code == 204
        size -= part
    return path


def get(path: str, key: str = KEY_A) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


def test_unread_answers_stay_within_the_clients_budget() -> None:
    budget = {"buffer_per_client": 6 << 20, "readers_per_principal": 1000}
    with site(api_keys=KEYS, durable_streams="readwrite", **budget) as here:
        path = stream_of(here, 2 << 20)
        readers = [
            socket.create_connection(("127.0.0.1", here.port), timeout=40) for _ in range(12)
        ]
        try:
            for reader in readers:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.sendall(get(path))
            statuses = [status_of(reader.recv(15)) for reader in readers]
            assert sorted(set(statuses)) == [200, 429]
            name = "principal ann"
            assert 0 < here.app.state.budget.waiting(name) <= 6 << 20
            # Others have a budget of their own.
            other = here.client.get("/v1/models", headers={"authorization": f"Bearer {KEY_B}"})
            assert other.status_code == 200
        finally:
            for reader in readers:
                reader.close()
        until_true(lambda: here.app.state.budget.waiting(name) == 0)
        answer = here.client.get(path, headers={"authorization": f"Bearer {KEY_A}"})
        assert len(answer.content) == 2 << 20


def test_one_answer_larger_than_the_budget_is_given() -> None:
    with site(api_keys=KEYS, durable_streams="readwrite", buffer_per_client=1 << 20) as here:
        path = stream_of(here, 4 << 20)
        answer = here.client.get(path, headers={"authorization": f"Bearer {KEY_A}"})
        assert answer.content == b"x" * (4 << 20)
        until_true(lambda: here.app.state.budget.waiting("principal ann") == 0)


def test_an_unread_answer_waits_outside_of_the_transport() -> None:
    with site(api_keys=KEYS, durable_streams="readwrite", write_deadline=30.0) as here:
        path = stream_of(here, 4 << 20)
        with plain(here) as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.sendall(get(path))
            until_true(lambda: any(c.held() for c in tuple(watch_of(here).open)))
            time.sleep(0.3)
            assert max(c.held() for c in tuple(watch_of(here).open)) < 1 << 20


def test_a_flood_of_pings_is_not_answered_into_memory() -> None:
    with site() as here:
        with plain(here) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(upgrade())
            until(connection, b"\r\n\r\n")
            ping = b"\x89\xfd" + b"\0\0\0\0" + b"p" * 125
            connection.settimeout(2)
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += connection.send(ping * 500)
            except TimeoutError:
                pass
            assert sent < 64 << 20, "the server read on"
            assert max(c.held() for c in tuple(watch_of(here).open)) < 2 << 20
        until_true(lambda: not watch_of(here).open)


def test_bodies_that_wait_are_counted() -> None:
    settings: dict[str, Any] = {"buffer_per_client": 1 << 20, "body_limit": 4 << 20}
    with site(api_keys=KEYS, **settings) as here:
        key = b"Authorization: Bearer " + KEY_A.encode() + b"\r\n"
        head = (
            b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + key
            + b"Content-Length: 900000\r\n\r\n"
        )
        uploads = [socket.create_connection(("127.0.0.1", here.port), timeout=40) for _ in range(4)]
        try:
            for upload in uploads:
                try:
                    upload.sendall(head + b" " * 600_000)
                except OSError:
                    pass
            until_true(lambda: here.app.state.budget.dropped >= 3)
            assert here.app.state.budget.waiting("principal ann") <= 1 << 20
        finally:
            for upload in uploads:
                upload.close()
        until_true(lambda: here.app.state.budget.waiting("principal ann") == 0)


def test_the_fullest_connections_of_a_client_go_first() -> None:
    class Connection:
        def __init__(self, account: str, size: int) -> None:
            self.account, self.size, self.dropped = account, size, False

        def held(self) -> int:
            return 0 if self.dropped else self.size

        def drop(self) -> None:
            self.dropped = True

    budget = Budget(Settings(buffer_per_connection=100, buffer_per_client=200))
    a = [Connection("a", size) for size in (90, 80, 70, 10)]
    b = [Connection("b", size) for size in (101, 99, 99)]
    budget.sweep([*a, *b])
    assert [c.dropped for c in a] == [True, False, False, False]
    assert [c.dropped for c in b] == [True, False, False]
    assert budget.dropped == 2


def test_base64_stays_as_it_is() -> None:
    """A picture in pieces is the picture."""
    with site(api_keys=KEYS, durable_streams="readwrite") as here:
        data = base64.b64encode(os.urandom(300_000))
        path = f"/ds/v1/stream/{os.urandom(6).hex()}"
        headers = {"content-type": "application/octet-stream", "authorization": f"Bearer {KEY_A}"}
        assert here.client.put(path, content=data, headers=headers).status_code == 201
        assert here.client.get(path, headers=headers).content == data


def test_the_log_of_a_durable_stream_is_no_run() -> None:
    with site(durable_streams="readwrite") as here:
        stream = here.client.put("/ds/v1/stream/a", headers={"content-type": "text/plain"})
        assert stream.status_code == 201
        entry = next(iter(here.app.state.durable.streams._cache.values())).entry
        assert entry.log.startswith("ds_")
        for method, path in (
            ("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/cancel"),
            ("POST", "/attach-tokens"),
        ):  # fmt: skip
            answer = here.client.request(method, f"/v1/runs/{entry.log}{path}")
            assert answer.status_code == 404, (method, path, answer.text)
        assert here.client.get(f"/ds/v1/stream/runs/{entry.log}").status_code == 404
        assert here.client.get("/ds/v1/stream/a").status_code == 200


@pytest.mark.parametrize(
    ("kind", "is_stored"),
    [
        ("text/html", True),
        ("text/html; charset=utf-8", True),
        ("TEXT/HTML", True),
        ("image/svg+xml", True),
        ("application/xhtml+xml", True),
        ("text/xml", True),
        ("application/pdf", True),
        ("text/javascript", True),
        ("application/x-shockwave-flash", True),
        ("multipart/x-mixed-replace", True),
        ("x/y", True),
        ("text/plain", False),
        ("application/json", False),
        ("application/octet-stream", False),
        ("image/png", False),
    ],
)
def test_what_a_caller_wrote_runs_in_no_browser(kind: str, is_stored: bool) -> None:
    with site(durable_streams="readwrite") as here:
        body = b"[1]" if "json" in kind else b"<script>alert(1)</script>"
        headers = {"content-type": kind}
        assert here.client.put("/ds/v1/stream/a", content=body, headers=headers).status_code == 201
        for query in ("", "?offset=-1", "?offset=now", "?offset=-1&live=long-poll"):
            for method in ("GET", "HEAD"):
                if method == "HEAD" and query:
                    continue
                answer = here.client.request(method, f"/ds/v1/stream/a{query}")
                assert answer.status_code == 200
                assert answer.headers["content-security-policy"].startswith("sandbox;")
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert ("content-disposition" in answer.headers) is is_stored, (kind, query)


# --- what two servers could read in two ways ---------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, chunked\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n"
        b"Transfer-Encoding: chunked\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n",
        b"POST /v1/runs HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n",
        b"POST http://evil.test/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n",
        b"POST http://localhost@evil.test/v1/runs HTTP/1.1\r\nHost: localhost\r\n",
        b"POST http://localhost/v1/runs HTTP/1.1\r\nContent-Length: 0\r\n",
        b"GET http://evil.test/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n",
    ],
)
def test_an_ambiguous_head_is_refused_and_closes(keyed: Site, head: bytes) -> None:
    answer = ask(keyed, head + b"\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:80", b"127.0.0.1"])
def test_a_url_of_our_own_host_is_served(keyed: Site, host: bytes) -> None:
    request = b"GET http://" + host + b"/healthz HTTP/1.1\r\nConnection: close\r\nHost: " + host
    assert status_of(ask(keyed, request + b"\r\n\r\n")) == 200
