"""``POST /langgraph/threads/{thread}/stream/events``: the events of a thread's runs.

Always true: a stream begins with every event of the runs that are open, or of the newest run where
none is, or with all after ``since``; each comes once and in order, run after run; an interrupt that
is answered already is left out, as a page would show it again; where that is not possible the
stream is refused, or ends, and its reader begins anew.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from starlette.responses import Response

from tokenwire.errors import CursorError, GoneError, InputError, NotFoundError
from tokenwire.events.codec import AnyEvent, decode
from tokenwire.events.reasons import OUTCOMES
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.description import RunInfo
from tokenwire.relay.feed.live import StreamBatch
from tokenwire.relay.feed.stream import ThreadStream
from tokenwire.relay.record import cursor_of, json_of
from tokenwire.server.feeds.respond import stream_response
from tokenwire.server.routes.conversation.events import open_thread
from tokenwire.server.routes.langgraph.caller import Caller
from tokenwire.server.routes.langgraph.thread_state import messages_before
from tokenwire.server.routes.support import resolved_ids
from tokenwire.wire.chunk_encoder import Chunk, dumps
from tokenwire.wire.langgraph.channels import Filter, parse_filter
from tokenwire.wire.langgraph.thread_encoder import ThreadEncoder, base_of

__all__ = ["newest_number", "stream_events"]

#: Runs that a stream with ``since`` looks back over.
_MOST_RUNS = 50
#: What the feed of a conversation says when its reader has to begin anew.
_RESETS = ("reset", "run-reset")


class _Item(msgspec.Struct):
    """What is read of an event of the conversation's feed."""

    type: str
    run: str = ""
    cursor: str = ""
    event: msgspec.Raw = msgspec.Raw()
    running: list[dict[str, Any]] = []
    followed: bool = True


_decode = msgspec.json.Decoder(_Item).decode

Items = list[tuple[str | None, bytes]]


class _Events:
    """One reader of a thread, behind the feed of its conversation."""

    def __init__(self, caller: Caller, choice: Filter, feed: ThreadStream, is_live: bool) -> None:
        self._caller, self._choice, self._feed, self._is_live = caller, choice, feed, is_live
        self._encoders: dict[str, ThreadEncoder] = {}
        #: Runs whose events were read from their logs up to their ends.
        self._done: set[str] = set()
        self._past: list[RunInfo] = []
        self._first: Items = []
        self._is_over = False
        self.after = 0
        self.express = feed.express
        self.poke = feed.poke

    @property
    def cursor(self) -> str:
        """A thread has none here: the events have their numbers."""
        return ""

    def close(self, *, returning: bool = False) -> None:
        """Stop."""
        self._feed.close(returning=returning)

    async def begin(self) -> None:
        """Find what the stream begins with. Raises `GoneError` where that is not to be had."""
        batch = await self._feed.ready()
        items = [_decode(data) for _, data in batch.parts()]
        runs = {one["run"] for item in items for one in item.running}
        caller = self._caller
        recent = await caller.state.runs.thread(
            caller.thread or "", principal=caller.principal, most=_MOST_RUNS
        )
        ended = [run for run in recent if run.id not in runs and run.state in OUTCOMES]
        since = self._choice.since
        if since is None:
            ended = [] if runs else ended[:1]
        else:
            newest = next((run for run in recent if base_of(run.created) <= since), None)
            if newest is not None:
                await self._check(newest, since)
                ended = [run for run in ended if run.created >= newest.created]
            elif len(recent) == _MOST_RUNS:
                raise GoneError("'since' is too far back; read the thread's state, and omit it")
        self._past = ended[::-1]
        self._done = {run.id for run in ended}
        self._first = [(None, data) for _, data in batch.parts()]

    async def _check(self, run: RunInfo, since: int) -> None:
        """Raises `CursorError` where ``run``, the newest before ``since``, has no such event."""
        encoder = await self._encoder(run)
        await self._read(run, encoder)
        if encoder.seq < since:
            raise CursorError("'since' is after the newest event; read the state, and omit it")

    async def next(self) -> StreamBatch | None:
        """The next events; waits for them. Raises `GoneError`."""
        while True:
            if self._past:
                run = self._past.pop(0)
                items = await self._read(run, await self._encoder(run))
            elif self._first:
                first, self._first = self._first, []
                items = await self._translated(first)
            elif self._is_over:
                return None
            else:
                batch = await (self._feed.next() if self._is_live else self._feed.ready())
                if batch is None or not batch.parts():
                    return batch if self._is_live else None
                items = await self._translated(batch.parts())
            if items:
                self.after += len(items)
                return StreamBatch(items)

    async def ready(self) -> StreamBatch:
        """Of a page, which there is none of."""
        return StreamBatch([])

    async def _translated(self, batch: Items) -> Items:
        chunks: list[Chunk] = []
        for _, data in batch:
            item = _decode(data)
            if item.type in _RESETS or not item.followed:
                self._is_over = True
                break
            if item.type != "run-event" or item.run in self._done:
                continue
            encoder = self._encoders.get(item.run)
            if encoder is None:
                try:
                    run = await self._caller.state.runs.info(
                        item.run, principal=self._caller.principal
                    )
                    encoder = self._encoders[item.run] = await self._encoder(run)
                except (GoneError, NotFoundError):
                    continue  # erased meanwhile
            new = self._made(encoder, decode(bytes(item.event)), item.cursor)
            chunks += await self._waiting(item.run, new)
        return _items(chunks)

    async def _waiting(self, run: str, chunks: list[Chunk]) -> list[Chunk]:
        """Without the interrupts of the run that have an answer by now."""
        if not any(chunk["method"] == "input.requested" for chunk in chunks):
            return chunks
        try:
            fold = await self._caller.state.runs.fold(run, principal=self._caller.principal)
        except (GoneError, NotFoundError):
            return chunks  # erased meanwhile
        return _unanswered(chunks, resolved_ids(fold))

    async def _encoder(self, run: RunInfo) -> ThreadEncoder:
        return await _encoder_of(self._caller, run)

    async def _read(self, run: RunInfo, encoder: ThreadEncoder) -> Items:
        """All that the reader gets of a run, from its log."""
        chunks: list[Chunk] = []
        try:
            replay = await self._caller.state.runs.replay(run.id, principal=self._caller.principal)
        except (GoneError, NotFoundError):
            return []  # erased meanwhile
        for offset, record in enumerate(replay.records, 1):
            chunks += self._made(encoder, decode(json_of(record)), cursor_of(offset, record))
        return _items(_unanswered(chunks, encoder.interrupts))

    def _made(self, encoder: ThreadEncoder, event: AnyEvent, cursor: str) -> list[Chunk]:
        since = self._choice.since if self._choice.since is not None else -1
        return [
            chunk
            for chunk in encoder.take(event, cursor)
            if chunk["seq"] > since and self._choice.takes(chunk["method"], chunk["params"])
        ]


