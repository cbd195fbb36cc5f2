"""How many writes a stream costs beside its words, and that their order is that of the bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.server import Site, site
from support.spine import run_async
from tokenwire.log.sqlite.thread import Job
from tokenwire.log.sqlite.writer import AppendJob, Writer
from tokenwire.server.edge.connection.body import TURNS, ChunkedBody
from tokenwire.server.edge.connection.http import GuardedProtocol

SSE = {"accept": "text/event-stream", "content-type": "application/json"}


class Counting:
    """A transport whose writes are kept."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    found: list[bytes] = []
    made = GuardedProtocol.connection_made

    def connection_made(self: GuardedProtocol, transport: Any) -> None:
        made(self, Counting(transport, found))  # type: ignore[arg-type]

    monkeypatch.setattr(GuardedProtocol, "connection_made", connection_made)
    return found


@pytest.fixture
def here(writes: list[bytes]) -> Iterator[Site]:
    with site() as found:
        yield found


def request(here: Site, method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{here.port}",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("prompt", ["scenario:text", "scenario:slow?rate=60&words=4"])
@pytest.mark.parametrize("closes", [True, False])
def test_a_start_is_one_write_and_an_end_is_one(
    here: Site, writes: list[bytes], prompt: str, closes: bool
) -> None:
    body = b'{"prompt":"%b"}' % prompt.encode()
    if closes:
        answer = here.raw(request(here, "POST", "/v1/runs", body, "Connection: close"))
    else:
        with here.client.stream("POST", "/v1/runs", content=body, headers=SSE) as stream:
            answer = b"".join(stream.iter_raw())
        assert b'"type":"run-end"' in answer
    assert b'"type":"run-start"' in writes[0]
    assert writes[0].startswith(b"HTTP/1.1 201 ")
    assert b": ok\n" in writes[0]
    assert b'"type":"step-end"' in writes[-1]
    assert b'"type":"run-end"' in writes[-1]
    assert writes[-1].endswith(b"\r\n0\r\n\r\n")
    assert not [w for w in writes[1:-1] if b"text-delta" not in w and b"-start" not in w]


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[list[Job]]:
    """The jobs of each transaction on SQLite."""
    found: list[list[Job]] = []
    attempt = Writer._attempt

    def counted(self: Writer, jobs: list[Job]) -> Any:
        found.append(jobs)
        return attempt(self, jobs)

    monkeypatch.setattr(Writer, "_attempt", counted)
    return found


def records_of(job: Job) -> bytes:
    """The records of an append that somebody waits for."""
    return b"\n".join(job.records) if isinstance(job, AppendJob) else b""


@pytest.mark.parametrize("budget", [[], ["principal/day=100000", "tenant/month=100000"]])
@pytest.mark.parametrize("prompt", ["scenario:text", "scenario:slow?rate=60&words=4"])
def test_on_sqlite_a_start_is_three_writes_at_most_and_an_end_is_one(
    writes: list[bytes], commits: list[list[Job]], tmp_path: Path, prompt: str, budget: list[str]
) -> None:
    """Those of the reader's socket; and commits of the store with records: the log, the start of
    run and step, the first words; and one for the end."""
    with site(store=f"sqlite:{tmp_path / 'log.db'}", budget=budget) as here:
        del writes[:], commits[:]
        body = b'{"prompt":"%b"}' % prompt.encode()
        answer = here.raw(request(here, "POST", "/v1/runs", body, "Connection: close"))
    words = next(number for number, data in enumerate(writes) if b"text-delta" in data)
    assert words < 3
    assert b'"type":"run-start"' in b"".join(writes[: words + 1])
    assert b"".join(writes) == answer
    ends = [data for data in writes if b"-end" in data or data.endswith(b"0\r\n\r\n")]
    assert len(ends) == 1
    commits = [jobs for jobs in commits if not budget or any(map(records_of, jobs))]
    appends = [b"\n".join(map(records_of, jobs)) for jobs in commits]
    first = next(number for number, data in enumerate(appends) if b"text-delta" in data)
    assert first < 3
    assert len([data for data in appends if b"-end" in data]) == 1
    order = [b"run-start", b"step-start", b"response-start", b"text-end", b"step-end", b"run-end"]
    whole = b"\n".join(appends)
    assert sorted(order, key=lambda kind: whole.index(b'"type":"%b"' % kind)) == order


def test_answers_to_requests_in_a_row_stand_one_behind_the_other(here: Site) -> None:
    run = here.start()
    path = f"/v1/runs/{run}/events"
    here.raw(request(here, "GET", path, b"", "Connection: close"))  # it has ended now
    alone = here.raw(request(here, "GET", path, b"", "Connection: close"))
    small = here.raw(request(here, "GET", f"{path[:-7]}/info", b"", "Connection: close"))
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in (alone, small)]
    row = [request(here, "GET", path), request(here, "GET", f"{path[:-7]}/info")] * 2
    for last, more in (
        (request(here, "GET", path, b"", "Connection: close"), [200]),
        (b"?", [400]),
    ):
        answer = here.raw(b"".join(row) + last + b"\r\n\r\n")
        heads = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
        assert heads == [200] * 4 + more
        place = 0
        for expected in bodies * 2:
            place = answer.index(expected, place) + len(expected)
            assert answer[place:].startswith(b"HTTP/1.1 ")


