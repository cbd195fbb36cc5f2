"""The store contract: append-only logs of opaque records with one owner each.

A store is four things, each a protocol: `Records`, `Leases`, `Mailbox` and `Index`; `Store` is all
of them with a life of its own. Always true, for every store:

* offsets of a log are 1, 2, 3, ... without gap; a record never changes once accepted;
* an append is atomic: all of its records or none, and it names the offset where it goes;
* only the owner of the newest epoch can append; an older one gets ``fenced``;
* sending the same append twice stores it once (``duplicate``); another record at its offset is
  told (``conflict``), so that several writers who share an epoch can take turns;
* after a close no record follows;
* nobody is woken before the store has accepted the records.

The log does not know what a token is. One test suite (tests/log/) runs against every store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from tokenwire.express import Tape

__all__ = [
    "FOR_GOOD",
    "PRIVATE",
    "Appended",
    "Claim",
    "Due",
    "Durability",
    "Index",
    "Inside",
    "Leases",
    "LogInfo",
    "Losing",
    "Mailbox",
    "Page",
    "Records",
    "Store",
    "Sweeper",
    "Taped",
    "Then",
    "Transactional",
    "Wake",
    "private_kind",
]

Durability = Literal["memory", "process", "disk", "replica"]
Wake = Callable[[], None]

#: A lease of at least so many seconds is for good: of a log that nobody owns, which any process
#: appends to. Its end is further away than any clock is wrong.
FOR_GOOD = 1e8


class Appended(msgspec.Struct, frozen=True):
    """What became of an append. ``tail``: the log's last offset now.

    ``ok`` and ``duplicate`` are success. ``gap``: records between ``tail`` and this append are
    missing (a failover lost them); send again from ``tail`` + 1. ``conflict``: another record is
    where this append's was to go; nothing was stored. ``fenced``: ``epoch`` is the newer owner's.
    ``closed``: the log had ended before.
    """

    status: Literal["ok", "duplicate", "gap", "conflict", "fenced", "closed"]
    tail: int
    epoch: int = 0


class Page(msgspec.Struct, frozen=True):
    """Records ``first`` .. ``first + len(records) - 1``. ``closed`` is the close reason when the
    log has ended *and* this page reaches the tail."""

    records: list[bytes]
    first: int
    tail: int
    closed: str | None = None


class LogInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A log's description. Times are Unix seconds by the store's clock. ``bytes`` are those of its
    records; in Redis up to 4 kB less, seen by another process than its owner's."""

    log: str
    epoch: int
    owner: str
    tail: int
    closed: str | None
    meta: bytes
    created: float
    bytes: int = 0
    lease_until: float = 0.0
    thread: str | None = None


#: ``(offset, record) -> whether the subscriber has it now``; as quick as a `Wake`.
Take = Callable[[int, bytes], bool]
#: What `append_soon` calls: None when the records are in, else what stood in the way.
Then = Callable[[Appended | BaseException | None], None]


class Claim(msgspec.Struct, frozen=True):
    """A successful claim: write with this epoch, from ``tail`` + 1. ``handed_over``: the owner
    before released it gracefully; False when its lease expired."""

    log: str
    epoch: int
    tail: int
    handed_over: bool = False


class Due(msgspec.Struct, frozen=True):
    """What the retention is over for: one log, or logs of one conversation (``thread``), oldest
    first. ``is_all``: nothing is left of the conversation; said of what is erased only."""

    logs: list[str]
    thread: str | None = None
    is_all: bool = True


class Sweeper(Protocol):
    """What `Store.expire` asks and tells about what it erases."""

    async def before(self, due: list[Due]) -> list[Due]:
        """Those of ``due`` that may be erased now; the others are due again some minutes later."""
        ...

    async def after(self, erased: list[Due]) -> None:
        """These were erased: what belongs to them elsewhere can follow."""
        ...


