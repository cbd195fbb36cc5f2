"""The webhooks of runs: what was sent, what must be sent again, and what failed for good.

Always true: the store has a note of a run before it has the run, so that a process that looks later
knows what must be sent; a message is sent at least once under an id that repetitions share; a
receiver that fails is tried again for a day, less and less often, and delays no other; the note
goes when all was received, or with the run.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from tokenwire.errors import (
    ConflictError,
    GoneError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.names import TENANT_END
from tokenwire.events.state import ApprovalState, ToolState
from tokenwire.log.base import Store
from tokenwire.observe.facts import WebhookSent
from tokenwire.observe.hooks import report
from tokenwire.relay.description import RunMeta, meta_of
from tokenwire.relay.replay import read_run
from tokenwire.relay.upkeep.notes import (
    FIRST_PAUSE,
    LEAST_LOOK,
    MOST_SECONDS,
    UNMADE_SECONDS,
    Attempts,
    Notes,
    end_check_time,
)
from tokenwire.relay.upkeep.rounds import Looks, Rounds
from tokenwire.relay.webhooks.config import Rejected, Webhooks
from tokenwire.run.expiry import EXPIRED as EXPIRED_REASON

__all__ = ["Deliveries"]

_log = logging.getLogger("tokenwire.relay")

_KIND = "webhook"
#: The least seconds between two looks at a run that has not ended.
LOOK_SECONDS = LEAST_LOOK
#: Seconds for which one process may send before another may.
CLAIM_SECONDS = 90.0
#: Bytes of a body; larger ones are sent without the answer and the arguments.
MOST_BODY = 1 << 20
_MOST_SWAPS = 20

ENDED, WAITING, EXPIRED = "run.ended", "run.waiting", "approval.expired"
DECIDED = "approval.decided"


class _Message(Attempts, kw_only=True, omit_defaults=True):
    """One message to one address. ``at``: Unix seconds of what it is about."""

    id: str
    event: str
    url: str
    at: float
    approvals: list[str] = []
    is_sent: bool = False

    @property
    def is_open(self) -> bool:
        return not self.is_sent and not self.is_failed


class _Note(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the store has of one run; `Noted`. ``has_ended``: the messages of its end are in
    it."""

    since: float
    ends: float = 0.0
    messages: list[_Message] = []
    has_ended: bool = False
    #: Chosen by who sends: of two processes that write equal bytes, both would.
    claim: str = ""

    def add(self, urls: list[str], run: str, event: str, approvals: list[str], at: float) -> bool:
        """Messages about ``approvals`` that have none yet (for an end: of the run)."""
        earlier = {name for m in self.messages if m.event == event for name in m.approvals}
        names = [name for name in approvals if name not in earlier]
        if event == ENDED:
            if any(m.event == ENDED for m in self.messages):
                return False
        elif not names:
            return False
        message = _message_id(run, event, names)
        self.messages += [
            _Message(id=message, event=event, url=url, at=at, approvals=names) for url in urls
        ]
        return True


