"""A conversation that the server keeps: what was said, what is asked next, and what waits.

Always true: only what is new is sent; a turn that is sent again after its answer was lost is one
turn; what is read of the queue is what every device sees.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from tokenwire.backoff import backoff
from tokenwire.client.members import Sharing
from tokenwire.client.origin import run_of_path
from tokenwire.client.requests import Requests, RunInfo, id_of, run_info
from tokenwire.client.stream import OnCut
from tokenwire.client.thread_events import ThreadEvents
from tokenwire.errors import ConflictError, InputError, NotFoundError, ServerProtocolError
from tokenwire.events.message import Message
from tokenwire.events.names import THREAD

__all__ = ["QueuedTurn", "SentTurn", "Thread", "Turn", "TurnPage", "TurnQueue"]

T = TypeVar("T")
Prompt = str | Sequence[Message | Mapping[str, Any]]
WhileBusy = Literal["queue", "reject", "interrupt", "steer", "parallel"]
#: Seconds between two looks at a turn that waits: the first, and the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.2, 2.0


class SentTurn(RunInfo, kw_only=True):
    """A turn as the server took it. ``state``: that of its run; ``queued`` while it waits, at
    ``position`` (from 1), under the ``id`` that its run will have; ``steering`` where ``run``, the
    answer under way, was given it as words between its steps. Of a turn that has its run,
    ``tail``, ``model``, ``thread``, ``created`` and ``metadata`` are those of `RunInfo`."""

    position: int | None = None
    run: str | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it has its run, which can be followed."""
        return self.state not in ("queued", "steering")


class Turn(msgspec.Struct, kw_only=True):
    """A turn of a conversation. ``run``: its run; ``parent``: the run that it continues; ``state``:
    ``running`` or how the run ended; ``created``: Unix time in seconds; ``by``: the id of who
    asked; ``messages``: what was asked; ``answer``: the messages of the answer, once that has
    ended."""

    run: str
    state: str
    parent: str | None = None
    created: float = 0.0
    by: str | None = None
    messages: list[Message] = []
    answer: list[Message] = []

    @property
    def prompt(self) -> str:
        """The text of what was asked."""
        return "".join(message.text for message in self.messages if message.role == "user")

    @property
    def text(self) -> str:
        """The text of the answer."""
        return "".join(message.text for message in self.answer if message.role == "assistant")


class TurnPage(msgspec.Struct, kw_only=True):
    """``turns``, oldest first. ``next``: pass it as ``before`` for older ones, where there are
    any."""

    turns: list[Turn]
    next: str | None = None


class QueuedTurn(msgspec.Struct, kw_only=True):
    """A turn that waits. ``id``: that of the run that it will be; ``text``: the beginning of what
    it asks; ``by``: who sent it; ``created``: Unix time in seconds; ``edits``: how often it was
    edited; ``steers``: the answer under way that was given it as words; ``messages``: all that it
    asks, where one turn was read (`Thread.waiting`)."""

    id: str
    text: str = ""
    by: str | None = None
    created: float = 0.0
    edits: int = 0
    steers: str | None = None
    messages: list[Message] = []


class TurnQueue(msgspec.Struct, kw_only=True):
    """The turns that wait, in their ``queue``'s order, and the ``head``: the run that the next turn
    continues."""

    queue: list[QueuedTurn]
    head: str | None = None