class Records(Protocol):
    """The logs themselves: create, append, read, follow, delete. Methods raise `StoreFullError`,
    `StoreUnavailableError`, `StoreDamagedError`; `NotFoundError` for a log that never was,
    `GoneError` for one that expired."""

    #: What an accepted record survives; checked against the live store at start.
    durability: Durability
    #: Whether other processes see this store (then runs can be taken over by them).
    shared: bool
    #: Whether an accepted tail can be lost while readers stay (a failover); then a reader checks
    #: what it reads next against what it has.
    rewinds: bool

    async def create(
        self,
        log: str,
        *,
        owner: str,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        key_hash: str = "",
        lease: float = 15.0,
        shared: bool = False,
    ) -> LogInfo:
        """Create ``log`` (epoch 1, owned by ``owner`` for ``lease`` seconds), atomically with
        its place in the ``thread`` index and the idempotency ``key``. ``shared``: other processes
        append to it too, in the same epoch, so this one does not count on being its only writer.

        When ``key`` is known: the log that it named is described instead (compare ``log``),
        or `KeyReusedError` when ``key_hash`` differs. A taken name raises `ConflictError`.
        """
        ...

    async def append(
        self,
        log: str,
        *,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None = None,
        durable: bool = False,
    ) -> Appended:
        """Append ``records`` at offsets ``first`` ...; with ``close`` also end the log, in the
        same atomic act (``records`` may be empty then). ``durable`` asks for the store's
        strongest durability for this append (ends, tool intents and results)."""
        ...

    def append_soon(
        self, log: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """`append` for who does not wait: ``then`` is called once, on the event loop, after all
        that `append` promises (in a store that waits for nothing, before this returns). False:
        not now, and nothing has happened; `append` says why. Raises nothing but `LogError`."""
        ...

    async def read(
        self,
        log: str,
        *,
        after: int = 0,
        most: int = 512,
        most_bytes: int = 1 << 20,
        fresh: bool = False,
    ) -> Page:
        """Records after offset ``after``, at least one when there is one, within both bounds.
        ``after`` beyond the tail raises `CursorError`. While a process follows a log, what
        others append may show one wake-up late; ``fresh`` asks the store itself."""
        ...

    def read_now(
        self, log: str, *, after: int = 0, most: int = 512, most_bytes: int = 1 << 20
    ) -> Page | None:
        """`read`, where that needs no waiting; None where it does."""
        ...

    async def describe(self, log: str) -> LogInfo:
        """The log's description."""
        ...

    def subscribe(
        self, log: str, wake: Wake, *, appends: bool = True, take: Take | None = None
    ) -> Callable[[], None]:
        """Call ``wake`` (on the event loop, cheap, must not raise) whenever the log may have
        grown or closed; spurious calls are allowed, lost ones are not: a reader subscribes, then
        reads. Without ``appends``, not for appends made through this log object: the owner need
        not hear of its own. A store that has a new record at hand may offer it to ``take`` first,
        and calls ``wake`` where that is false. Returns the call that ends the subscription."""
        ...

    async def delete(self, log: str) -> None:
        """Erase a log and all that belongs to it."""
        ...


#: What `Transactional.append_inside` calls, with a connection that is in the transaction.
Inside = Callable[[Any], Awaitable[None]]


@runtime_checkable
class Transactional(Protocol):
    """A store in a database that an application shares: what belongs together can be stored
    together. Errors as in `Records`."""

    async def append_inside(
        self,
        log: str,
        *,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None,
        inside: Inside,
        seconds: float,
    ) -> Appended:
        """`Records.append` in a transaction in which ``inside`` is called, after the append and for
        ``seconds`` at most, with the connection as the application knows it: both are there, or
        neither. What ``inside`` raises comes out, and is no error of the store. It is not called
        for an append that is not accepted, or that was accepted before; it may be called again
        after an attempt that was rolled back."""
        ...


@runtime_checkable
class Taped(Protocol):
    """A store whose logs are objects of this process, to which their owner may append by hand."""

    def tape(self, log: str) -> Tape | None:
        """The open log of this name; None where it is not open, or appends have to be calls."""
        ...


@runtime_checkable
class Losing(Protocol):
    """A store that puts back logs of this process which its server has lost."""

    def when_put_back(self, call: Callable[[str], None]) -> None:
        """From here on ``call`` hears of each log that is there again without its records."""
        ...


class Leases(Protocol):
    """Who owns which open log, and until when. Errors as in `Records`."""

    async def claim(self, log: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        """Take an open log whose lease has run out: epoch + 1. None when it is not to be had."""
        ...

    async def renew(self, logs: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        """Renew the leases of ``{log: epoch}``; the logs that are lost are returned."""
        ...

    async def release(self, log: str, *, epoch: int, handed_over: bool = False) -> None:
        """End the lease now, so that another process may claim. ``handed_over``: the owner stops
        gracefully; the next `claim` says so."""
        ...

    async def orphans(self, *, most: int = 100, lease: float = 15.0) -> list[str]:
        """Open logs whose lease has run out. Where owners write the end of a lease by clocks of
        their own, one may be ahead and dead: such a lease has run out when this store object has
        seen it unrenewed for ``lease`` seconds."""
        ...

    async def owners(self) -> set[str]:
        """The owners that may hold leases which have not run out; some may hold none any more."""
        ...

    async def leases(self, owners: Set[str], *, most: int = 1000) -> list[tuple[str, int]]:
        """Open logs whose lease has not run out and is held by one of ``owners``, as ``(log,
        epoch)``: for a process that can see that an owner is dead (a process of its own machine)
        and `release` what it held."""
        ...


class Mailbox(Protocol):
    """Commands for the owner of a log, whichever process it is. Errors as in `Records`."""

    async def command(self, log: str, data: bytes) -> None:
        """Leave a command (cancel, approval answer) for the log's owner, wherever it is; the
        owner's subscription is woken. Commands are kept in order, apart from the records."""
        ...

    async def commands(self, log: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        """Commands after number ``after``: ``[(number, data), ...]``. Numbers grow from 1; those
        of commands that the store has lost are not used again."""
        ...

    async def mailboxes(self, places: Mapping[str, int]) -> dict[str, list[tuple[int, bytes]]]:
        """`commands` of many logs, ``{log: after}``, at the price of few calls. Logs without such
        commands, and unknown ones, are left out."""
        ...


#: How kinds of documents begin that belong to one log.
PRIVATE = "of:"


def private_kind(log: str) -> str:
    """The kind of the documents that belong to ``log``, and are erased with it."""
    return f"{PRIVATE}{log}"


class Index(Protocol):
    """What is found by another name: the logs of a thread, and small documents. Documents of the
    kind `private_kind` of a log are erased with it."""

    async def named(self, key: str) -> str | None:
        """The log that the idempotency ``key`` names; None for an unknown key."""
        ...

    async def thread(self, thread: str, *, most: int = 100, before: str = "") -> list[str]:
        """The thread's logs, newest first; ``before``: only those older than this log."""
        ...

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        """Keep (or with None erase) a small document beside the logs: a thread's title."""
        ...

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        """Make a document ``new`` if it is ``old`` (None: there is none), in one atomic act.
        Whether it is ``new`` now: sending the same swap twice is well. So two processes that write
        equal bytes, or both erase it, are both told that it is: where only one may win, ``new``
        has something of the writer's own in it."""
        ...

    async def document(self, kind: str, name: str) -> bytes | None:
        """One document; None where there is none."""
        ...

    async def count_documents(self, kind: str, *, prefix: str = "") -> int:
        """How many documents of ``kind`` have a name that begins with ``prefix``; cheap."""
        ...

    async def documents(
        self, kind: str, *, prefix: str = "", most: int = 1000, after: str | None = None
    ) -> dict[str, bytes]:
        """Documents of ``kind`` whose name begins with ``prefix``, newest first; with ``after`` in
        the order of their names, and only those that come after this name: a page costs what it
        holds, however many there are."""
        ...


class Store(Records, Leases, Mailbox, Index, Protocol):
    """One database of logs: memory, a SQLite file, PostgreSQL, or Redis."""

    def retain(self, seconds: float) -> None:
        """Say before `start` how long logs are stored (the ``retention`` of `expire`): a store that
        can lets them end by themselves some time after, with their idempotency keys."""
        ...

    async def start(self) -> None:
        """Connect, check, migrate; nothing where it is started. Raises when the store cannot keep
        what it promises."""
        ...

    async def close(self) -> None:
        """Flush and let go. Logs stay."""
        ...

    async def expire(self, *, retention: float, sweeper: Sweeper | None = None) -> int:
        """Erase logs without a thread that ended more than ``retention`` seconds ago, and those of
        conversations that nobody has used for so long; how many went. A conversation is used when
        a log of it is created and when one ends, and as long as one is open. ``sweeper`` may keep
        some for a while. Returns after `tokenwire.log.expiry.SECONDS`, should there be more."""
        ...

    async def probe(self) -> None:
        """Whether the store takes a write now: one small one, at most once a second, shared by all
        who ask. Raises `LogError`, after 5 s at the latest."""
        ...

    async def stats(self) -> dict[str, Any]:
        """Counts for people and metrics: logs, open, records, bytes, and the store's own."""
        ...