class Deliveries:
    """The webhooks that one process sends. All processes of a store have the same addresses."""

    def __init__(self, store: Store, webhooks: Webhooks) -> None:
        self._store, self._webhooks = store, webhooks
        #: What is new of runs of this process.
        self._news: dict[str, dict[str, list[str]]] = {}
        self._notes = Notes(store, _KIND, _due, least_look=LOOK_SECONDS)
        self._looks = Looks("webhooks", self._notes, _decoded, self._look_at, self.ended)
        self._rounds = Rounds("webhooks could not be sent", self._looks.begin, self._all_due)

    def open(self) -> None:
        """Begin to send."""
        self._rounds.open("webhooks")

    async def aclose(self) -> None:
        """Stop; the next process sends the rest."""
        await self._rounds.aclose()
        await self._looks.aclose()

    async def expect(self, run: str) -> bool:
        """Note a run that is about to be created; False when there is a note of it already."""
        return await self._notes.expect(run, msgspec.json.encode(_Note(since=time.time())))

    async def forget(self, run: str) -> None:
        """The run was deleted, or never was."""
        self._news.pop(run, None)
        await self._notes.forget(run)

    async def ending(self, run: str) -> None:
        """The end of a run of this process is about to be written."""
        await self._notes.mark(run, _decoded)

    def ended(self, run: str) -> None:
        """A run of this process is over: look at it now."""
        self._rounds.soon(run)

    def waits(self, run: str, fold: Fold) -> None:
        """What a run of this process waits for is another now."""
        news = {
            WAITING: [t.approval_id for t in fold.tools.values() if t.approval_id in fold.waiting],
            DECIDED: _decided(fold),
            EXPIRED: _expired(fold),
        }
        if any(news.values()):
            self._news[run] = {event: [n for n in names if n] for event, names in news.items()}
            self.ended(run)

    async def undelivered(self, runs: list[str]) -> set[str]:
        """Those of ``runs`` of which a message is still to be sent."""
        notes = await self._notes.of(runs)
        return {
            run
            for run, note in ((run, _decoded(data)) for run, data in notes.items())
            if not note.has_ended or any(message.is_open for message in note.messages)
        }

    async def drop(self, runs: list[str]) -> None:
        """The runs are gone, and with them what failed."""
        for run in await self._notes.of(runs):
            await self.forget(run)

    async def failed(self) -> dict[str, str]:
        """Runs of which a message failed for a day, with the last error."""
        return {
            run: f"{message.event} to {message.url}: {message.error}"
            for run, data in (await self._notes.all()).items()
            for message in _decoded(data).messages
            if message.is_failed
        }

    # --- inside ----------------------------------------------------------------------------------

    async def _all_due(self) -> list[str]:
        return [*await self._notes.due(), *self._news]

    async def _look_at(self, run: str) -> None:
        now = time.time()
        data = await self._notes.get(run)
        if data is None:
            self._news.pop(run, None)
            return
        note = _decoded(data)
        try:
            info = await self._store.describe(run)
        except (NotFoundError, GoneError):
            if now > note.since + UNMADE_SECONDS:
                await self.forget(run)
            return
        fold: Fold | None = None
        news = self._news.get(run, {})
        if info.closed is not None and not note.has_ended:
            fold = (await read_run(self._store, run)).fold
        if news or fold is not None:
            changed = await self._change(run, lambda note: self._add(note, run, news, fold))
            if changed is None:
                return
            note = changed
        if self._news.get(run) is news:
            self._news.pop(run, None)
        claimed = await self._claim(run, note)
        if claimed:
            fold = fold or (await read_run(self._store, run)).fold
            meta = meta_of(info)
            sending = (self._send(run, message, meta, fold) for message in claimed)
            results = {(m.id, m.url): m for m in await asyncio.gather(*sending)}
            await self._change(run, lambda note: _update(note, results))
        await self._tidy(run)

    def _add(self, note: _Note, run: str, news: dict[str, list[str]], fold: Fold | None) -> bool:
        """Add what is new; whether anything is."""
        urls, now = self._webhooks.urls, time.time()
        before = len(note.messages), note.has_ended
        for event, approvals in news.items():
            note.add(urls, run, event, approvals, now)
        if fold is not None and fold.outcome is not None:
            note.add(urls, run, DECIDED, _decided(fold), now)
            note.add(urls, run, EXPIRED, _expired(fold), now)
            note.add(urls, run, ENDED, [], now)
            note.has_ended = True
        return before != (len(note.messages), note.has_ended)

    async def _claim(self, run: str, note: _Note) -> list[_Message]:
        """The messages that are due, and that no other process sends meanwhile."""
        claimed: list[_Message] = []

        def claim(note: _Note) -> bool:
            now = time.time()
            claimed[:] = [m for m in note.messages if m.is_open and m.until <= now]
            for message in claimed:
                message.begin(now, CLAIM_SECONDS)
            note.claim = secrets.token_hex(8)
            return bool(claimed)

        if not any(m.is_open and m.until <= time.time() for m in note.messages):
            return []
        changed = await self._change(run, claim)
        return claimed if changed is not None else []

    async def _send(self, run: str, message: _Message, meta: RunMeta, fold: Fold) -> _Message:
        how = "ok"
        try:
            body = _body(run, message, meta, fold, await self._links(run, message, meta))
            await self._webhooks.send(message.url, message.id, body)
            message.is_sent, message.error = True, None
        except Exception as error:
            text = error.message if isinstance(error, TokenwireError) else type(error).__name__
            is_final = isinstance(error, Rejected) and error.is_final
            message.fail(time.time(), text, most=MOST_SECONDS, first=FIRST_PAUSE, is_final=is_final)
            how = "failed" if message.is_failed else "retry"
            _log.warning(
                "webhook %s of run %s was not received (try %d): %s",
                message.event,
                run,
                message.tries,
                message.error,
            )
        report(WebhookSent(run, message.event, how))
        return message

    async def _links(self, run: str, message: _Message, meta: RunMeta) -> dict[str, str]:
        """The links of what waits, by approval: one for each address, the same at each try."""
        links: dict[str, str] = {}
        make = self._webhooks.links
        if make is None or message.event != WAITING:
            return links
        for approval in message.approvals:
            parts = "\n".join((message.id, message.url, approval))
            name = hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
            try:
                links[approval] = await make(run, approval, meta.principal, name, message.at)
            except (ConflictError, NotFoundError, GoneError):
                continue  # it is decided by now
        return links

    async def _tidy(self, run: str) -> None:
        """Remove a note when nothing is left to send, and nothing failed."""
        data = await self._notes.get(run)
        if data is None:
            return
        note = msgspec.json.decode(data, type=_Note)
        if note.has_ended and all(message.is_sent for message in note.messages):
            await self._notes.swap(run, data, None)

    async def _change(self, run: str, change: Callable[[_Note], bool]) -> _Note | None:
        """Change a run's note, also while other processes do; None when it is gone or they always
        win."""
        for _ in range(_MOST_SWAPS):
            data = await self._notes.get(run)
            if data is None:
                return None
            note = msgspec.json.decode(data, type=_Note)
            if not change(note):
                return note
            if await self._notes.swap(run, data, msgspec.json.encode(note)):
                return note
        return None


