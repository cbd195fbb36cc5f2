"""The log in PostgreSQL: for many processes on many machines, beside an application's own tables.

Always true: what happens to one log is one transaction, an append compares epoch and tail in the
statement that stores it, and leases go by the server's clock. Nothing depends on the session of a
connection, so that a pooler may be between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Set
from typing import Any, cast

from tokenwire.errors import (
    ConflictError,
    CursorError,
    GoneError,
    KeyReusedError,
    NotFoundError,
    StoreDamagedError,
    TokenwireError,
)
from tokenwire.log.base import (
    Appended,
    Claim,
    Due,
    Durability,
    Inside,
    LogInfo,
    Page,
    Sweeper,
    Take,
    Then,
    Wake,
)
from tokenwire.log.completion import Callback
from tokenwire.log.expiry import expire
from tokenwire.log.postgres.append import Appends, Heads, Owned, missing, nonce
from tokenwire.log.postgres.check import Server, ask, check_rights
from tokenwire.log.postgres.described import info_of, split
from tokenwire.log.postgres.documents import Documents
from tokenwire.log.postgres.expiry import Expiry
from tokenwire.log.postgres.link import Connection, Connections, Link, OwnConnections
from tokenwire.log.postgres.names import from_text, to_text
from tokenwire.log.postgres.owners import Owners
from tokenwire.log.postgres.schema import migrate, quoted
from tokenwire.log.postgres.upkeep.doubts import Doubts
from tokenwire.log.postgres.upkeep.mailbox import Mailboxes
from tokenwire.log.postgres.url import PostgresSettings
from tokenwire.log.postgres.wake import Hints, Looks, hash_of
from tokenwire.log.recent import Recent
from tokenwire.log.tail import Tails

__all__ = ["PostgresStore"]

#: No log has so many records.
MOST_OFFSET = (1 << 31) - 1


class PostgresStore:
    """A `Store` in PostgreSQL; options of its URL are described in `tokenwire.log.postgres.url`.
    ``connections``: where its connections come from; its own when None."""

    shared = True
    rewinds = True
    durability: Durability = "process"

    def __init__(
        self, settings: PostgresSettings, *, connections: Connections | None = None
    ) -> None:
        self._settings = settings
        self._own = OwnConnections(settings) if connections is None else None
        self._link = Link(settings, connections or self._own)  # type: ignore[arg-type]
        self._link.on_lost = self._in_doubt
        self._schema = quoted(settings.schema)
        self._tails = Tails()
        self._heads = Heads()
        self._owned: dict[str, Owned] = {}
        self._doubts = Doubts(self._link)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._notes: list[str] = []
        self._probe = Recent(self._try_to_write)
        self._hints = Hints(self._link, hear=self._heard)
        self._looks = Looks(
            self._link,
            self._hints,
            names=self._tails.logs,
            is_ours=self._owned.__contains__,
            wake=self._wake,
        )
        self._appends = Appends(
            self._link,
            self._owned,
            self._heads,
            self._tails,
            restore=self._restore,
            touched=self._hints.touched,
        )
        self._owners = Owners(self._link, self._owned, restore=self._restore)
        self._mailboxes = Mailboxes(self._link, self._owned, restore=self._restore)
        self._documents = Documents(self._link)
        self._expiry = Expiry(self._link)

    def retain(self, seconds: float) -> None:
        """Nothing ends here by itself; `expire` erases."""

    async def start(self) -> None:
        """Connect, check the server, make or bring up to date the schema."""

        async def work(connection: Connection) -> Server:
            server = await ask(connection, self._settings.durability)
            await migrate(connection, self._settings.schema)
            await check_rights(connection, self._settings.schema)
            return server

        try:
            server, _ = await self._link.repeat(work)
            self._use(server)
            await self._try_to_write()
            await self._doubts.note()
        except BaseException:
            await self._link.close()
            raise
        self._link.started = True

    def _use(self, server: Server) -> None:
        self.durability = server.level
        self._notes = server.notes
        self._hints.can_listen = not server.is_pooled or self._settings.direct is not None
        if not server.is_pooled:
            if self._own is not None:
                self._own.cache = True
                self._own.drop_idle()
        elif self._settings.direct is None:
            self._notes.append(
                "a pooler is between: readers are woken by looking every 20 ms; give the server's "
                "own address (?direct=HOST:PORT) for less work and earlier wake-ups."
            )

    async def close(self) -> None:
        """Finish what was given and disconnect. Logs stay."""
        await self._appends.drain()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._looks.close()
        await self._hints.close()
        await self._link.close()

    async def _apart(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run ``work`` in a task of its own: a cancelled caller must not break a connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _call(self, function: str, count: int) -> str:
        places = ", ".join(f"${number}" for number in range(1, count + 1))
        return f"SELECT * FROM {self._schema}.{function}({places})"  # noqa: S608

    # Creating and describing.

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
        owned = Owned(owner, nonce(), lease, meta=meta, thread=thread, key=key, key_hash=key_hash)
        return await self._apart(self._create(log, owned, shared))

    async def _create(self, log: str, owned: Owned, shared: bool) -> LogInfo:
        status, row = await self._make(log, owned)
        if status == "reused":
            raise KeyReusedError("this idempotency key belongs to a different request")
        if status not in ("ok", "held") or row is None:
            raise ConflictError("a log of this name exists")
        if status == "ok":
            self._heads.put(log, row["sid"], row["nonce"])
            if not shared:
                self._owned[log] = owned
        return info_of(row)

    async def _make(self, log: str, owned: Owned) -> tuple[str, Any]:
        """What became of a creation, and the log's description."""
        rows = await self._link.fetch(
            f"SELECT m.status, d.* FROM {self._schema}.make($1, $2, $3, $4, $5, $6, $7, $8, $9) m"  # noqa: S608
            f" LEFT JOIN LATERAL {self._schema}.describe(m.log) d ON true",
            to_text(log),
            to_text(owned.owner),
            owned.meta,
            None if owned.thread is None else to_text(owned.thread),
            None if owned.key is None else to_text(owned.key),
            to_text(owned.key_hash),
            owned.lease,
            owned.nonce,
            owned.epoch,
        )
        row = rows[0]
        return row["status"], row if row["name"] is not None else None

    async def describe(self, log: str) -> LogInfo:
        return info_of(await self._apart(self._described(log)))

    async def _described(self, log: str) -> Any:
        rows = await self._link.fetch(self._call("describe", 1), to_text(log))
        if not rows:
            raise await self._missing(log)
        return rows[0]

    async def _missing(self, log: str) -> TokenwireError:
        is_gone = await self._link.value(
            f"SELECT true FROM {self._schema}.gone WHERE name = $1",  # noqa: S608
            to_text(log),
        )
        return missing("gone" if is_gone else "none")

    # Appending: everything that was given in one turn of the loop goes in one statement.

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
        if first < 1:
            raise ValueError("offsets start at 1")
        durable = durable and self.durability == "process"
        item = (log, epoch, first, records, close, durable)
        return await self._appends.lane(log).ask(item)

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
        """See `tokenwire.log.base.Transactional`."""
        item = (log, epoch, first, records, close, True)
        return await self._apart(self._appends.inside(item, inside, seconds))

    def append_soon(
        self, log: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """Send an append with the others of this turn; ``then`` hears of its answer."""
        item = (log, epoch, first, records, None, False)
        self._appends.lane(log).submit(item, Callback(then))
        return True

    async def _restore(self, log: str) -> Appended | TokenwireError:
        """Put back a log, or a claim, that a failover lost, and say where it is now."""
        owned = self._owned.get(log)
        if owned is not None:
            reclaim = (to_text(log), to_text(owned.owner), owned.lease, owned.nonce)
            if not await self._link.value(
                self._call("reclaim", 6), *reclaim, owned.epoch, owned.claim
            ):
                status, row = await self._make(log, owned)
                if status == "ok" and row is not None:
                    self._heads.put(log, row["sid"], row["nonce"])
        try:
            row = await self._described(log)
        except (GoneError, NotFoundError) as error:
            self._owned.pop(log, None)
            return error
        ours = owned is not None and (row["epoch"], row["nonce"]) == (owned.epoch, owned.nonce)
        if not ours:
            self._owned.pop(log, None)
        return Appended("gap" if ours else "fenced", row["tail"], row["epoch"])

    # Reading.

    def read_now(
        self, log: str, *, after: int = 0, most: int = 512, most_bytes: int = 1 << 20
    ) -> Page | None:
        """The page where it is at hand; None: ask `read`."""
        return self._tails.page(log, after, most, most_bytes)

    async def read(
        self,
        log: str,
        *,
        after: int = 0,
        most: int = 512,
        most_bytes: int = 1 << 20,
        fresh: bool = False,
    ) -> Page:
        page = None if fresh else self._tails.page(log, after, most, most_bytes)
        if page is not None:
            return page
        return await self._apart(self._read(log, after, most, most_bytes))

    async def _read(self, log: str, after: int, most: int, most_bytes: int) -> Page:
        most = min(most, MOST_OFFSET)
        start = max(-1, min(after, MOST_OFFSET))  # as an integer of the server can be
        rows = await self._link.fetch(self._call("page", 4), to_text(log), start, most, most_bytes)
        if not rows:
            raise await self._missing(log)
        tail, closed, lengths, data = rows[0]
        if not 0 <= after <= tail:
            raise CursorError("the offset is beyond the tail of this log", tail=tail)
        records = split(data, lengths or ())
        if not records and after < tail:
            await self._described(log)  # it was erased meanwhile, and this says so
            raise StoreDamagedError(
                f"record {after + 1} of log {log} is missing in PostgreSQL; restore a backup",
                stream=log,
                offset=after + 1,
            )
        reached = after + len(records) == tail
        closed = None if closed is None else from_text(closed)
        return Page(records, after + 1, tail, closed if reached else None)

    # Waking.

    def subscribe(
        self, log: str, wake: Wake, *, appends: bool = True, take: Take | None = None
    ) -> Callable[[], None]:
        end = self._tails.subscribe(log, wake, appends=appends, take=take)
        self._hints.want(log)
        self._looks.start()
        return cast("Callable[[], None]", end)

    def _wake(self, log: str) -> None:
        self._tails.forget(log)
        self._tails.wake(log)

    def _heard(self, hashes: set[int] | None) -> None:
        if hashes is None:
            self._looks.soon()
            return
        for log in self._tails.logs():
            if hash_of(log) in hashes:
                self._wake(log)

    def _in_doubt(self) -> None:
        """A connection was lost: the server may be another one, or have lost its newest records."""
        self._tails.forget_all()

    def when_put_back(self, call: Callable[[str], None]) -> None:
        self._doubts.listeners.append(call)

    def _touched(self, log: str) -> None:
        """Something but an append happened to ``log`` here."""
        self._wake(log)
        self._hints.touched(log)

    # Owners.

    async def claim(self, log: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        return await self._apart(self._claim(log, owner, lease))

    async def _claim(self, log: str, owner: str, lease: float) -> Claim | None:
        number = nonce()
        claim = await self._owners.claim(log, owner, lease, number)
        if claim is None:
            return None
        epoch, tail, handed_over = claim
        row = await self._described(log)
        self._owned[log] = Owned(
            owner,
            row["nonce"],
            lease,
            claim=number,
            epoch=epoch,
            meta=row["meta"],
            thread=None if row["thread"] is None else from_text(row["thread"]),
            key=None if row["key"] is None else from_text(row["key"]),
            key_hash="" if row["key_hash"] is None else from_text(row["key_hash"]),
        )
        self._heads.put(log, row["sid"], row["nonce"])
        self._touched(log)
        return Claim(log, epoch, tail, handed_over=handed_over)

    async def renew(self, logs: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        losses: set[str] = await self._apart(self._owners.renew(dict(logs), owner, lease))
        await self._apart(self._doubts.settle(logs.keys() - losses))
        return losses

    async def release(self, log: str, *, epoch: int, handed_over: bool = False) -> None:
        await self._apart(self._owners.release(log, epoch, handed_over))

    async def orphans(self, *, most: int = 100, lease: float = 15.0) -> list[str]:
        return await self._apart(self._owners.orphans(most))

    async def owners(self) -> set[str]:
        return await self._apart(self._owners.owners())

    async def leases(self, owners: Set[str], *, most: int = 1000) -> list[tuple[str, int]]:
        return await self._apart(self._owners.leases(owners, most))

    async def command(self, log: str, data: bytes) -> None:
        await self._apart(self._command(log, data))

    async def _command(self, log: str, data: bytes) -> None:
        if not await self._mailboxes.send(log, data, nonce()):
            raise await self._missing(log)
        self._touched(log)

    async def commands(self, log: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        return await self._apart(self._commands(log, after))

    async def mailboxes(self, places: Mapping[str, int]) -> dict[str, list[tuple[int, bytes]]]:
        return await self._apart(self._mailboxes.read_all(places))

    async def _commands(self, log: str, after: int) -> list[tuple[int, bytes]]:
        commands = await self._mailboxes.read(log, after)
        if commands is None:
            raise await self._missing(log)
        return commands

    # Indexes, documents, ends.

    async def named(self, key: str) -> str | None:
        return await self._apart(self._documents.named(key))

    async def thread(self, thread: str, *, most: int = 100, before: str = "") -> list[str]:
        return await self._apart(self._documents.thread(thread, most, before))

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        await self._apart(self._documents.set(kind, name, data))

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        return await self._apart(self._documents.swap(kind, name, old, new))

    async def document(self, kind: str, name: str) -> bytes | None:
        return await self._apart(self._documents.get(kind, name))

    async def count_documents(self, kind: str, *, prefix: str = "") -> int:
        return await self._apart(self._documents.count(kind, prefix))

    async def documents(
        self, kind: str, *, prefix: str = "", most: int = 1000, after: str | None = None
    ) -> dict[str, bytes]:
        return await self._apart(self._documents.list(kind, prefix, most, after))

    async def delete(self, log: str) -> None:
        await self._apart(self._link.fetch(self._call("delete", 1), to_text(log)))
        self._erased(log)

    def _erased(self, log: str) -> None:
        self._owned.pop(log, None)
        self._heads.forget(log)
        self._touched(log)

    async def expire(self, *, retention: float, sweeper: Sweeper | None = None) -> int:
        count = await expire(self, retention, sweeper)
        await self._apart(self._expiry.forget_names())
        return count

    async def due(self, retention: float, most: int) -> list[Due]:
        return await self._apart(self._expiry.due(retention, most))

    async def erase_due(self, due: list[Due], retention: float) -> list[Due]:
        erased = await self._apart(self._expiry.erase_due(due, retention))
        for one in erased:
            for log in one.logs:
                self._erased(log)
        return erased

    async def postpone(self, due: list[Due], retention: float, seconds: float) -> None:
        await self._apart(self._expiry.postpone(due, retention, seconds))

    async def probe(self) -> None:
        await self._probe.get()

    async def _try_to_write(self) -> None:
        await self._link.fetch(
            f"INSERT INTO {self._schema}.probe VALUES (pg_backend_pid() % 64, now())"  # noqa: S608
            " ON CONFLICT (slot) DO UPDATE SET at = now()"
        )

    async def stats(self) -> dict[str, Any]:
        counts = await self._apart(self._expiry.counts())
        return {
            "store": "postgresql",
            "durability": self.durability,
            **counts,
            "repeated": self._link.repeated,
            "notes": list(self._notes),
        }
