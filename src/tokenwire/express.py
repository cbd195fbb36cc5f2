"""The express way: a plain delta from the provider to its readers in one turn of the event loop.

While the tasks of a run and of its readers sleep, whoever brings bytes hands them on by plain
function calls: bytes (`providers.http.response.Response`) to events (`run.call.reading.Reading`),
numbered and folded (`run.loop.Loop.take`), sealed and appended (`Producer.take` of
`relay.produce.producer`), a page for each reader (`relay.follow.Follower`), encoded and written
(`server.edge.respond`). Each of these answers with one `Taken`.

Most reads do not even come that far: `run.call.lane` takes them before they are parsed.

Always true: both ways share the function of each step (`Loop.seal`, `Chain.seal_all`,
`Producer.landed`, `Follower.advance`, `BatchEncoder.encode`), so events, order and bytes are the
same on both; a faster implementation of a step replaces that one function. What is not taken goes
the ordinary way, through the task.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from os import write
from typing import Final, NamedTuple, Protocol

__all__ = [
    "MOST_TEXT",
    "NO",
    "SETTLE",
    "YES",
    "Diversion",
    "Form",
    "Hold",
    "Loan",
    "Port",
    "Reader",
    "Taken",
    "Tape",
    "Usage",
    "follows",
    "form_of",
    "give",
    "offer",
    "offer_newest",
    "offer_one",
    "offer_several",
    "text_of_delta",
]


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


class Hold(NamedTuple):
    """A socket that the event loop does not read."""

    #: Read it now, and hand on what is there. False where that is nothing, or the event loop has to
    #: read on: at the end, after an error, for TLS, where more is there than one read takes.
    pull: Callable[[], bool]
    #: Let the event loop read it again.
    release: Callable[[], None]
    #: The descriptor that `pull` reads; negative where it reads none.
    fd: int


class Intake(Protocol):
    """Where a store has sockets read together, when it next takes what they bring."""

    def join(self, fd: int, pull: Callable[[], bool], end: Callable[[], None]) -> None:
        """Call ``pull`` when ``fd`` has something to read, until it returns false; then ``end``,
        once."""
        ...

    def leave(self, fd: int, pull: Callable[[], bool]) -> None:
        """Call neither ``pull`` any more, nor what belongs to it."""
        ...


# What `run.call.lane` touches at every token: plain objects that each layer keeps up to date, so
# that one function can do what would be a call of each of them.


#: Characters of the check at the head of a record; see `tokenwire.relay.record`.
_CHECK = 16
_TEXT, _END = b'"text":"', b'","seq":'
#: A gap in the body of a form, or a percent sign there.
_GAP = re.compile(rb"%[%b]")
#: Bytes of text after which a reader's encoder hears of what was encoded without it.
MOST_TEXT = 4 << 10


class Form:
    """One chunk with one record, as a wire has it: fixed bytes around its cursor, its JSON or the
    text in that, and a number. Made by `form_of`, so that forms that are equal are the same."""

    __slots__ = ("chunk", "fixed", "has_cursor", "head", "is_json", "plain", "shift")

    def __init__(
        self, body: bytes, head: bytes, has_cursor: bool, is_json: bool, shift: int | None
    ) -> None:
        #: The bytes of the chunk's size that are in no gap.
        self.fixed = len(body % (b"", b"", b""))
        #: The JSON of a record before its text; empty where any record fits, with all of its JSON.
        self.head = head
        self.has_cursor = has_cursor
        #: Whether a text may have escapes.
        self.is_json = is_json
        #: The number less the offset; None where there is no number.
        self.shift = shift
        #: The chunk with gaps for its size and for what it has of offset and check, JSON or text,
        #: and number: those of ``body`` that stay empty are not there to be filled.
        gaps = iter((b"%d-%b" * has_cursor, b"%b", b"" if shift is None else b"%b"))
        filled = _GAP.sub(lambda found: found[0] if found[0] == b"%%" else next(gaps), body)
        self.chunk = b"%%x\r\n%b\r\n" % filled
        #: The same where it has offset, check and JSON alone; else empty.
        self.plain = self.chunk if has_cursor and not head and shift is None else b""

    def fill(self, offset: int, check: bytes, json: bytes, text: bytes) -> bytes:
        """The chunk of the record at ``offset`` whose JSON has ``text``; empty where it does not
        fit."""
        if self.plain:
            digits = 4 if 999 < offset < 10_000 else 3 if 99 < offset < 1000 else len(str(offset))
            size = self.fixed + digits + 1 + len(check) + len(json)
            return self.plain % (size, offset, check, json)
        if not self.head:
            text = json
        elif not json.startswith(self.head) or (not self.is_json and b"\\" in text):
            return b""
        size, shift = self.fixed + len(text), self.shift
        if self.has_cursor:
            digits = 4 if 999 < offset < 10_000 else 3 if 99 < offset < 1000 else len(str(offset))
            size += digits + 1 + len(check)
            if shift is None:
                return self.chunk % (size, offset, check, text)
            number = b"%d" % (offset + shift)
            return self.chunk % (size + len(number), offset, check, text, number)
        if shift is None:
            return self.chunk % (size, text)
        number = b"%d" % (offset + shift)
        return self.chunk % (size + len(number), text, number)


@lru_cache(1024)
def form_of(
    body: bytes,
    *,
    head: bytes = b"",
    has_cursor: bool = True,
    is_json: bool = True,
    shift: int | None = None,
) -> Form:
    """The form whose chunks have ``body``, with gaps (``%b``) for cursor, JSON or text, and number,
    of which those that it does not have stay empty."""
    return Form(body, head, has_cursor, is_json, shift)


def _nothing() -> int:
    return 0


class Port:
    """The way past a sleeping task into one reader's socket, under our own server protocol."""

    __slots__ = ("fd", "form", "is_open", "send", "socket", "text", "unsent", "wrote")

    def __init__(self, send: Callable[[bytes], None]) -> None:
        #: Write bytes to the socket as they are, with the framing of the response's body.
        self.send = send
        #: The descriptor of a socket to which `send` writes nothing but what it is given; else
        #: negative. ``unsent``: how many bytes wait in front of it.
        self.socket = -1
        self.unsent: Callable[[], int] = _nothing
        #: The same while nothing waits, so that bytes may go past `send`; whoever uses that, or
        #: writes otherwise, makes it negative.
        self.fd = -1
        #: Whether the socket takes more without waiting. The server's protocol clears it; its
        #: `ResponseBody.ready` sets it again.
        self.is_open = False
        #: What the next record looks like; None where that depends on more than the record.
        self.form: Form | None = None
        #: The text of what was written, for an encoder that has to hear of it.
        self.text: bytearray | None = None
        #: Something was written since the ticker looked last.
        self.wrote = False


