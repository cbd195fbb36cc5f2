"""examples/app over HTTP: its login, its table and its files; cuts, stops and approvals."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.app_example import APP, AppServer

pytestmark = pytest.mark.timeout(300)
pytest.importorskip("argon2", reason="'argon2-cffi' is not installed")
NUMBERS = "".join(f"{n} " for n in range(1, 91))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[AppServer]:
    started = AppServer(data).start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def ann(server: AppServer) -> Iterator[httpx.Client]:
    with server.sign_up("ann") as client:
        yield client


def start(client: httpx.Client, prompt: str, thread: str) -> str:
    made = client.post("/ai/v1/runs", json={"prompt": prompt, "thread": thread})
    assert made.status_code == 201, made.text
    return made.json()["id"]


def until(question: Callable[[], Any]) -> Any:
    """What ``question`` says once that is true."""
    deadline = time.monotonic() + 60
    while not (answer := question()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def ended(client: httpx.Client, run: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told = client.get(f"/ai/v1/runs/{run}").json()
        return told if told["state"] not in ("running", "waiting") else None

    return until(look)


def text_of(told: dict[str, Any]) -> str:
    content = told["message"]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return "".join(part["text"] for part in parts if part["type"] == "text")


def saved(client: httpx.Client, thread: str) -> list[dict[str, Any]]:
    """The application's own table, once it has the conversation."""
    return until(lambda: client.get(f"/conversations/{thread}").json())


def test_people_sign_in_and_out(server: AppServer, ann: httpx.Client, data: Path) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as nobody:
        assert nobody.get("/session").status_code == 401
        assert nobody.get("/conversations").status_code == 401
        assert nobody.get("/ai/v1/models").status_code == 401
        wrong = {"name": "ann", "password": "not hers at all"}
        assert nobody.post("/session", json=wrong).status_code == 401
        assert nobody.post("/people", json=wrong).status_code == 409
        assert nobody.post("/session", json={"name": "nobody", **wrong}).status_code == 401
        assert nobody.post("/people", json={"name": "a b", "password": "x" * 9}).status_code == 422
        right = {"name": "ann", "password": "password of ann"}
        assert nobody.post("/session", json=right).json() == {"name": "ann"}
        assert nobody.get("/ai/v1/models").json()["data"][0]["id"] == "demo"
        assert nobody.delete("/session").status_code == 204
        assert nobody.get("/ai/v1/models").status_code == 401
        forged = {"cookie": f"session={ann.cookies['session'][:-4]}AAAA"}
        assert nobody.get("/ai/v1/models", headers=forged).status_code == 401
    with sqlite3.connect(data / "app.db") as base:
        (stored,) = base.execute("SELECT password FROM person WHERE name = 'ann'").fetchone()
    assert stored.startswith("$argon2id$")


def test_an_answer_uses_the_persons_own_files_and_is_kept(
    server: AppServer, ann: httpx.Client
) -> None:
    run = start(ann, "How long does a cat sleep?", "files-1")
    events = ann.get(f"/ai/v1/runs/{run}/events").text
    frames = [json.loads(x[6:]) for x in events.splitlines() if x.startswith("data: {")]
    (sources,) = [f["payload"] for f in frames if f["type"] == "data" and f["name"] == "sources"]
    assert sources == ["cats.md"]
    told = ended(ann, run)
    (message,) = saved(ann, "files-1")
    assert (message["question"], message["outcome"]) == ("How long does a cat sleep?", "complete")
    assert message["answer"] == text_of(told) != ""
    assert ann.get("/conversations").json()[0]["thread"] == "files-1"
    with server.sign_up("bob") as bob:
        assert bob.get("/conversations").json() == []
        assert bob.get("/conversations/files-1").json() == []
        assert bob.get(f"/ai/v1/runs/{run}").status_code == 404
        assert bob.get("/ai/v1/threads/files-1").json()["runs"] == []


def test_a_stop_keeps_what_was_said(ann: httpx.Client) -> None:
    run = start(ann, "scenario:stall", "stop-1")
    until(lambda: "nothing more" in text_of(ann.get(f"/ai/v1/runs/{run}").json()))
    assert ann.post(f"/ai/v1/runs/{run}/cancel", json={}).status_code == 202
    assert ended(ann, run)["state"] == "cancelled"
    (message,) = saved(ann, "stop-1")
    assert message["outcome"] == "cancelled"
    assert message["answer"].endswith("nothing more")


def test_a_server_that_is_killed(server: AppServer, ann: httpx.Client) -> None:
    """In the middle of one answer, while two others wait for a decision."""
    waiting = {
        path: start(ann, f"delete {path}", f"delete-{path}") for path in ("report.txt", "cats.md")
    }
    approvals = {
        path: until(lambda run=run: ann.get(f"/ai/v1/runs/{run}").json().get("waiting"))[0]
        for path, run in waiting.items()
    }
    cut = start(ann, "scenario:slow?rate=60", "cut-1")
    until(lambda: text_of(ann.get(f"/ai/v1/runs/{cut}").json()).startswith("1 2 3"))
    server.kill()
    server.start()
    assert ann.get("/files").json() == ["cats.md", "holidays.md", "report.txt"]
    for path, run in waiting.items():
        decision = {"approved": path == "report.txt"}
        answer = ann.post(f"/ai/v1/runs/{run}/approvals/{approvals[path]}", json=decision)
        assert answer.status_code == 202
    for path, run in waiting.items():
        told = ended(ann, run)
        assert told["state"] == "complete"
        assert (f"{path} is deleted" in json.dumps(told["messages"])) is (path == "report.txt")
        assert [m["outcome"] for m in saved(ann, f"delete-{path}")] == ["complete"]
    assert ann.get("/files").json() == ["cats.md", "holidays.md"]
    assert text_of(ended(ann, cut)) == NUMBERS
    (message,) = saved(ann, "cut-1")
    assert (message["answer"], message["outcome"]) == (NUMBERS, "complete")
    assert [c["thread"] for c in ann.get("/conversations").json()].count("cut-1") == 1


def test_it_stops_while_somebody_reads(server: AppServer, ann: httpx.Client) -> None:
    run = start(ann, "scenario:stall", "stop-2")
    with ann.stream("GET", f"/ai/v1/runs/{run}/events") as reading:
        lines = reading.iter_lines()
        while "text-delta" not in next(lines):
            pass
        code = server.stop()
        rest = "\n".join(lines)
    assert code in (0, -15)
    assert '"type":"reconnect"' in rest


def test_what_concerns_tokenwire_is_thirty_lines() -> None:
    source = (APP / "app.py").read_text(encoding="utf-8")
    part = source.split("# --- the answers")[1].split("# --- the application")[0]
    lines = [x for x in part.splitlines()[1:] if x.strip() and not x.strip().startswith("#")]
    assert 20 < len(lines) <= 36
    assert "tokenwire" not in (APP / "database.py").read_text(encoding="utf-8").split('"""')[2]