class Wire:
    """A transport that is no socket."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 7


def body_over(wire: Wire) -> tuple[ChunkedBody, Any]:
    cycle = SimpleNamespace(
        transport=wire,
        flow=SimpleNamespace(write_paused=False),
        chunked_encoding=True,
        response_started=True,
        response_complete=False,
        disconnected=False,
    )
    return ChunkedBody(cycle, asyncio.get_running_loop()), cycle  # type: ignore[arg-type]


def test_bytes_are_held_in_order_whichever_way_they_come() -> None:
    async def main() -> None:
        wire = Wire()
        body, cycle = body_over(wire)
        body.write(b"a")
        body.hold()
        body.hold()
        cycle.transport.write(b"head")
        body.write(b"b")
        body.port.send(b"raw")
        assert cycle.transport.get_write_buffer_size() == 7
        assert wire.writes == [b"1\r\na\r\n"]
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert wire.writes == [b"1\r\na\r\n", b"head1\r\nb\r\nraw"]
        assert cycle.transport is wire
        body.write(b"c")
        body.port.send(b"d")
        assert wire.writes[2:] == [b"1\r\nc\r\n", b"d"]

    run_async(main())


def test_much_is_not_held_and_an_end_holds_nothing() -> None:
    async def main() -> None:
        wire = Wire()
        body, cycle = body_over(wire)
        body.hold()
        cycle.transport.write(b"x" * 70_000)
        assert len(wire.writes) == 1
        cycle.transport.write(b"y")
        assert len(wire.writes) == 1
        body.release()
        assert wire.writes[1:] == [b"y"]
        body.hold()
        cycle.transport.write(b"z")
        cycle.transport.close()
        assert wire.writes[2:] == [b"z"]
        assert wire.closed
        body.release()
        body.hold()
        body.write(b"lost")  # as with any transport that is closed
        for _ in range(TURNS + 1):
            await asyncio.sleep(0)
        assert wire.writes[2:] == [b"z"]

    run_async(main())


def test_a_second_hold_has_turns_of_its_own() -> None:
    async def main() -> None:
        wire = Wire()
        body, _ = body_over(wire)
        body.hold()
        body.write(b"a")
        body.release()
        body.hold()
        body.write(b"b")
        await asyncio.sleep(0)
        assert wire.writes == [b"1\r\na\r\n"]
        await asyncio.sleep(0)
        assert wire.writes[1:] == [b"1\r\nb\r\n"]

    run_async(main())