def _items(chunks: list[Chunk]) -> Items:
    return [(chunk.get("event_id"), dumps(chunk)) for chunk in chunks]


def _unanswered(chunks: list[Chunk], answered: Collection[str]) -> list[Chunk]:
    return [
        chunk
        for chunk in chunks
        if chunk["method"] != "input.requested"
        or chunk["params"]["data"]["interrupt_id"] not in answered
    ]


async def _encoder_of(caller: Caller, run: RunInfo) -> ThreadEncoder:
    state, principal = caller.state, caller.principal
    history = await messages_before(state, run, principal)
    parent, depth = None, 0
    if run.thread is not None:
        turns = await state.conversations.turns(principal, run.thread)
        turn = await turns.get(run.id)
        if turn is not None:
            parent, depth = turn.parent, turn.depth
    return ThreadEncoder(history=history, created=run.created, parent=parent, depth=depth)


async def newest_number(caller: Caller, run: RunInfo) -> int:
    """The number of the newest event of ``run``. Raises `NotFoundError`, `GoneError`."""
    encoder = await _encoder_of(caller, run)
    replay = await caller.state.runs.replay(run.id, principal=caller.principal)
    for offset, record in enumerate(replay.records, 1):
        encoder.take(decode(json_of(record)), cursor_of(offset, record))
    return encoder.seq


async def stream_events(caller: Caller) -> Response:
    """``POST /threads/{thread}/stream/events``; with ``?live=no`` it ends with what is there."""
    live = caller.request.query_params.get("live", "sse")
    if live not in ("sse", "no"):
        raise InputError("'live' must be sse or no", field="live")
    choice = parse_filter(caller.info.json)
    thread = caller.thread or ""
    feed = await open_thread(caller.state, caller.info, thread, None, whole=True)
    events = _Events(caller, choice, feed, live == "sse")
    try:
        await events.begin()
    except BaseException:
        events.close()
        raise
    return stream_response(caller.state, events, caller.info, scope_of(caller.principal, thread))
