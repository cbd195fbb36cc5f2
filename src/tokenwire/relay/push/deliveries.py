"""Push notifications of tasks: each change of a task's state, in order, at least once.

Always true: what is sent is made from the log, after the last event that the receiver has, so that
any process may go on after a crash; a receiver gets one message at a time, and the next one only
after it took that; one that fails is tried again for a day, and delays no other; nothing is sent to
who may not read the task any more.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tokenwire.errors import ConflictError, GoneError, NotFoundError, TokenwireError
from tokenwire.events.codec import decode
from tokenwire.events.fold import Fold
from tokenwire.log.base import Store
from tokenwire.relay.description import RunMeta, meta_of
from tokenwire.relay.push.notes import PushConfig, PushNote, decoded, due
from tokenwire.relay.record import cursor_of, json_of
from tokenwire.relay.replay import Replay, read_run
from tokenwire.relay.upkeep.notes import FIRST_PAUSE, LEAST_LOOK, MOST_SECONDS, Notes
from tokenwire.relay.upkeep.rounds import Looks, Rounds
from tokenwire.relay.webhooks.post import Targets, post
from tokenwire.wire.a2a.encoder import A2AEncoder
from tokenwire.wire.a2a.task import TERMINAL, with_cursor
from tokenwire.wire.catalogue import EVERY_WAIT

__all__ = ["PushDeliveries"]

_KIND = "a2a-push"
#: Seconds for which one process may send to a receiver before another may.
CLAIM_SECONDS = 90.0
#: Bytes of a message; a task that is longer is sent as its last status.
MOST_BODY = 1 << 20
_MOST_SWAPS = 20

#: Whether a principal may read a run.
MayRead = Callable[[str, str], Awaitable[bool]]


class PushDeliveries:
    """What one process sends. ``targets``: where to; all processes of a store have the same.
    ``may_read``: asked before each message."""

    def __init__(self, store: Store, targets: Targets, may_read: MayRead) -> None:
        self._store, self.targets, self._may_read = store, targets, may_read
        self._notes = Notes(store, _KIND, due, least_look=LEAST_LOOK)
        self._looks = Looks("push notifications", self._notes, decoded, self._look_at, self.changed)
        self._rounds = Rounds(
            "push notifications could not be sent", self._looks.begin, self._notes.due
        )

    # --- the outbox's side -----------------------------------------------------------------------

    def open(self) -> None:
        """Begin to send."""
        self._rounds.open("push notifications")

    async def aclose(self) -> None:
        """Stop; the next process sends the rest."""
        await self._rounds.aclose()
        await self._looks.aclose()

    async def expect(self, run: str) -> bool:
        """Nothing is noted before somebody wants to hear of the run."""
        return False

    async def forget(self, run: str) -> None:
        """The run was deleted, or never was."""
        await self._notes.forget(run)

    async def ending(self, run: str) -> None:
        """The end of a run of this process is about to be written."""
        await self._notes.mark(run, decoded)

    def ended(self, run: str) -> None:
        """A run of this process is over."""
        self.changed(run)

    def waits(self, run: str, fold: Fold) -> None:
        """What a run of this process waits for is another now."""
        self.changed(run)

    async def undelivered(self, runs: list[str]) -> set[str]:
        """Those of ``runs`` of which something is still to be sent."""
        notes = await self._notes.of(runs)
        return {r for r, d in notes.items() if any(c.is_open for c in decoded(d).configs)}

    async def drop(self, runs: list[str]) -> None:
        """The runs are gone, and with them who wanted to hear of them."""
        for run in await self._notes.of(runs):
            await self.forget(run)

    async def failed(self) -> dict[str, str]:
        """Runs of which a message failed for a day, with the last error."""
        return {
            run: f"push notification to {config.url}: {config.error}"
            for run, data in (await self._notes.all()).items()
            for config in decoded(data).configs
            if config.is_failed
        }

    # --- the configurations ----------------------------------------------------------------------

    async def configs(self, run: str, principal: str) -> list[PushConfig]:
        """The principal's configurations of a run."""
        data = await self._notes.get(run)
        configs = decoded(data).configs if data is not None else []
        return [config for config in configs if config.principal == principal]

    async def put(self, run: str, config: PushConfig) -> None:
        """Add or replace one. Raises `InputError`, `ConflictError`."""
        changed = await self._change(run, lambda note: note.put(config), makes=True)
        if changed is None:
            raise ConflictError("the push notification configurations change too often; try again")
        self.changed(run)

    async def remove(self, run: str, principal: str, name: str) -> bool:
        """Remove one; whether it was there."""
        has_it = any(config.id == name for config in await self.configs(run, principal))

        def without(note: PushNote) -> None:
            note.configs = [c for c in note.configs if (c.id, c.principal) != (name, principal)]

        if has_it:
            await self._change(run, without)
        return has_it

    def changed(self, run: str) -> None:
        """Look at a run now."""
        self._rounds.soon(run)

    # --- inside ----------------------------------------------------------------------------------

    async def _look_at(self, run: str) -> None:
        data = await self._notes.get(run)
        if data is None:
            return
        note = decoded(data)
        try:
            info = await self._store.describe(run)
        except (NotFoundError, GoneError):
            await self.forget(run)
            return
        if not any(config.is_open for config in note.configs):
            return
        replay = await read_run(self._store, run)
        claimed = await self._claim(run)
        if not claimed:
            return
        messages = _messages(run, meta_of(info), replay)
        result = await asyncio.gather(*(self._tell(run, config, messages) for config in claimed))
        results = {(config.id, config.principal): config for config in result}

        def update(note: PushNote) -> None:
            note.has_ended = replay.fold.outcome is not None
            note.configs = [_merged(c, results.get((c.id, c.principal))) for c in note.configs]

        await self._change(run, update)

    async def _claim(self, run: str) -> list[PushConfig]:
        """The receivers that are due, and that no other process tells meanwhile."""
        claimed: list[PushConfig] = []

        def claim(note: PushNote) -> None:
            now = time.time()
            claimed[:] = [c for c in note.configs if c.is_open and c.until <= now]
            for config in claimed:
                config.until = now + CLAIM_SECONDS

        return claimed if await self._change(run, claim) is not None else []

    async def _tell(
        self, run: str, config: PushConfig, messages: list[tuple[int, bytes, bool]]
    ) -> PushConfig:
        """Send what the receiver does not have, one after the other, until one fails."""
        for seq, body, is_last in messages:
            if seq <= config.offset:
                continue
            now = time.time()
            config.begin(now, CLAIM_SECONDS)
            try:
                if not await self._may_read(run, config.principal):
                    config.is_failed, config.error = True, "its owner may not read the task"
                    return config
                status, _ = await post(self.targets, config.url, body, config.headers())
            except TokenwireError as error:
                config.fail(time.time(), error.message, most=MOST_SECONDS, first=FIRST_PAUSE)
                return config
            if not 200 <= status < 300:
                config.fail(
                    time.time(),
                    f"the receiver replied with status {status}",
                    most=MOST_SECONDS,
                    first=FIRST_PAUSE,
                    is_final=status == 410,
                )
                return config
            config.offset, config.is_over = seq, is_last
            config.tries, config.first_try, config.error = 0, 0.0, None
        config.until = 0.0
        return config

    async def _change(
        self, run: str, change: Callable[[PushNote], None], *, makes: bool = False
    ) -> PushNote | None:
        """Change a run's note, also while other processes do; None when there is none and it is not
        to be made, or they always win."""
        for _ in range(_MOST_SWAPS):
            data = await self._notes.get(run)
            if data is None and not makes:
                return None
            note = decoded(data) if data is not None else PushNote(since=time.time())
            change(note)
            note.version = secrets.token_hex(8)
            if await self._notes.swap(run, data, msgspec.json.encode(note)):
                return note
        return None


