"""What each worker did, line by line, in one file that all processes append to; and the traps.

A line is written in one call at the end of the file, so the order of lines is the order of things,
over all processes. The checker reads it: who owned which epoch, what was appended and with what
answer, which provider calls, tools and steps were started by whom.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from tokenwire.log.base import Appended, Claim, LogInfo, Store
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import ByteStream, HttpClient

Line = dict[str, Any]

#: Characters of the check at the head of a record.
CHECK = 16


class Journal:
    """One file, open for appending."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, **fields: Any) -> None:
        os.write(self._file, json.dumps({"what": what, **fields}).encode() + b"\n")

    def lines(self) -> list[Line]:
        with open(self.path, "rb") as file:
            # The last one may be under way.
            return [json.loads(line) for line in file if line.endswith(b"\n")]

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class Trap:
    """When a worker is hit, and by what: ``kill``, ``stop`` or ``drain``."""

    action: str
    #: Right after the ``nth`` record of this type was accepted.
    kind: str = ""
    nth: int = 1
    #: Or after the one at this offset.
    at: int = 0
    #: Or in the middle of this tool, or step of an agent: the effect is there, its result not.
    tool: str = ""

    def spring(self, told: Callable[[], None]) -> None:
        """``told`` is called first: the last that this process can say."""
        told()
        if self.action == "drain":
            return
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)
        # A signal to oneself may be taken by another thread of the process a moment later.
        time.sleep(60 if self.action == "kill" else 0.02)


class WatchedLog:
    """A log whose calls are written down, and where a trap may lie. A worker with a trap appends
    record by record, so that there is a boundary behind each."""

    def __init__(
        self,
        log: Store,
        journal: Journal,
        owner: str,
        *,
        trap: Trap | None = None,
        told: Callable[[], None] = lambda: None,
        only: Container[str] | None = None,
    ) -> None:
        self._log, self._journal, self._owner = log, journal, owner
        self._trap, self._told, self._only = trap, told, only
        # Nobody is stopped in the middle of a write: the store's file lock would stop with it.
        self.gate = asyncio.Lock()
        self._kinds: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def create(self, stream: str, **options: Any) -> LogInfo:
        made = await self._log.create(stream, **options)
        # Several may create the very same run, of a turn that was promised its id: one of them has.
        if made.log == stream and made.meta == options.get("meta", b""):
            self._journal.write("own", run=stream, epoch=made.epoch, tail=0, who=self._owner)
        return made

    async def claim(self, stream: str, **options: Any) -> Claim | None:
        claim = await self._log.claim(stream, **options)
        if claim is not None:
            fields = {"run": stream, "epoch": claim.epoch, "tail": claim.tail}
            self._journal.write("own", who=self._owner, **fields)
        return claim

    async def orphans(self, **options: Any) -> list[str]:
        found = await self._log.orphans(**options)
        return found if self._only is None else [run for run in found if run in self._only]

    async def renew(self, streams: dict[str, int], **options: Any) -> set[str]:
        async with self.gate:
            return await self._log.renew(streams, **options)

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        async with self.gate:
            await self._log.set_document(kind, name, data)

    async def append(
        self,
        stream: str,
        *,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None = None,
        durable: bool = False,
    ) -> Appended:
        trap = self._trap
        if trap is None or not records:
            return await self._append(stream, epoch, first, records, close, durable)
        done = Appended("ok", first - 1, epoch)
        for number, record in enumerate(records):
            last = close if number + 1 == len(records) else None
            async with self.gate:
                done = await self._append(stream, epoch, first + number, [record], last, durable)
                if done.status != "ok" and done.status != "duplicate":
                    return done
                kind = json.loads(record[CHECK:])["type"]
                self._kinds[kind] += 1
                if first + number == trap.at or (kind, self._kinds[kind]) == (trap.kind, trap.nth):
                    trap.spring(self._told)
        return done

    async def _append(
        self,
        stream: str,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None,
        durable: bool,
    ) -> Appended:
        done = await self._log.append(
            stream, epoch=epoch, first=first, records=records, close=close, durable=durable
        )
        self._journal.write(
            "append",
            run=stream,
            epoch=epoch,
            first=first,
            count=len(records),
            status=done.status,
            who=self._owner,
        )
        return done


class WatchedHttp:
    """A client whose calls are written down. The model's name tells whose call it is."""

    def __init__(self, journal: Journal, owner: str) -> None:
        self._http, self._journal, self._owner = HttpClient(), journal, owner

    async def open(self, call: Call, *, connect_timeout: float) -> ByteStream:
        model = json.loads(call.body or b"{}").get("model", "")
        self._journal.write("call", model=model, who=self._owner)
        return await self._http.open(call, connect_timeout=connect_timeout)

    async def aclose(self) -> None:
        await self._http.aclose()
