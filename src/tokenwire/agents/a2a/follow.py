"""One turn of a remote task: a message is sent once, and the task followed to its end or question.

Always true: a message that may have arrived is not sent again, but looked for; a stream that was
cut is resumed, and before the turn is over the whole task is compared with what readers have; what
cannot be known ends the run as an error or as interrupted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from tokenwire.agents.a2a.connection import Connection, was_not_sent
from tokenwire.agents.a2a.failures import is_cut, protocol_error, reason_of
from tokenwire.agents.a2a.reading import Reading
from tokenwire.backoff import backoff
from tokenwire.errors import ProviderError, TruncatedError
from tokenwire.events.model import Event

__all__ = ["Follower", "Lost", "Outgoing", "find_task"]

#: Failures in a row after which the agent counts as gone, and the pauses between them in seconds.
MOST_FAILURES = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
#: Seconds between two looks at a task that is not streamed.
FIRST_LOOK, LONGEST_LOOK = 0.2, 5.0
#: HTTP statuses of a request that was refused, and not begun.
_REFUSED = (429, 503)
#: Looks for a message that may have arrived, or at a question that an answer left as it was.
MOST_LOOKS = 3


class Lost(Exception):
    """Nobody knows whether the message arrived."""


class Outgoing(msgspec.Struct):
    """One message; ``may_have_arrived``: an earlier worker was about to send it."""

    message: dict[str, Any]
    may_have_arrived: bool = False

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.message["messageId"])


class Say(Protocol):
    """Where events go; returns when there is room for more."""

    async def __call__(self, events: list[Event]) -> None: ...


class Follower:
    """A turn of the task that ``reading`` reads."""

    def __init__(self, remote: Connection, reading: Reading, say: Say) -> None:
        self._remote, self._reading, self._say = remote, reading, say
        self._last_id = ""
        #: Whether the agent has no stream for this task.
        self._polls = not remote.peer.streams
        self._failures = 0
        #: Streams in a row that ended and brought nothing but the task.
        self._ends = 0
        #: Whether something of the message that is being sent came back.
        self._has_responded = False
        #: Called when the id of the task is known, before anything of it is said.
        self.named = _nothing

    async def run(self, outgoing: Outgoing | None) -> None:
        """Send a message, unless it is None or did arrive, and follow the task until it is settled.
        Raises `ProviderError`, `Lost`."""
        if outgoing is not None:
            await self._send(outgoing)
        while True:
            while not self._reading.is_settled:
                await self._resume()
            if not self._reading.needs_check:
                return
            await self._check()

    # --- to send ---------------------------------------------------------------------------------

    async def _send(self, outgoing: Outgoing) -> None:
        has_arrived = outgoing.may_have_arrived and await self._has_arrived(outgoing)
        while not has_arrived:
            try:
                await self._send_now(outgoing)
                return
            except ProviderError as error:
                if was_not_sent(error) or error.status in _REFUSED:
                    await self._pause(error)
                    continue
                if not is_cut(error) or error.status == 500:
                    raise
                self._reading.cut()
                has_arrived = self._has_responded or await self._has_arrived(outgoing)

    async def _send_now(self, outgoing: Outgoing) -> None:
        params: dict[str, Any] = {"message": outgoing.message}
        self._has_responded = False
        if self._polls:
            params["configuration"] = {"returnImmediately": True}
            await self._take(await self._remote.call("SendMessage", params))
            return
        await self._read(self._remote.stream("SendStreamingMessage", params))

    async def _has_arrived(self, outgoing: Outgoing) -> bool:
        """Whether the agent has the message; the task then is known. False where it certainly has
        not. Raises `Lost`."""
        for look in range(MOST_LOOKS):
            if look:
                await asyncio.sleep(FIRST_PAUSE * 2**look)
            try:
                task = await self._find(outgoing)
            except ProviderError as error:
                if not is_cut(error):
                    raise Lost from error
                await self._pause(error)
                continue
            if task is None:
                continue
            await self._take({"task": task})
            if not outgoing.message.get("taskId") or _holds(task, outgoing.id):
                return True
            if self._reading.status.question is None or self._reading.question is not None:
                return True  # it went on, or asks another thing
        if outgoing.message.get("taskId") and self._reading.status.question is not None:
            return False  # the task shows its question and not the answer
        raise Lost

    async def _find(self, outgoing: Outgoing) -> dict[str, Any] | None:
        """The task of a message: the one that it names, or the one of its context."""
        task = outgoing.message.get("taskId") or self._reading.status.task
        if task:
            return await self._remote.call("GetTask", {"id": task})
        task = await find_task(self._remote, outgoing.message["contextId"])
        return await self._remote.call("GetTask", {"id": task}) if task else None

    # --- to follow -------------------------------------------------------------------------------

    async def _resume(self) -> None:
        """Go on with the task: its stream, or a look at it."""
        task = self._reading.status.task
        if not task:
            raise TruncatedError("the remote agent ended its stream before it named a task")
        if not self._polls:
            try:
                await self._read(
                    self._remote.stream("SubscribeToTask", {"id": task}, self._last_id)
                )
            except ProviderError as error:
                if reason_of(error) in ("UNSUPPORTED_OPERATION", "METHOD_NOT_FOUND"):
                    self._polls = not await self._look(task)  # it has ended, or has no streams
                elif is_cut(error):
                    await self._pause(error)
                else:
                    raise
            return
        await self._poll(task)

    async def _poll(self, task: str) -> None:
        seconds, last_mark, stale = FIRST_LOOK, "", 0
        while not self._reading.is_settled:
            try:
                await self._look(task)
            except ProviderError as error:
                if not is_cut(error):
                    raise
                await self._pause(error)
                continue
            status = self._reading.status
            if status.question is not None and self._reading.question is None:
                stale += 1  # the answered question, still
                if stale >= MOST_LOOKS:
                    self._reading.answered_key = ""
            mark = f"{status.state}{status.timestamp}{self._reading.writer.step}"
            seconds = FIRST_LOOK if mark != last_mark else min(LONGEST_LOOK, seconds * 1.5)
            last_mark = mark
            if not self._reading.is_settled:
                await asyncio.sleep(seconds)

    async def _look(self, task: str) -> bool:
        """Read the task once; whether it is settled."""
        await self._take({"task": await self._remote.call("GetTask", {"id": task})})
        self._failures = 0
        return self._reading.is_settled

    async def _read(self, stream: AsyncGenerator[tuple[str, dict[str, Any]]]) -> None:
        """Read a stream until the task is settled, or it ends."""
        count = 0
        async with aclosing(stream) as responses:
            async for event_id, response in responses:
                await self._take(response)
                self._has_responded, self._failures = True, 0
                self._last_id = event_id
                count += 1
                if self._reading.is_settled:
                    return
        self._reading.cut()
        if count == 0 and not self._reading.status.task:
            raise TruncatedError("the remote agent ended its stream before it named a task")
        await self._after_end(count)

    async def _after_end(self, count: int) -> None:
        """A stream that ended in order before its task: look whether the task goes on."""
        self._ends = self._ends + 1 if count <= 1 else 1
        await asyncio.sleep(backoff(self._ends, first=FIRST_PAUSE, longest=LONGEST_PAUSE))
        try:
            await self._look(self._reading.status.task)
            status = self._reading.status
            if status.question is not None and self._reading.question is None and count <= 1:
                self._reading.answered_key = ""  # the answer changed nothing: it asks again
        except ProviderError as error:
            if not is_cut(error):
                raise
            await self._pause(error)

    async def _check(self) -> None:
        """Compare the whole task with what readers have."""
        try:
            task = await self._remote.call("GetTask", {"id": self._reading.status.task})
        except ProviderError as error:
            if not is_cut(error):
                raise
            await self._pause(error)
            return
        events, is_known = self._reading.check(task)
        await self._say(events)
        if not is_known:
            raise TruncatedError(
                "the stream of the remote agent was cut, and its task does not hold what was said: "
                "words may be missing"
            )

    async def _take(self, response: dict[str, Any]) -> None:
        events = self._reading.take(response)
        if self._reading.status.task:
            await self.named(self._reading.status.task)
        if events:
            await self._say(events)

    async def _pause(self, error: ProviderError) -> None:
        """Wait after a failure. Raises ``error`` after too many in a row."""
        self._failures += 1
        self._reading.cut()
        if self._failures >= MOST_FAILURES:
            raise error
        pause = backoff(
            self._failures,
            first=FIRST_PAUSE,
            longest=LONGEST_PAUSE,
            spread=(0.5, 1.0),
            chance=random.random(),
        )
        await asyncio.sleep(max(pause, min(error.retry_after or 0.0, 60.0)))


async def find_task(remote: Connection, context: str) -> str:
    """The id of the task in a context of this run's own, which came of its message; empty without
    one. Raises `ProviderError`."""
    page = await remote.call("ListTasks", {"contextId": context, "pageSize": 10})
    tasks = page.get("tasks")
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, dict) and task.get("contextId") == context:
            return str(task.get("id", ""))
    return ""


def _holds(task: dict[str, Any], message: str) -> bool:
    """Whether the task's history has the message."""
    history = task.get("history")
    return any(
        isinstance(entry, dict) and entry.get("messageId") == message
        for entry in (history if isinstance(history, list) else [])
    )


async def _nothing(task: str) -> None:
    if not task:
        raise protocol_error("the remote agent sent a task without an id")