class Thread(Sharing):
    """A conversation of a server. `Client.thread` makes it, from its ``requests`` and the
    conversation's id, ``thread``.

    Methods take a ``turn`` as its run's id or `RunInfo`, and raise what those of `Client` raise;
    moreover `InputError` for what is no turn or no question, `ConflictError` where a turn has begun
    meanwhile, `ThreadBusyError` where it may not wait, and `HistoryConflictError` for messages that
    contradict the stored ones.
    """

    def __init__(self, requests: Requests, thread: str) -> None:
        is_text = isinstance(thread, str)
        if not is_text or not THREAD.fullmatch(thread) or not thread.strip("."):
            raise InputError(
                "a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -", field="thread"
            )
        self.id = thread
        super().__init__(requests, f"/v1/threads/{thread}")

    async def send(
        self,
        prompt: Prompt | None = None,
        *,
        parent: str | RunInfo | None = None,
        replaces: str | RunInfo | None = None,
        while_busy: WhileBusy | None = None,
        history: str | None = None,
        key: str | None = None,
        **options: Any,
    ) -> SentTurn:
        """Continue the conversation with ``prompt``: a text, or the messages that are new.

        ``parent``: the turn to continue, default the newest one; empty: none, a beginning of its
        own. ``replaces``: the turn in whose place this one comes, as a branch beside it; without a
        ``prompt`` its question is answered again. ``while_busy``: what it does while another turn
        is under way, ``queue``, ``reject``, ``interrupt``, ``steer`` or ``parallel``; ``history``:
        how much the model is given, ``all``, ``last:TURNS`` or ``tokens:NUMBER``; None is the
        server's. ``key``: the idempotency key. ``options``: the other fields of ``POST /v1/runs``,
        such as ``model``, ``system`` and ``metadata``. Raises `LimitError` for a full queue."""
        if prompt is None and replaces is None:
            raise InputError("give a prompt, or the turn to answer again as replaces")
        body: dict[str, Any] = {"thread": self.id, "history": history or "thread"}
        body |= {"while_busy": while_busy, **options}
        if parent is not None:
            body["parent"] = parent if parent == "" else run_of_path(id_of(parent))
        if replaces is not None:
            body["replaces"] = run_of_path(id_of(replaces))
        if prompt is not None:
            body["prompt" if isinstance(prompt, str) else "messages"] = prompt
        body = {name: value for name, value in body.items() if value is not None}
        headers = {"idempotency-key": key or secrets.token_hex(16)}
        return _of_type(await self._requests.send("POST", "/v1/runs", body, headers), SentTurn)

    async def started(self, turn: str | RunInfo) -> RunInfo:
        """The run of a turn that waits, once it has begun. Raises `ConflictError` for a turn that
        was withdrawn, or given to another answer as words."""
        run, looks, was_absent = id_of(turn), 0, False
        while True:
            try:
                path = f"/v1/runs/{run_of_path(run)}/info"
                return run_info(await self._requests.send("GET", path))
            except NotFoundError:
                queue = await self.queue()
            is_absent = all(entry.id != run for entry in queue.queue)
            # It may have left the queue for its run between the two answers: one look more.
            if is_absent and was_absent:
                raise ConflictError("this turn does not wait any more, and has no run", run=run)
            was_absent, looks = is_absent, looks + 1
            pause = backoff(
                looks,
                first=_FIRST_LOOK,
                longest=_LONGEST_LOOK,
                spread=(0.5, 1.0),
                chance=random.random(),
            )
            await asyncio.sleep(pause)

    async def turns(self, *, limit: int = 50, before: str | None = None) -> TurnPage:
        """The newest ``limit`` turns (1 to 500) of the chosen branch; ``before``: older than this
        turn, the `TurnPage.next` of the page before."""
        query = f"?limit={limit:d}" + (f"&before={run_of_path(before)}" if before else "")
        return _of_type(await self._requests.send("GET", f"{self._path}/turns{query}"), TurnPage)

    async def set_head(self, turn: str | RunInfo) -> TurnQueue:
        """Choose the branch that ends with ``turn``, for every device: the next turn continues
        it."""
        body = {"run": run_of_path(id_of(turn))}
        return _of_type(await self._requests.send("PUT", f"{self._path}/head", body), TurnQueue)

    def events(
        self,
        *,
        after: str | None = None,
        runs: bool = False,
        on_cut: OnCut | None = None,
    ) -> ThreadEvents:
        """What happens in the conversation: first a ``snapshot``, or what follows the cursor
        ``after``; with ``runs`` the events of its runs as well. A lost connection is resumed;
        ``on_cut`` is called at each."""
        path = f"{self._path}/events" + ("?runs=full" if runs else "")
        requests = self._requests
        return ThreadEvents(
            requests.origin,
            self.id,
            path,
            after=after,
            patience=requests.patience,
            on_cut=on_cut,
        )

    async def typing(self) -> None:
        """Tell those who follow the conversation that this person types, for some seconds."""
        await self._requests.send("POST", f"{self._path}/typing", {})

    # --- what waits ----------------------------------------------------------------------------

    async def queue(self) -> TurnQueue:
        """Head and queue."""
        return _of_type(await self._requests.send("GET", f"{self._path}/queue"), TurnQueue)

    async def waiting(self, turn: str | RunInfo) -> QueuedTurn:
        """A turn that waits, with all of its ``messages``."""
        return _of_type(await self._requests.send("GET", self._entry(turn)), QueuedTurn)

    async def edit(self, turn: str | RunInfo, prompt: Prompt) -> TurnQueue:
        """Replace what a turn asks that waits, by ``prompt``: a text, or messages."""
        body = {"prompt" if isinstance(prompt, str) else "messages": prompt}
        return _of_type(await self._requests.send("PUT", self._entry(turn), body), TurnQueue)

    async def withdraw(self, turn: str | RunInfo) -> TurnQueue:
        """Take a turn that waits out of the queue; it is not answered."""
        path = self._entry(turn)
        queue = await self._requests.send("DELETE", path, effected=NotFoundError)
        return await self.queue() if queue is None else _of_type(queue, TurnQueue)

    async def send_now(self, turn: str | RunInfo) -> SentTurn:
        """Stop the answer under way, and answer this turn, which waits. Approvals that the answer
        waits for are denied."""
        path = self._entry(turn)
        reply = await self._requests.send("POST", path + "/now", {}, effected=ConflictError)
        if reply is None:  # its answer was lost
            reply = await self._requests.send("GET", f"/v1/runs/{run_of_path(id_of(turn))}/info")
        return _of_type(reply, SentTurn)

    def _entry(self, turn: str | RunInfo) -> str:
        return f"{self._path}/queue/{run_of_path(id_of(turn))}"


def _of_type(value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        name = {SentTurn: "turn", TurnPage: "page of turns"}.get(kind, "queue")
        raise ServerProtocolError(f"the server's response is not a {name}") from error
