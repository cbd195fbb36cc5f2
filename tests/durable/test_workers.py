"""Read-write Durable Streams written by several processes that share a store."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.process import Process, serving
from support.redis import need_redis, redis_server

TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}


class Two:
    """Two servers, processes of their own, on one store."""

    def __init__(self, first: Process, second: Process) -> None:
        self.processes = [first, second]
        self.clients = [
            httpx.Client(base_url=f"{p.url}/ds/v1/stream/", timeout=60) for p in self.processes
        ]

    def __iter__(self) -> Iterator[httpx.Client]:
        return iter(self.clients)

    def at_once(self, calls: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """Each call to one of the two in turn, all of them together."""
        ready = threading.Barrier(len(calls))

        def send(number: int) -> httpx.Response:
            method, path, more = calls[number]
            ready.wait(30)
            return self.clients[number % 2].request(method, path, **more)

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(send, range(len(calls))))


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("workers")
    with ExitStack() as stack:
        store = f"sqlite:{folder / 'shared.db'}"
        if request.param == "redis":
            need_redis()
            store = stack.enter_context(redis_server()).url
        flags = ("--store", store, "--durable-streams", "readwrite", "--no-access-log")
        both = Two(*(stack.enter_context(serving(folder, *flags)) for _ in range(2)))
        yield both
        for client in both:
            client.close()


def test_what_one_process_answered_the_other_knows(two: Two) -> None:
    a, b = two
    assert a.put("seen", headers=TEXT).status_code == 201
    for number in range(20):
        writer, reader = (a, b) if number % 2 else (b, a)
        assert writer.post("seen", content=b"%d " % number, headers=TEXT).status_code == 204
        assert reader.get("seen").text == "".join(f"{n} " for n in range(number + 1))
    assert a.post("seen", headers={"stream-closed": "true"}).status_code == 204
    refused = b.post("seen", content=b"late", headers=TEXT)
    assert (refused.status_code, refused.headers["stream-closed"]) == (409, "true")
    assert b.delete("seen").status_code == 204
    assert a.get("seen").status_code == 404
    assert a.put("seen", content=b"anew", headers=TEXT).status_code == 201
    assert b.get("seen").text == "anew"


def test_appends_of_both_are_all_there_once_and_in_their_order(two: Two) -> None:
    a, b = two
    assert a.put("many", headers=JSON).status_code == 201
    count = 60

    def write(client: httpx.Client, name: str) -> None:
        for number in range(count):
            answer = client.post("many", json={"name": name, "number": number}, headers=JSON)
            assert answer.status_code == 204, answer.text

    names = ["a1", "b1", "a2", "b2"]
    with ThreadPoolExecutor(4) as pool:
        work = [
            pool.submit(write, client, n) for client, n in zip([a, b, a, b], names, strict=True)
        ]
        for done in work:
            done.result()
    found = a.get("many")
    assert found.json() == b.get("many").json()
    assert found.headers["stream-next-offset"] == b.get("many").headers["stream-next-offset"]
    for name in names:
        mine = [item["number"] for item in found.json() if item["name"] == name]
        assert mine == list(range(count)), name


def test_a_producers_request_counts_once_whoever_takes_it(two: Two) -> None:
    a, b = two
    assert a.put("once", headers=JSON).status_code == 201
    for seq in range(10):
        headers = {**JSON, "producer-id": "p", "producer-epoch": "0", "producer-seq": str(seq)}
        call = ("POST", "once", {"json": [seq], "headers": headers})
        told = sorted(answer.status_code for answer in two.at_once([call] * 4))
        assert told == [200, 204, 204, 204]
    assert b.get("once").json() == list(range(10))
    newer = {**JSON, "producer-id": "p", "producer-epoch": "1", "producer-seq": "0"}
    assert b.post("once", json=["new"], headers=newer).status_code == 200
    older = {**JSON, "producer-id": "p", "producer-epoch": "0", "producer-seq": "10"}
    fenced = a.post("once", json=["zombie"], headers=older)
    assert (fenced.status_code, fenced.headers["producer-epoch"]) == (403, "1")


def test_of_two_at_once_one_makes_the_stream(two: Two) -> None:
    for number in range(10):
        same = ("PUT", f"race/{number}", {"content": b"x", "headers": TEXT})
        assert sorted(a.status_code for a in two.at_once([same] * 4)) == [200, 200, 200, 201]
        other = ("PUT", f"other/{number}", {"headers": JSON})
        text = ("PUT", f"other/{number}", {"headers": TEXT})
        answers = two.at_once([other, text])
        assert sorted(a.status_code for a in answers) == [201, 409]


def test_one_closes_and_nothing_follows(two: Two) -> None:
    a, _ = two
    for number in range(10):
        path = f"closing/{number}"
        a.put(path, headers=JSON)
        close = {**JSON, "stream-closed": "true"}
        calls = [
            ("POST", path, {"json": [n], "headers": close if n < 2 else JSON}) for n in range(4)
        ]
        answers = two.at_once(calls)
        accepted = [n for n, answer in enumerate(answers) if answer.status_code == 204]
        assert all(answer.status_code in (204, 409) for answer in answers)
        found = a.get(path)
        assert found.headers["stream-closed"] == "true"
        assert sorted(found.json()) == accepted
        assert found.json()[-1] in (0, 1), "the closing one is the last"


def test_forks_keep_a_deleted_stream_hidden_until_they_are_gone(two: Two) -> None:
    a, b = two
    a.put("source", content=b"one ", headers=TEXT)
    forked = {"stream-forked-from": "/v1/stream/source"}
    calls = [("PUT", f"fork/{n}", {"headers": forked}) for n in range(4)]
    assert [answer.status_code for answer in two.at_once(calls)] == [201] * 4
    assert b.delete("source").status_code == 204
    assert [client.get("source").status_code for client in two] == [410, 410]
    assert b.get("fork/0").text == "one "
    gone = two.at_once([("DELETE", f"fork/{n}", {}) for n in range(4)])
    assert [answer.status_code for answer in gone] == [204] * 4
    assert [client.get("source").status_code for client in two] == [404, 404]


def test_a_fork_begun_while_its_source_is_deleted_is_whole_or_not_there(two: Two) -> None:
    a, b = two
    for number in range(10):
        a.put(f"dying/{number}", content=b"whole", headers=TEXT)
        forked = {"stream-forked-from": f"/v1/stream/dying/{number}"}
        fork, deleted = two.at_once(
            [("PUT", f"heir/{number}", {"headers": forked}), ("DELETE", f"dying/{number}", {})]
        )
        assert deleted.status_code == 204
        assert fork.status_code in (201, 404, 409)
        read = b.get(f"heir/{number}")
        source = a.get(f"dying/{number}").status_code
        if fork.status_code == 201:
            assert (read.text, source) == ("whole", 410)
        else:
            assert (read.status_code, source) == (404, 404)


@pytest.mark.parametrize("maker", [0, 1])
def test_a_reader_at_one_sees_what_the_other_writes_and_deletes(two: Two, maker: int) -> None:
    a, b = two
    two.clients[maker].put("live", headers=JSON)
    with b.stream("GET", "live?offset=-1&live=sse") as reading:
        lines = reading.iter_lines()

        def control() -> dict[str, Any]:
            for line in lines:
                if line.startswith("data:{"):
                    return json.loads(line[5:])
            raise AssertionError("the stream ended")

        assert control()["upToDate"]
        tails = []
        for number in range(5):
            told = a.post("live", json=[number], headers=JSON)
            tails.append(told.headers["stream-next-offset"])
            # Somebody reads live there, and yet a new request sees what was just answered.
            assert b.head("live").headers["stream-next-offset"] == tails[-1]
            assert control()["streamNextOffset"] == tails[-1]
        poll = threading.Thread(target=lambda: a.delete("live"))
        poll.start()
        assert not [line for line in lines if line.startswith("event: data")], "it ends"
        poll.join()
    assert b.get("live").status_code == 404


def test_a_long_poll_at_one_is_ended_by_the_other(two: Two) -> None:
    a, b = two
    a.put("poll", headers=TEXT)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: b.get("poll?offset=now&live=long-poll"))
        while not waiting.done():
            # `now` begins at the tail of its arrival, so what is sent before is not for it.
            assert a.post("poll", content=b"x", headers=TEXT).status_code == 204
        assert set(waiting.result().text) == {"x"}


def test_what_was_answered_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    flags = ("--store", f"sqlite:{tmp_path / 'kept.db'}", "--durable-streams", "readwrite")
    with (
        serving(tmp_path, *flags) as first,
        serving(tmp_path, *flags) as second,
        httpx.Client(base_url=f"{second.url}/ds/v1/stream/", timeout=60) as other,
    ):
        other.put("kept", headers=JSON)
        answered: list[int] = []
        enough = threading.Event()

        def write() -> None:
            with httpx.Client(base_url=f"{first.url}/ds/v1/stream/", timeout=60) as client:
                for number in range(100_000):
                    try:
                        answer = client.post("kept", json=[number], headers=JSON)
                    except httpx.TransportError:
                        return
                    assert answer.status_code == 204
                    answered.append(number)
                    if number == 30:
                        enough.set()

        writing = threading.Thread(target=write)
        writing.start()
        assert enough.wait(60)
        first.process.kill()
        writing.join(60)
        found = other.get("kept").json()
        assert found[: len(answered)] == answered
        assert len(found) <= len(answered) + 1, "at most the one that was under way"
        assert other.post("kept", json=["on"], headers=JSON).status_code == 204
        assert other.get("kept").json() == [*found, "on"]
