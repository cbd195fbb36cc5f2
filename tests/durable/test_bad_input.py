"""What should not be asked under ``/ds``: the right status, nothing started, nothing lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.node import serving
from support.server import AS_A, AS_B, KEYS
from tokenwire.log.memory import MemoryStore
from tokenwire.server.start import ThreadedServer

TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}
ROOT = "/ds/v1/stream"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedServer]:
    with serving(durable_streams="readwrite", long_poll_timeout=0.2) as made:
        yield made


@pytest.fixture(scope="module")
def api(server: ThreadedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url + ROOT, timeout=60) as client:
        yield client


@pytest.fixture
def kept(api: httpx.Client) -> Iterator[str]:
    """A stream that must be there afterwards as it was before."""
    api.delete("/kept")
    assert api.put("/kept", content=b"kept", headers=TEXT).status_code == 201
    yield "/kept"
    found = api.get("/kept")
    assert (found.status_code, found.text) == (200, "kept")
    assert "stream-closed" not in found.headers


def raw(api: httpx.Client, head: str, body: bytes = b"") -> bytes:
    """The answer to bytes that no client would send."""
    where = api.base_url
    with socket.create_connection((where.host, where.port), timeout=30) as connection:
        lines = f"{head}\r\nHost: {where.host}:{where.port}\r\nConnection: close\r\n"
        connection.sendall(lines.encode("latin-1") + b"\r\n" + body)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


@pytest.mark.parametrize(
    "path", ["a%0Ab", "a%0D%0AX-Evil:%201", "a%00b", "%7F", "a%C2%85b", "x" * 1025]
)
def test_names_that_no_stream_may_have(api: httpx.Client, path: str) -> None:
    for method in ("PUT", "POST", "GET", "HEAD", "DELETE"):
        answer = api.request(method, f"/{path}", headers=TEXT)
        assert answer.status_code in (400, 404), (method, answer.text)
        assert "x-evil" not in answer.headers
    forked = {**TEXT, "stream-forked-from": f"/v1/stream/{path}"}
    assert api.put("/fork-of-none", headers=forked).status_code in (400, 404)
    assert api.get("/fork-of-none").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["ж漢🙂", "a b", "a%2Fb", "..%2F..%2Fetc%2Fpasswd", "a;b", "a%3Fb", "%25", "é", "a//b", "."],
)
def test_odd_names_are_names(api: httpx.Client, path: str) -> None:
    url = f"{ROOT}/odd-{path}"
    made = raw(api, f"PUT {httpx.URL(url).raw_path.decode()} HTTP/1.1\r\nContent-Length: 0")
    assert made.startswith(b"HTTP/1.1 201"), made
    location = next(
        line.split(b": ")[1]
        for line in made.split(b"\r\n")
        if line.lower().startswith(b"location:")
    )
    assert location.isascii()
    assert httpx.head(location.decode()).status_code == 200, "the Location leads there"
    gone = httpx.delete(location.decode())
    assert gone.status_code == 204


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "runs/../kept", "./kept", "%2e%2e/kept", "a/../kept"]
)
def test_dots_in_a_path_lead_nowhere(api: httpx.Client, kept: str, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = raw(api, f"{method} {ROOT}/{path} HTTP/1.1")
        assert answer.split()[1] in (b"404", b"405"), answer[:200]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"stream-ttl": "-1"}, 400),
        ({"stream-ttl": "01"}, 400),
        ({"stream-ttl": "1e3"}, 400),
        ({"stream-ttl": "9" * 30}, 400),
        ({"stream-ttl": ""}, 400),
        ({"stream-expires-at": "tomorrow"}, 400),
        ({"stream-expires-at": "2026-13-45T00:00:00Z"}, 400),
        ({"stream-expires-at": "9999-12-31T23:59:59+00:00", "stream-ttl": "5"}, 400),
        ({"stream-fork-offset": "x"}, 400),
        ({"stream-fork-sub-offset": "1"}, 400),
        ({"stream-forked-from": "/v1/stream/kept", "stream-fork-offset": "x"}, 400),
        ({"stream-forked-from": "/v1/stream/kept", "stream-fork-sub-offset": "-1"}, 400),
        ({"stream-forked-from": "/v1/stream/kept", "stream-fork-sub-offset": "5"}, 400),
        ({"stream-forked-from": "/v1/stream/never"}, 404),
        ({"stream-forked-from": "/v1/stream/runs/x"}, 404),
        ({"stream-forked-from": "/v1/stream/__ds/jwks.json"}, 404),
        ({"stream-forked-from": "http://evil.example/v1/stream/kept"}, 404),
        ({"stream-forked-from": "/etc/passwd"}, 404),
        ({"stream-forked-from": "/v1/stream/kept", "content-type": "application/json"}, 409),
    ],
)
def test_streams_that_cannot_be_made(
    api: httpx.Client, kept: str, headers: dict[str, str], status: int
) -> None:
    answer = api.put("/never-made", headers=headers)
    assert answer.status_code == status, answer.text
    assert api.get("/never-made").status_code == 404


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", TEXT, 400),
        (b"x", {}, 400),
        (b"x", {"content-type": "application/json"}, 409),
        (b"x", {**TEXT, "producer-id": "p"}, 400),
        (b"x", {**TEXT, "producer-id": "", "producer-epoch": "0", "producer-seq": "0"}, 400),
        (b"x", {**TEXT, "producer-id": "p", "producer-epoch": "-1", "producer-seq": "0"}, 400),
        (b"x", {**TEXT, "producer-id": "p", "producer-epoch": "0", "producer-seq": "1.5"}, 400),
        (
            b"x",
            {**TEXT, "producer-id": "p", "producer-epoch": "0", "producer-seq": str(2**53)},
            400,
        ),
        (b"x", {**TEXT, "producer-id": "p", "producer-epoch": "0", "producer-seq": "3"}, 409),
        (b"x", {**TEXT, "content-encoding": "gzip"}, 415),
        (b"x" * ((16 << 20) + 1), TEXT, 413),
    ],
)
def test_appends_that_cannot_be(
    api: httpx.Client, kept: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    assert api.post("/kept", content=content, headers=headers).status_code == status


@pytest.mark.parametrize(
    "content", [b"{", b"nope", b"[1,", b"[]", b"\xff", b"[" * 100_000, b'"\x00"', b"1 2"]
)
def test_json_that_is_none(api: httpx.Client, content: bytes) -> None:
    api.put("/json", json=[1], headers=JSON)
    assert api.post("/json", content=content, headers=JSON).status_code == 400
    assert api.put("/json-new", content=content or b"x", headers=JSON).status_code in (400, 201)
    if content != b"[]":
        assert api.get("/json-new").status_code == 404
    api.delete("/json-new")
    assert api.get("/json").json() == [1]


@pytest.mark.parametrize(
    "query",
    [
        "offset=",
        "offset=x",
        "offset=1",
        "offset=-2",
        "offset=-1&offset=-1",
        "offset=0000000000000000_0000000000000001x",
        "offset=0000000000000000_9999999999999999",
        "offset=%00",
        "offset=../x",
        "live=sse",
        "live=long-poll",
        "offset=-1&live=websocket",
        "offset=-1&live=",
    ],
)
def test_reads_that_cannot_be(api: httpx.Client, kept: str, query: str) -> None:
    answer = api.get(f"/kept?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "bad_request"


def test_a_cursor_that_is_none_is_only_ignored(api: httpx.Client, kept: str) -> None:
    for cursor in ("x", "-1", "9" * 40, "%0a"):
        answer = api.get(f"/kept?offset=-1&live=long-poll&cursor={cursor}")
        assert answer.status_code == 200
        assert answer.headers["stream-cursor"].isdigit()


def test_methods_and_places_that_are_none(api: httpx.Client, kept: str) -> None:
    assert api.patch("/kept", content=b"x", headers=TEXT).status_code == 405
    assert api.put("/", headers=TEXT).status_code == 404
    assert api.put("/runs/mine", headers=TEXT).status_code == 405
    assert api.put("/runs/mine/more", headers=TEXT).status_code == 404
    assert api.put("/runs", headers=TEXT).status_code == 404
    repeated = raw(
        api,
        f"POST {ROOT}/kept HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n"
        "Content-Length: 2",
        b"xx",
    )
    assert repeated.split()[1] == b"400"


def test_a_foreign_run_is_an_unknown_run() -> None:
    with serving(api_keys=KEYS) as server:
        made = httpx.post(f"{server.url}/v1/runs", json={"prompt": "Hello"}, headers=AS_A).json()
        unknown = "A" * 22
        for suffix in ("", ".ui", ".agui"):
            answers: list[Any] = []
            for run in (made["id"], unknown):
                url = f"{server.url}{ROOT}/runs/{run}{suffix}"
                for method in ("GET", "HEAD"):
                    answers.append(httpx.request(method, url, headers=AS_B).status_code)
                said = httpx.get(url, headers=AS_B).json()["error"]
                answers.append((said["code"], said["message"]))
            assert answers[:3] == answers[3:]
            assert answers[0] == 404
            assert httpx.get(f"{server.url}{ROOT}/runs/{made['id']}{suffix}").status_code == 401


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"id":"c"}', JSON, 400),
        (b'{"id":"c","messages":[]}', JSON, 400),
        (b'{"id":"c\\n","messages":[{"role":"user","parts":[]}]}', JSON, 400),
        (b'{"messages":"x"}', JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"x" * ((1 << 20) + 1), JSON, 413),
        (b"{}", TEXT, 415),
    ],
)
def test_a_chat_that_is_none_starts_nothing(
    server: ThreadedServer, content: bytes, headers: dict[str, str], status: int
) -> None:
    log = server.app.state.store
    assert isinstance(log, MemoryStore)
    before = set(log._logs)
    answer = httpx.post(f"{server.url}/ds/chat", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert "location" not in answer.headers
    assert set(log._logs) == before