def _decoded(data: bytes) -> _Note:
    return msgspec.json.decode(data, type=_Note)


def _due(data: bytes) -> float | None:
    note = _decoded(data)
    times = [message.until for message in note.messages if message.is_open]
    end = None if note.has_ended else end_check_time(note)
    if end is not None:
        times.append(end)
    if times:
        return min(times)
    return float("inf") if note.has_ended else None


def _update(note: _Note, results: dict[tuple[str, str], _Message]) -> bool:
    note.messages = [results.get((m.id, m.url), m) for m in note.messages]
    return True


def _expired(fold: Fold) -> list[str]:
    """Approvals that ended without a person: by their own time, or with the run's wait."""
    names: list[str] = []
    for tool in fold.tools.values():
        if tool.approval_id is None:
            continue
        by_timeout = tool.approved is False and tool.approval_reason == EXPIRED_REASON
        by_run = tool.approved is None and fold.end_reason == "expired"
        if by_timeout or by_run:
            names.append(tool.approval_id)
    return names


def _decided(fold: Fold) -> list[str]:
    """Approvals that somebody decided."""
    return [
        tool.approval_id
        for tool in fold.tools.values()
        if tool.approval_id is not None
        and tool.approved is not None
        and (tool.approved or tool.approval_reason != EXPIRED_REASON)
    ]


def _message_id(run: str, event: str, approvals: list[str]) -> str:
    """The same for each try and each address; no full stop, which separates what is signed."""
    word = event.replace(".", "_")
    if not approvals:
        return f"{run}-{word}"
    digest = hashlib.blake2b("\n".join(sorted(approvals)).encode(), digest_size=8)
    return f"{run}-{word}-{digest.hexdigest()}"


def _approval(
    tool: ToolState, fold: Fold, message: _Message, links: dict[str, str]
) -> dict[str, Any]:
    state = fold.approvals.get(tool.approval_id or "") or ApprovalState()
    data = {
        "approval_id": tool.approval_id,
        "call_id": tool.call_id,
        "name": tool.name,
        "arguments": tool.approval_arguments,
    }
    if state.expires is not None:
        data["expires"] = state.expires / 1000
    if message.event == DECIDED:
        data |= {"approved": tool.approved, "by": state.by, "reason": tool.approval_reason}
    if tool.approval_id in links:
        data["link"] = links[tool.approval_id]
    return data


def _body(run: str, message: _Message, meta: RunMeta, fold: Fold, links: dict[str, str]) -> bytes:
    tenant, end, user = meta.principal.rpartition(TENANT_END)
    data: dict[str, Any] = {
        "run": run,
        "model": meta.model,
        "thread": meta.thread,
        "principal": user,
        **({"tenant": tenant} if end else {}),
        "metadata": meta.metadata,
    }
    if message.event == ENDED:
        data |= {
            "outcome": fold.outcome,
            "reason": fold.end_reason,
            "usage": fold.usage,
            "usage_unknown": fold.usage_unknown,
            "error": fold.error,
            "message": fold.message(),
        }
    else:
        data["approvals"] = [
            _approval(tool, fold, message, links)
            for tool in fold.tools.values()
            if tool.approval_id in message.approvals
        ]
    body = _encoded(message, data)
    if len(body) > MOST_BODY:
        data.pop("message", None)
        for approval in data.get("approvals", []):
            approval.pop("arguments")
        body = _encoded(message, {**data, "is_truncated": True})
    return body


def _encoded(message: _Message, data: dict[str, Any]) -> bytes:
    moment = datetime.fromtimestamp(message.at, UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode({"type": message.event, "timestamp": moment, "data": data})