class Reader(ABC):
    """A reader of a log, which its store calls with one more record (``Take`` in
    `tokenwire.log.base`)."""

    __slots__ = ("after", "check", "port")

    #: The offset of the last record that it has.
    after: int
    #: The check of that record, where a store may lose what it has told; else None.
    check: bytes | None
    #: Where the next record may go at once, in its form; None while the reader has anything else
    #: to do.
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


def _is_free(port: Port) -> bool:
    """Whether nothing waits in front of the socket, if there is one."""
    if port.socket < 0 or port.unsent():
        return False
    port.fd = port.socket
    return True


def give(reader: Reader, port: Port, offset: int, chunk: bytes, text: bytes) -> bool:
    """Write the ``chunk`` of the record at ``offset``, whose delta has ``text``, to a reader that
    has the one before; whether that is done, and not for the reader itself to do."""
    unheard = port.text
    if not chunk or (unheard is not None and len(unheard) >= MOST_TEXT):
        return False
    if unheard is not None:
        unheard += text
    reader.after = offset
    try:
        if port.fd >= 0 or _is_free(port):
            try:
                size = write(port.fd, chunk)
            except OSError:
                size = 0
            if size < len(chunk):  # the rest, and any error, is for `send`
                port.fd = -1
                port.send(chunk[size:])
        else:
            port.send(chunk)
    except Exception as error:  # for the reader's task to raise
        reader.fail(error)
    port.wrote = True
    return True


def follows(last: bytes, record: bytes) -> bool:
    """Whether ``record`` comes directly after the one whose check is ``last``."""
    return record[:_CHECK] == blake2b(last + record[_CHECK:], digest_size=8).hexdigest().encode()


def text_of_delta(json: bytes) -> bytes:
    """The text of a delta as its canonical JSON has it; empty where it is none."""
    at = json.find(_TEXT) + len(_TEXT)
    text = json[at : json.find(_END, at)] if at >= len(_TEXT) else b""
    return text if b"\\" in text or b'"' not in text else b""


