"""A model that answers when it is let, and conversations on any store: what tests of both share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from tokenwire.events.message import Message, user
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.providers.base import Call, Dialect, Target
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.relay.conversation.conversations import Conversations, Reply
from tokenwire.relay.conversation.posted import Continuation
from tokenwire.relay.description import RunMeta
from tokenwire.relay.runs import Runs
from tokenwire.tools.registry import ToolSet

THREAD = "thread-1"

T = TypeVar("T", Reply, str)


class HeldModel:
    """Answers ``re: QUESTION``; a question that begins with ``hold`` waits for `release`."""

    def __init__(self) -> None:
        #: The messages of every request, in the order of their arrival.
        self.requests: list[list[dict[str, Any]]] = []
        self._released: dict[str, asyncio.Event] = {}
        self.under_way = self.most_under_way = 0

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        url = "http://held-1/v1"
        return DIALECT, Target(provider="held", dialect="openai-chat", model=name, base_url=url)

    def release(self, question: str) -> None:
        self._released.setdefault(question, asyncio.Event()).set()

    async def open(self, call: Call, *, connect_timeout: float = 5.0) -> _Stream:
        messages = msgspec.json.decode(call.body)["messages"]
        self.requests.append(messages)
        question = text_of(next(m for m in reversed(messages) if m["role"] == "user"))
        wait = question.startswith("hold")
        event = self._released.setdefault(question, asyncio.Event()) if wait else None
        return _Stream(self, question, event)

    async def aclose(self) -> None:
        pass

    @property
    def questions(self) -> list[str]:
        """The last question of every request."""
        return [text_of([m for m in r if m["role"] == "user"][-1]) for r in self.requests]


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [])


class _Stream:
    status = 200
    headers = {"content-type": "text/event-stream"}

    def __init__(self, model: HeldModel, question: str, event: asyncio.Event | None) -> None:
        self._model, self._event = model, event
        self._chunks = [_chunk({"content": f"re: {question}"}), _chunk({}, "stop")]
        self._chunks.append(b"data: [DONE]\n\n")
        self._error: Exception | None = None
        self._is_open = True
        model.under_way += 1
        model.most_under_way = max(model.most_under_way, model.under_way)

    def call(self, function: dict[str, str]) -> None:
        """Call a tool instead of an answer."""
        calls = [{"index": 0, "id": "call_1", "function": function}]
        self._chunks[:2] = [_chunk({"tool_calls": calls}), _chunk({}, "tool_calls")]

    async def read(self) -> bytes:
        while self._event is not None and not self._event.is_set() and self._error is None:
            await asyncio.sleep(0.005)
        if self._error is not None:
            raise self._error
        return self._chunks.pop(0) if self._chunks else b""

    def abort(self, error: Exception) -> None:
        self._error = error

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            self._model.under_way -= 1
        self._chunks = []


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"


class Device:
    """One process with its conversations; ``ask`` speaks in `THREAD`."""

    def __init__(self, runs: Runs, conversations: Conversations) -> None:
        self.runs, self.conversations = runs, conversations

    def meta(self, thread: str = THREAD, principal: str = "") -> RunMeta:
        return RunMeta(
            model="held", request=Request(messages=[]), thread=thread, principal=principal
        )

    async def ask(self, question: str | list[Message], **options: Any) -> Reply:
        messages = [user(question)] if isinstance(question, str) else question
        following = options.pop("following", None)
        following = following or Continuation(messages=messages, follows_head=True)
        meta = self.meta(options.pop("thread", THREAD), options.pop("principal", ""))
        meta.model = options.pop("model", meta.model)
        return await self.conversations.say(meta, following, **options)

    async def done(self, said: T) -> T:
        """Wait until the run has ended."""
        run = said if isinstance(said, str) else said.run
        await until(lambda: self._has_ended(run))
        return said

    async def _has_ended(self, run: str) -> bool:
        try:
            return (await self.runs.store.describe(run)).closed is not None
        except Exception:
            return False


async def until(condition: Callable[[], Any], seconds: float = 45.0) -> None:
    """Wait for a condition; a coroutine function is asked again and again."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def device(
    store: Store,
    model: HeldModel,
    *,
    tools: Any = None,
    agents: Any = None,
    lease: float = 15.0,
    **options: Any,
) -> AsyncIterator[Device]:
    owner = options.pop("owner", None)
    runs = Runs(
        store,
        registry=model,  # type: ignore[arg-type]
        http=model,  # type: ignore[arg-type]
        tools=ToolSet.of(tools) if tools is not None else None,
        agents=agents,
        lease=lease,
        owner=owner,
    )
    await runs.open()
    conversations = Conversations(runs, **options)
    conversations.open()
    try:
        yield Device(runs, conversations)
    finally:
        await conversations.aclose()
        await runs.aclose()
