"""Agents of real frameworks that wait for a person, on a server that is killed: the inbox lists
what waits, a webhook brings its link, the link's page approves, and the tool runs once."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.free_ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SECRET = "whsec_" + "a2tr" * 11

APPS = {
    "pydantic_ai": """
import os
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

async def answer(messages, info):
    if any(part.part_kind == "tool-return" for one in messages for part in one.parts):
        yield "It is gone."
        return
    yield {0: DeltaToolCall(name="delete_file", json_args='{"path": "report.txt"}')}

model = FunctionModel(stream_function=answer)
cleaner = Agent(model, output_type=[str, DeferredToolRequests], name="cleaner")

@cleaner.tool_plain(requires_approval=True)
def delete_file(path: str) -> str:
    with open(os.environ["EFFECTS"], "a") as file:
        file.write(path + "\\n")
    return "gone"
""",
    "langgraph": '''
import os, sqlite3
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

class Saver(SqliteSaver):
    """One for coroutines, which needs no event loop to be made."""

    async def aget_tuple(self, config):
        return self.get_tuple(config)

    async def aput(self, *words):
        return self.put(*words)

    async def aput_writes(self, *words):
        return self.put_writes(*words)

    async def alist(self, *words, **more):
        for one in self.list(*words, **more):
            yield one

def ask(state):
    said = interrupt({"question": "delete_file report.txt?"})
    return {"messages": [("ai", "yes" if said["approved"] else "no")]}

def delete(state):
    if state["messages"][-1].content == "yes":
        with open(os.environ["EFFECTS"], "a") as file:
            file.write("report.txt\\n")
    return {"messages": [("ai", "It is gone.")]}

graph = StateGraph(MessagesState)
graph.add_node("ask", ask)
graph.add_node("delete", delete)
graph.add_edge(START, "ask")
graph.add_edge("ask", "delete")
graph.add_edge("delete", END)
connection = sqlite3.connect(os.environ["EFFECTS"] + ".db", check_same_thread=False)
cleaner = graph.compile(checkpointer=Saver(connection), name="cleaner")
''',
}


class Hook:
    """A webhook: what it was sent, by type."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.bodies.append(json.loads(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body["data"] for body in list(self.bodies) if body["type"] == kind]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return value


@contextmanager
def serving(folder: Path, port: int, hook: Hook) -> Iterator[subprocess.Popen[bytes]]:
    """The command with the agent, until it is stopped; it may be killed before."""
    path = os.pathsep.join([str(ROOT / "src"), str(folder)])
    environment = {"PYTHONPATH": path, "EFFECTS": str(folder / "effects")}
    words = ["--agent", "cleaner=my_app:cleaner", "--store", f"sqlite:{folder}/log.db"]
    words += ["--port", str(port), "--public-url", f"http://127.0.0.1:{port}"]
    words += ["--webhook", hook.url, "--webhook-secrets", SECRET, "--webhook-links"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenwire", "serve", *words],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        until(lambda: process.poll() is not None or is_up(port))
        assert process.poll() is None
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/waiting", timeout=60).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("framework", APPS)
def test_it_waits_through_a_kill_and_a_link_approves_it_once(
    tmp_path: Path, framework: str
) -> None:
    pytest.importorskip(framework)
    (tmp_path / "my_app.py").write_text(APPS[framework])
    effects, port, hook = tmp_path / "effects", free_port(), Hook()
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def waiting() -> list[dict[str, Any]]:
        return client.get("/v1/waiting").json()["waiting"]

    try:
        with serving(tmp_path, port, hook) as first:
            made = client.post("/v1/runs", json={"model": "cleaner", "prompt": "Clean up"})
            assert made.status_code == 201, made.text
            run = made.json()["id"]
            (before,) = until(waiting)
            assert (before["run"], before["model"]) == (run, "cleaner")
            told = until(lambda: hook.of("run.waiting"))[0]
            assert told["run"] == run
            (question,) = told["approvals"]
            assert question["approval_id"] == before["approval"]
            first.kill()
            first.wait(60)
        assert not effects.exists()
        with serving(tmp_path, port, hook):
            (after,) = until(waiting)
            assert after == before
            page = client.get(question["link"])
            assert page.status_code == 200
            assert "delete_file" in page.text
            assert waiting() == [before]  # looking decides nothing
            done = client.post(question["link"], data={"decision": "approve"})
            assert done.status_code == 200, done.text
            assert waiting() == []
            until(lambda: client.get(f"/v1/runs/{run}").json()["state"] == "complete")
            assert effects.read_text() == "report.txt\n"
            again = client.post(question["link"], data={"decision": "approve"})
            assert again.status_code in (409, 410), again.text
            (decided,) = until(lambda: hook.of("approval.decided"))[0]["approvals"]
            assert decided["approved"] is True
            until(lambda: hook.of("run.ended"))
            assert effects.read_text() == "report.txt\n"
    finally:
        client.close()
        hook.close()
