"""The express way: a plain delta from the provider to its readers in one turn of the event loop.

While the tasks of a run and of its readers sleep, whoever brings bytes hands them on by plain
function calls: bytes (`providers.http.connection.Response`) to events (`run.call.reading.Reading`),
numbered and folded (`run.loop.Loop.take`), sealed and appended (`relay.produce.Producer.take`), a
page for each reader (`relay.follow.Follower`), encoded and written (`server.edge.respond`). Each
of these answers with one `Taken`.

Most reads do not even come that far: `run.call.lane` takes them before they are parsed.

Always true: both ways share the function of each step (`Loop.seal`, `Chain.seal_all`,
`Producer.landed`, `Follower.advance`, `BatchEncoder.encode`), so events, order and bytes are the
same on both; a faster implementation of a step replaces that one function. What is not taken goes
the ordinary way, through the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

__all__ = ["NO", "SETTLE", "YES", "Diversion", "Loan", "Port", "Reader", "Taken", "Tape", "Usage"]


class Taken(IntEnum):
    """What became of something that was offered past a sleeping task."""

    #: Nothing happened: the task has to take it.
    NO = 0
    #: It is done; the task may sleep on.
    YES = 1
    #: It was taken, and the task has to wake to settle the rest (a full store, the end, a fault).
    SETTLE = 2


#: The members by themselves: on a token's way, looking them up in the class would be felt.
NO: Final = Taken.NO
YES: Final = Taken.YES
SETTLE: Final = Taken.SETTLE


class Diversion(Protocol):
    """Who may take what the socket brings before it is parsed (`run.call.lane`)."""

    def received(self, data: bytes) -> bool:
        """Take a read whole; False, and nothing has happened, when it must be parsed."""
        ...

    def leave(self) -> None:
        """Nothing more comes here. Raises nothing."""
        ...


# What `run.call.lane` touches at every token: plain objects that each layer keeps up to date, so
# that one function can do what would be a call of each of them.


class Port:
    """The way past a sleeping task into one reader's socket, under our own server protocol."""

    __slots__ = ("fixed", "form", "is_open", "send", "wrote")

    def __init__(self, send: Callable[[bytes], None]) -> None:
        #: Write bytes to the socket as they are, with the framing of the response's body.
        self.send = send
        #: Whether the socket takes more without waiting. The server's protocol clears it; its
        #: `ResponseBody.ready` sets it again.
        self.is_open = False
        #: One chunk with one record, made of its size, cursor and JSON. ``fixed``: the bytes of its
        #: size that are neither cursor nor JSON.
        self.form, self.fixed = b"", 0
        #: Something was written since the ticker looked last.
        self.wrote = False


class Reader(ABC):
    """A reader of a log, which its store calls with one more record (``Take`` in
    `tokenwire.log.base`)."""

    __slots__ = ("after", "port")

    #: The offset of the last record that it has.
    after: int
    #: The check of that record, where a store may lose what it has told; else None.
    check: bytes | None
    #: Where the next record may go at once, as one of `Port.form`; None while the reader has
    #: anything else to do, and for wires whose bytes depend on more than the record.
    port: Port | None

    @abstractmethod
    def __call__(self, offset: int, record: bytes) -> bool:
        """Take the record at ``offset``; whether it is taken."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """What the reader was given did not reach it: its task raises ``error``."""


class Usage:
    """What all logs of a store in memory hold, and may hold."""

    __slots__ = ("bytes", "most", "records")

    def __init__(self, most: int) -> None:
        self.bytes = self.records = 0
        self.most = most


#: A subscription to a log's growth: the wake-up, who takes a single record before that, and the
#: same where it is a `Reader`.
Taker = tuple[Callable[[], None], Callable[[int, bytes], bool] | None, Reader | None]


class Tape:
    """A log in this process's memory, as whoever appends to it sees it. An append by hand adds a
    record, counts its bytes here and in `usage`, and offers it to each of `takers`."""

    __slots__ = ("bytes", "records", "takers", "usage", "writer")

    def __init__(self, usage: Usage) -> None:
        self.records: list[bytes] = []
        self.bytes = 0
        self.usage = usage
        #: The epoch of who may append; 0 when nobody may any more.
        self.writer = 1
        #: Who wants to hear of records; None when only the store knows, which then appends.
        self.takers: tuple[Taker, ...] | None = None


class Loan(NamedTuple):
    """What a run's producer lends to one who appends by hand."""

    tape: Tape
    #: The producer's epoch: no append is allowed while `Tape.writer` is another.
    epoch: int
    #: The check of the newest record.
    check: bytes
    #: The last offset that may be written, and the bytes after which nothing more may be.
    last: int
    room: int
