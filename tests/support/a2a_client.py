"""The client of the a2a-sdk, and the task that it makes of a stream."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.client import Client, ClientCallContext
from a2a.helpers import new_data_message, new_text_message
from a2a.server.tasks.task_manager import append_artifact_to_task
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict

__all__ = ["BINDINGS", "Seen", "client", "cursor_of", "data", "in_loop", "question", "state_of"]

BINDINGS = ("JSONRPC", "HTTP+JSON")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(120):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


@asynccontextmanager
async def client(
    url: str, binding: str = "JSONRPC", *, streaming: bool = True, tenant: str = "", **headers: str
) -> AsyncIterator[Client]:
    """A client as its own factory makes it from the server's card."""
    async with httpx.AsyncClient(timeout=60, trust_env=False, headers=headers) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        for interface in card.supported_interfaces:
            interface.tenant = tenant
        config = ClientConfig(
            httpx_client=http, streaming=streaming, supported_protocol_bindings=[binding]
        )
        yield ClientFactory(config).create(card)


def question(text: str, **more: Any) -> pb.SendMessageRequest:
    """A message; ``task_id``, ``context_id``, ``message_id``: of the message."""
    message_id = more.pop("message_id", None)
    message = new_text_message(text, role=pb.ROLE_USER, **more)
    if message_id is not None:
        message.message_id = message_id
    return pb.SendMessageRequest(message=message)


def data(value: Any, **more: Any) -> pb.SendMessageRequest:
    """A message of a data part."""
    return pb.SendMessageRequest(message=new_data_message(value, role=pb.ROLE_USER, **more))


class Seen:
    """What a client has seen of one task, as the SDK's own task manager folds it."""

    def __init__(self) -> None:
        self.task = pb.Task()
        self.cursor = ""
        self.states: list[str] = []
        self.kinds: list[str] = []

    def take(self, response: pb.StreamResponse) -> Seen:
        kind = response.WhichOneof("payload") or ""
        value = getattr(response, kind)
        self.kinds.append(kind)
        self.cursor = cursor_of(value)
        if kind == "task":
            self.task.CopyFrom(value)
        elif kind == "status_update":
            assert value.task_id == self.task.id
            self.task.status.CopyFrom(value.status)
        else:
            append_artifact_to_task(self.task, value)
        self.states.append(state_of(self.task))
        return self

    async def read(self, responses: Any, most: int = 1_000_000) -> Seen:
        """Take what comes, at most so many."""
        async for response in responses:
            self.take(response)
            if len(self.kinds) >= most:
                break
        return self

    @property
    def text(self) -> str:
        """All text of the artifacts."""
        return "".join(p.text for a in self.task.artifacts for p in a.parts)

    @property
    def said(self) -> str:
        """The text of the status message."""
        return "".join(p.text for p in self.task.status.message.parts)

    @property
    def asked(self) -> dict[str, Any]:
        """The data of the status message."""
        return next(
            MessageToDict(p.data) for p in self.task.status.message.parts if p.HasField("data")
        )

    @property
    def resume(self) -> ClientCallContext:
        """Where a client goes on after a cut."""
        return ClientCallContext(service_parameters={"Last-Event-ID": self.cursor})


def cursor_of(value: Any) -> str:
    """The cursor in the metadata of an event or a task."""
    return MessageToDict(value.metadata)["tokenwire"]["cursor"]


def state_of(task: pb.Task) -> str:
    """The task's state, in one word."""
    return pb.TaskState.Name(task.status.state).removeprefix("TASK_STATE_")