def offer(
    takers: tuple[Taker, ...], offset: int, check: bytes, json: bytes, text: bytes, record: bytes
) -> None:
    """Offer the newest record of a log to all who wait for it. ``text``: that of its delta, as its
    ``json`` has it."""
    form, chunk = None, b""
    for wake, take, reader in takers:
        port = reader.port if reader is not None else None
        if port is not None and port.is_open and reader.after == offset - 1:  # type: ignore[union-attr]
            if port.form is not form:  # of further readers of this wire it is the same one
                form = port.form
                chunk = b"" if form is None else form.fill(offset, check, json, text)
            if give(reader, port, offset, chunk, text):  # type: ignore[arg-type]
                continue
        if take is None or not take(offset, record):
            wake()


def offer_one(reader: Reader, offset: int, check: bytes, json: bytes, text: bytes) -> bool:
    """`offer`, where ``reader`` is all who wait, and is written to; False, and nothing has
    happened, where `offer` has to do it. (`give` is in here, as a call of it would be felt.)"""
    port, after = reader.port, reader.after
    if port is None:
        return False
    form, fd, unheard = port.form, port.fd, port.text
    if fd < 0 or form is None or after != offset - 1 or not port.is_open:
        return False
    chunk = form.fill(offset, check, json, text)
    if not chunk:
        return False
    if unheard is not None:
        if len(unheard) >= MOST_TEXT:
            return False
        unheard += text
    reader.after, port.wrote = offset, True
    try:
        size = write(fd, chunk)
    except OSError:
        size = 0
    if size < len(chunk):  # the rest, and any error, is for `send`
        port.fd = -1
        try:
            port.send(chunk[size:])
        except Exception as error:  # for the reader's task to raise
            reader.fail(error)
    return True


def offer_newest(readers: tuple[Taker, ...], offset: int, record: bytes) -> None:
    """Offer the newest record of a log to all who wait for it."""
    json = record[_CHECK:]
    text = text_of_delta(json)
    if text:
        offer(readers, offset, record[:_CHECK], json, text, record)
        return
    for wake, take, _ in readers:
        if take is None or not take(offset, record):
            wake()


def offer_several(
    takers: tuple[Taker, ...], start: int, records: list[bytes], check: bytes | None
) -> None:
    """Offer several new records of a log, behind the offset ``start``, to all who wait: in one
    write, or by a wake-up. ``check``: that of the record before them, where a reader must have it;
    empty where it is not known."""
    jsons = [record[_CHECK:] for record in records]
    texts = [text_of_delta(json) for json in jsons]
    end, text, is_plain = start + len(records), b"".join(texts), all(texts) and check != b""
    form, chunk = None, b""
    for wake, _, reader in takers:
        port = reader.port if reader is not None else None
        if (
            is_plain
            and reader is not None
            and port is not None
            and port.is_open
            and reader.after == start
            and (check is None or reader.check == check)
        ):
            if port.form is not form:
                form = port.form
                chunk = _chunks(form, start, records, jsons, texts)
            if give(reader, port, end, chunk, text):
                if check is not None:
                    reader.check = records[-1][:_CHECK]
                continue
        wake()


def _chunks(
    form: Form | None, start: int, records: list[bytes], jsons: list[bytes], texts: list[bytes]
) -> bytes:
    """The chunk of each record; empty where one does not fit."""
    if form is None:
        return b""
    chunks = [
        form.fill(offset, record[:_CHECK], json, text)
        for offset, (record, json, text) in enumerate(
            zip(records, jsons, texts, strict=True), start + 1
        )
    ]
    return b"".join(chunks) if all(chunks) else b""


class Tape:
    """A log in this process's memory, as whoever appends to it sees it. An append by hand adds a
    record, counts its bytes here and in `usage`, and offers it to each of `takers`."""

    __slots__ = ("bytes", "reader", "records", "takers", "usage", "writer")

    def __init__(self, usage: Usage) -> None:
        self.records: list[bytes] = []
        self.bytes = 0
        self.usage = usage
        #: The epoch of who may append; 0 when nobody may any more.
        self.writer = 1
        #: Who wants to hear of records; None when only the store knows, which then appends.
        self.takers: tuple[Taker, ...] | None = None
        #: Of the takers, the only one, if it is a `Reader`.
        self.reader: Reader | None = None

    @property
    def intake(self) -> Intake | None:
        """Where to read what is appended here, if that is of use."""
        return None


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
