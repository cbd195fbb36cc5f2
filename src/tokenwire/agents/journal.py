"""The operations of an agent: what was begun, what was finished, and with which value.

Always true: an operation is known by its kind, its name, a digest of its arguments, and the
how-many-th of these it is; its value is a private document, stored before the record that says it
is over; an agent that is run again gets the values of finished operations, and one that asks for
something else than before is stopped (`ReplayError`), because it would not do what it did.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec

from tokenwire.errors import LimitError, ReplayError
from tokenwire.events.fold import Fold
from tokenwire.events.model import Data, Event, StepEnd, StepStart
from tokenwire.run.engine import Documents

__all__ = ["MOST_VALUE", "Journal", "Operation", "digest_of"]

#: Bytes of one private value.
MOST_VALUE = 8 << 20
#: Seconds for which a new operation waits for recorded ones beside it.
MOST_WAIT = 60.0
_PREFIX = "op-"


class Operation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One operation, as it is stored."""

    kind: str
    name: str
    nth: int
    digest: str
    #: The JSON of its value, once it is finished; the message of its exception, if it failed.
    value: str | None = None
    error: str | None = None
    #: Unix seconds at which it ends without a value: an approval with a timeout.
    expires: float | None = None
    #: Its number in the run, which its steps carry.
    number: int = 0
    #: Whether the log has a record of it: an earlier worker began it.
    recorded: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether its value or its failure is stored."""
        return self.value is not None or self.error is not None


class Journal:
    """The operations of one run."""

    def __init__(self, documents: Documents | None) -> None:
        self._documents = documents
        self._earlier: dict[tuple[str, str, str, int], Operation] = {}
        self._counts: dict[tuple[str, str, str], int] = {}
        self._next = 1
        #: Documents of the run that are no operations, by name.
        self.others: dict[str, bytes] = {}
        #: Recorded operations that the agent has not asked for yet.
        self._pending: set[int] = set()
        self._replayed = asyncio.Event()
        self._overlapped = False
        #: Data events after the last recorded operation: the agent will send them again.
        self._data: list[tuple[str, Any, str | None]] = []

    @property
    def is_replaying(self) -> bool:
        """Whether the agent still repeats what it did before: readers have its words."""
        return bool(self._pending)

    def is_approval(self, number: int) -> bool:
        """Whether this recorded operation is a question to a person."""
        return any(o.number == number and o.kind == "approval" for o in self._earlier.values())

    @property
    def count(self) -> int:
        """How many operations there are."""
        return self._next - 1

    def skip(self, count: int) -> None:
        """Do not expect the first ``count`` operations again: their outcome is stored."""
        self._pending = {number for number in self._pending if number > count}
        if not self._pending:
            self._replayed.set()

    async def put_other(self, name: str, data: bytes) -> None:
        """Store a document that is no operation."""
        if self._documents is not None:
            await self._documents.put(name, data)

    async def load(self, fold: Fold, events: list[Event]) -> None:
        """Take in what an earlier worker recorded. Raises `LogError`."""
        if self._documents is None:
            return
        recorded = {step.operation for step in fold.steps if step.operation is not None}
        documents = await self._documents.all()
        for name, data in documents.items():
            if not name.startswith(_PREFIX):
                self.others[name] = data
                continue
            operation = msgspec.json.decode(data, type=Operation)
            operation.number = int(name[len(_PREFIX) :])
            operation.recorded = operation.number in recorded or operation.is_finished
            if operation.recorded:  # else its worker was lost before it began
                key = (operation.kind, operation.name, operation.digest, operation.nth)
                self._earlier[key] = operation
                self._pending.add(operation.number)
            self._next = max(self._next, operation.number + 1)
        self._read(events)

    def _read(self, events: list[Event]) -> None:
        open_steps: dict[int, int] = {}
        for event in events:
            if isinstance(event, StepStart) and event.operation is not None:
                others = set(open_steps.values()) - {event.operation}
                self._overlapped = self._overlapped or bool(others)
                open_steps[event.step] = event.operation
                self._data.clear()
            elif isinstance(event, StepEnd):
                open_steps.pop(event.step, None)
            elif isinstance(event, Data):
                self._data.append((event.name, event.payload, event.id))

    def was_sent(self, event: Data) -> bool:
        """Whether this data was sent before, after the last operation; each counts once."""
        key = (event.name, event.payload, event.id)
        if key not in self._data:
            return False
        self._data.remove(key)
        return True

    @property
    def next_expiry(self) -> float | None:
        """Unix seconds at which the first of the recorded operations expires."""
        times = [o.expires for o in self._earlier.values() if o.expires and not o.is_finished]
        return min(times, default=None)

    async def enter(
        self, kind: str, name: str, digest: str, *, expires: float | None = None
    ) -> Operation:
        """The operation that the agent asks for; a new one ``expires`` then. Raises
        `ReplayError`."""
        same = (kind, name, digest)
        count = self._counts[same] = self._counts.get(same, 0) + 1
        operation = self._earlier.get((*same, count))
        if operation is not None:
            self._pending.discard(operation.number)
            if not self._pending:
                self._replayed.set()
            return operation
        if self._pending:
            await self._all_replayed(kind, name)
        operation = Operation(
            kind=kind, name=name, nth=count, digest=digest, expires=expires, number=self._next
        )
        self._next += 1
        await self._put(operation)
        return operation

    async def _all_replayed(self, kind: str, name: str) -> None:
        """Nothing new before all that was recorded was asked for again: operations that ran at the
        same time may come in another order, one after the other they may not."""
        error = ReplayError(f"{kind} '{name}' was not called like this at this point before")
        if not self._overlapped:
            raise error
        try:
            async with asyncio.timeout(MOST_WAIT):
                await self._replayed.wait()
        except TimeoutError:
            raise error from None

    async def finish(self, operation: Operation, value: bytes) -> None:
        """Store a value. Raises `LimitError`."""
        if len(value) > MOST_VALUE:
            raise LimitError(
                f"the value of {operation.kind} '{operation.name}' has {len(value)} bytes; "
                f"at most {MOST_VALUE} are stored",
                limit="operation_value",
                most=MOST_VALUE,
            )
        operation.value = value.decode()
        await self._put(operation)

    async def fail(self, operation: Operation, message: str) -> None:
        """Store a failure."""
        operation.error = message
        await self._put(operation)

    def check_end(self) -> None:
        """The agent is over. Raises `ReplayError` when it did not do all that it did before."""
        if self._pending:
            raise ReplayError("the agent ended before it had made its recorded operations again")

    async def _put(self, operation: Operation) -> None:
        if self._documents is not None:
            fields = msgspec.structs.replace(operation, number=0, recorded=False)
            name = f"{_PREFIX}{operation.number}"
            await self._documents.put(name, msgspec.json.encode(fields))


def digest_of(*values: Any) -> str:
    """A digest of arguments: of their JSON, and of the type's name where there is none."""
    data = msgspec.json.encode(values, enc_hook=_type_name, order="deterministic")
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
