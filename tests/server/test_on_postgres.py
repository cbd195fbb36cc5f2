"""The server on PostgreSQL: kill -9 of servers and of the database, with readers elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.test_takeover import Reader, kinds, start
from support.postgres import PostgresServer, postgres_server
from support.process import serving
from tokenwire.events.fold import fold

pytestmark = pytest.mark.postgres

TEXT = "".join(f"{number} " for number in range(1, 91))


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with postgres_server(synchronous_commit="on") as made:
        yield made


def test_kill_9_of_a_server_and_of_the_database(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, database: PostgresServer
) -> None:
    """One server is killed in the middle of a run, then the database; the other server goes on, its
    reader misses nothing, and a server that starts anew shows the same."""
    other_folder = tmp_path_factory.mktemp("other")
    with serving(other_folder, "--store", database.url) as other:
        assert "in PostgreSQL" in "".join(other.lines)
        with serving(tmp_path, "--store", database.url) as one:
            run = start(one, "scenario:slow")
            reader = Reader(other, run)
            reader.until("text-delta")
            one.stop(signal.SIGKILL)
        reader.until("step-reset")
        database.restart()
        events = reader.until("run-end")
        reader.close()
        assert kinds(events, "run-start", "run-claim", "step-reset", "run-end") == [1, 1, 1, 1]
        assert events[-1].outcome == "complete"
        assert fold(events).text == TEXT
        other.stop(signal.SIGKILL)
    with serving(tmp_path, "--store", database.url) as again:
        reader = Reader(again, run)
        assert reader.until("run-end") == events
        reader.close()
        body = {"prompt": "scenario:slow"}
        headers = {"Idempotency-Key": "one"}
        ids = [
            httpx.post(f"{again.url}/v1/runs", json=body, headers=headers, timeout=60).json()["id"]
            for _ in range(2)
        ]
        assert ids[0] == ids[1]