def _merged(config: PushConfig, result: PushConfig | None) -> PushConfig:
    """The stored configuration with what became of it; one that was replaced meanwhile stays."""
    if result is None or (config.url, config.token) != (result.url, result.token):
        return config
    return result


def _messages(run: str, meta: RunMeta, replay: Replay) -> list[tuple[int, bytes, bool]]:
    """All changes of the task's state so far: the ``seq`` of each, its body, and whether it is the
    last one."""
    thread = meta.thread
    encoder = A2AEncoder(context_id=thread or run, resolved_ids=EVERY_WAIT, keeps=True)
    messages: list[tuple[int, bytes, bool]] = []
    previous = ""
    for offset, record in enumerate(replay.records, 1):
        cursor = cursor_of(offset, record)
        for chunk in encoder.chunks(decode(json_of(record))):
            status = chunk.get("statusUpdate", {}).get("status")
            if status is None or status["state"] == previous == "TASK_STATE_WORKING":
                continue  # artifacts and progress are for those who read along
            previous = status["state"]
            is_last = previous in TERMINAL
            body = _body({"task": encoder.task()} if is_last else chunk, cursor)
            if len(body) > MOST_BODY:
                body = _body(chunk, cursor)
            messages.append((offset, body, is_last))
    return messages


def _body(response: dict[str, Any], cursor: str) -> bytes:
    return msgspec.json.encode(with_cursor(response, cursor))
