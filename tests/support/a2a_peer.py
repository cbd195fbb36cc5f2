"""Remote A2A agents, one of the a2a-sdk and a scripted one, behind a door that cuts and counts."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import a2a_pb2 as pb
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

__all__ = ["WORDS", "Door", "Script", "card", "scripted_peer", "sdk_peer", "sse"]

WORDS = [f"{number} " for number in range(1, 13)]


def card(url: str, *, streaming: bool = True, bindings: tuple[str, ...] = ("JSONRPC",)) -> Any:
    """The card of the SDK's agent."""
    return pb.AgentCard(
        name="peer",
        description="An agent.",
        version="1",
        supported_interfaces=[
            pb.AgentInterface(
                url=f"{url}/rpc" if b == "JSONRPC" else url,
                protocol_binding=b,
                protocol_version="1.0",
            )
            for b in bindings
        ],
        capabilities=pb.AgentCapabilities(streaming=streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[pb.AgentSkill(id="s", name="s", description="s", tags=["t"])],
    )


def _agent_says(text: str) -> Any:
    return new_text_message(text, role=pb.ROLE_AGENT)


class Executor(AgentExecutor):
    """Does what a word of the message says."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.cancelled = 0
        #: Set to let a task go on that was asked to wait.
        self.go = asyncio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        text = "".join(p.text for p in context.message.parts)
        data = [p for p in context.message.parts if p.HasField("data")]
        self.texts.append(text)
        if text.startswith("message"):
            await event_queue.enqueue_event(_agent_says("just words"))
            return
        task = context.current_task
        if task is None:
            task = pb.Task(
                id=context.task_id or "",
                context_id=context.context_id or "",
                status=pb.TaskStatus(state=pb.TASK_STATE_SUBMITTED),
                history=[context.message],
            )
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        if task.status.state == pb.TASK_STATE_INPUT_REQUIRED:
            await updater.start_work()
            said = f"answered {text}" if not data else "answered data"
            await updater.add_artifact([pb.Part(text=said)], artifact_id="reply")
            await updater.complete()
            return
        await updater.start_work(_agent_says("at work"))
        await self._work(text, updater)

    async def _work(self, text: str, updater: TaskUpdater) -> None:
        word = text.split()[0] if text else ""
        if word in ("words", "hang"):
            for number, piece in enumerate(WORDS):
                if word == "hang" and number == 4:
                    await self.go.wait()
                await updater.add_artifact(
                    [pb.Part(text=piece)],
                    artifact_id="a",
                    append=number > 0,
                    last_chunk=number == len(WORDS) - 1,
                )
                await asyncio.sleep(0.005)
        elif word == "things":
            value = pb.Part()
            value.data.struct_value.update({"n": 7})
            await updater.add_artifact([value], artifact_id="d", name="order")
            raw = pb.Part(raw=b"hello", media_type="image/png", filename="a.png")
            await updater.add_artifact([pb.Part(text="look: "), raw], artifact_id="f")
        elif word == "ask":
            await updater.add_artifact([pb.Part(text="before ")], artifact_id="a")
            await updater.requires_input(_agent_says("Which one?"))
            return
        elif word == "auth":
            await updater.requires_auth(_agent_says("Sign in at the bank."))
            await self.go.wait()
            await updater.start_work()
        elif word == "fail":
            await updater.add_artifact([pb.Part(text="half")], artifact_id="a")
            await updater.failed(_agent_says("out of paper"))
            return
        elif word == "reject":
            await updater.reject(_agent_says("I will not."))
            return
        elif word == "last":
            await updater.complete(_agent_says("the last words"))
            return
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.cancelled += 1
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        await updater.cancel()


class Door:
    """Before an ASGI application: counts operations, and cuts responses as it is told."""

    def __init__(self, app: Any = None) -> None:
        self.app = app
        self.url = ""
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        #: How many pieces of each of the next streams pass before it is cut; None: all.
        self.cuts: list[int | None] = []
        #: Operations of which the response has a head and no body: the connection breaks.
        self.mute: list[str] = []
        #: While it is not set, no response to a message leaves.
        self.hold = threading.Event()
        self.hold.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        name = _operation(scope["path"], body)
        self.asked[name] += 1
        self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        given = False

        async def again() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        streams = name in ("SendStreamingMessage", "SubscribeToTask")
        cut = self.cuts.pop(0) if streams and self.cuts else None
        mute = name in self.mute
        if mute:
            self.mute.remove(name)
        pieces = 0

        async def cutting(message: Any) -> None:
            nonlocal pieces
            while name.startswith("Send") and not self.hold.is_set():
                await asyncio.sleep(0.005)
            if mute and message["type"] == "http.response.body":
                raise ConnectionAbortedError("cut")
            if message["type"] == "http.response.body" and message.get("body"):
                pieces += 1
                if cut is not None and pieces > cut:
                    raise ConnectionAbortedError("cut")
            await send(message)

        return await self.app(scope, again, cutting)


def _operation(path: str, body: bytes) -> str:
    if path.endswith("/rpc") or path == "/a2a":
        return str(json.loads(body).get("method"))
    for end, name in (
        (":send", "SendMessage"),
        (":stream", "SendStreamingMessage"),
        (":subscribe", "SubscribeToTask"),
        (":cancel", "CancelTask"),
        ("agent-card.json", "card"),
        ("/tasks", "ListTasks"),
    ):
        if path.endswith(end):
            return name
    return "GetTask" if "/tasks/" in path else path


@contextmanager
def _served(door: Door, make: Callable[[str], Awaitable[Any]]) -> Iterator[Door]:
    listener = socket.create_server(("127.0.0.1", 0))
    door.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(door, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    ready = threading.Event()

    async def main() -> None:
        door.app = await make(door.url)
        ready.set()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield door
    finally:
        server.should_exit = server.force_exit = True
        thread.join(1)  # the SDK's tasks do not all end


@contextmanager
def sdk_peer(
    *, streaming: bool = True, bindings: tuple[str, ...] = ("JSONRPC",)
) -> Iterator[tuple[Door, Executor]]:
    """The SDK's own server."""
    door = Door()
    executors: list[Executor] = []

    async def make(url: str) -> Any:
        executors.append(Executor())
        described = card(url, streaming=streaming, bindings=bindings)
        handler = DefaultRequestHandler(
            agent_executor=executors[0], task_store=InMemoryTaskStore(), agent_card=described
        )
        routes = [
            *create_agent_card_routes(described),
            *create_jsonrpc_routes(handler, "/rpc"),
            *create_rest_routes(handler),
        ]
        return Starlette(routes=routes)

    with _served(door, make):
        yield door, executors[0]


#: What a scripted agent answers: the operation and its parameters in, a response out.
Script = Callable[[str, dict[str, Any]], Any]


def sse(*results: Any, rpc_id: Any = "1", pause: float = 0.0) -> Response:
    """A stream of JSON-RPC responses; a text is sent as it is."""
    blocks = [
        r
        if isinstance(r, str)
        else f"data: {json.dumps({'jsonrpc': '2.0', 'id': rpc_id, 'result': r})}\n\n"
        for r in results
    ]

    async def body() -> Any:
        for block in blocks:
            yield block
            await asyncio.sleep(pause)

    return StreamingResponse(body(), media_type="text/event-stream")


@contextmanager
def scripted_peer(script: Script, **more: Any) -> Iterator[Door]:
    """An agent that answers JSON-RPC as ``script`` says: a value is a result, and a `Response` goes
    as it is. ``more``: fields of the card."""
    door = Door()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/.well-known/agent-card.json":
            value = {
                "name": "peer",
                "supportedInterfaces": [
                    {
                        "url": f"{door.url}/rpc",
                        "protocolBinding": "JSONRPC",
                        "protocolVersion": "1.0",
                    }
                ],
                "capabilities": {"streaming": True},
                **{k: v(door.url) if callable(v) else v for k, v in more.items()},
            }
            return await JSONResponse(value)(scope, receive, send)
        call = await request.json()
        answer = script(call["method"], call["params"])
        if callable(answer) and not isinstance(answer, Response):
            answer = answer(call["id"])
        if not isinstance(answer, Response):
            answer = JSONResponse({"jsonrpc": "2.0", "id": call["id"], "result": answer})
        return await answer(scope, receive, send)

    async def make(url: str) -> Any:
        return app

    with _served(door, make):
        yield door
