"""Read-write Durable Streams: what a stream is, and every rule about writing to it.

Always true: a position once given out keeps its bytes; after a close nothing is appended; a
producer's request counts once; a stream's state depends only on its entry and its records, so that
every process which reads them has the same.

Pure: time is an argument, and where entries and records are kept is the business of `ds_store`.
Writes come in two halves, planned and then taken, so that a store can accept them in between.
"""

from __future__ import annotations

import secrets
from array import array
from bisect import bisect_right
from typing import Any

import msgspec

from tokenwire.errors import InputError, TokenwireError
from tokenwire.wire.durable import content_kind, flatten, media_type, offset_text

__all__ = [
    "Answer",
    "Append",
    "Change",
    "Create",
    "Entry",
    "Piece",
    "Refusal",
    "Stream",
    "change_of",
    "plan_append",
    "plan_create",
    "seal",
]

#: Counted for every append, so that an empty position never equals the one before.
FRAMING = 5
#: Random bytes in front of a record: no two records are alike, so a writer knows its own.
_NONCE = 8


class Refusal(TokenwireError):
    """A request that the protocol answers with a status and headers of its own."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.http_status = status  # type: ignore[misc]
        self.code = {404: "not_found", 409: "conflict", 410: "gone", 403: "fenced"}.get(  # type: ignore[misc]
            status, "bad_request"
        )
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Piece(msgspec.Struct, frozen=True):
    """One append: its messages (JSON) or its bytes, ending at position ``end``."""

    end: int
    parts: list[bytes]


class Create(msgspec.Struct, kw_only=True):
    """A ``PUT``."""

    content_type: str | None = None
    body: bytes = b""
    ttl: int | None = None
    expires_at: float | None = None
    expires_text: str | None = None
    closed: bool = False
    source: str | None = None
    fork_at: int | None = None
    fork_sub: int = 0


class Append(msgspec.Struct, kw_only=True):
    """A ``POST``."""

    content_type: str | None = None
    body: bytes = b""
    close: bool = False
    seq: str | None = None
    producer: tuple[str, int, int] | None = None


class Change(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record of a stream. ``at``: the position that it begins at, where that is not the tail
    (what a fork has from its source)."""

    parts: list[bytes] = []
    close: bool = False
    seq: str | None = None
    producer: tuple[str, int, int] | None = None
    time: float = 0.0
    at: int | None = None


class Answer(msgspec.Struct, kw_only=True):
    """What a write is answered with."""

    status: int
    headers: dict[str, str]


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of a path beside its records. ``forks``: the forks that need it, by id, with
    their path and when they were begun; ``hidden``: deleted, but forks need it; ``removal``: chosen
    by who deleted it, as two processes that write equal bytes would both have."""

    path: str
    id: str
    content_type: str
    ttl: int | None = None
    expires_at: float | None = None
    expires_text: str | None = None
    #: When it ends, as of the last time that this was written down.
    expires: float | None = None
    source: str | None = None
    source_id: str | None = None
    fork_at: int | None = None
    fork_sub: int = 0
    forks: dict[str, tuple[str, float]] = {}
    hidden: bool = False
    removal: str = ""

    @property
    def log(self) -> str:
        """The log stream of its records."""
        return f"ds_{self.id}"


class Stream:
    """One stream: the fold of its records. It knows where its pieces end and which records hold
    them (``ends``, ``places``), not their bytes."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.id = entry.id
        self.content_type = entry.content_type
        self.tail = 0
        self.closed = False
        self.closed_by: tuple[str, int, int] | None = None
        self.last_seq: str | None = None
        self.producers: dict[str, tuple[int, int]] = {}
        self.expires = entry.expires
        #: Records taken, and what tells the last of them from any other.
        self.offset = 0
        self.mark = b""
        self.ends = array("q")
        self.places = array("q")
        #: Deleted while somebody reads it.
        self.gone = False

    @property
    def kind(self) -> str:
        """How it is framed."""
        return content_kind(self.content_type)

    def take(self, record: bytes) -> None:
        """The next record."""
        self.offset += 1
        self.mark = record[:_NONCE]
        change = change_of(record)
        if change.at is not None:
            self.tail = change.at
        if change.seq is not None:
            self.last_seq = change.seq
        if change.parts:
            self.tail += sum(map(len, change.parts)) + FRAMING
            self.ends.append(self.tail)
            self.places.append(self.offset)
        if change.producer is not None:
            name, epoch, seq = change.producer
            self.producers[name] = (epoch, seq)
        if change.close:
            self.closed, self.closed_by = True, change.producer
        self.touch(change.time)

    def index_after(self, position: int) -> int:
        """The number of the first piece that ends behind a position."""
        return bisect_right(self.ends, position)

    def touch(self, now: float) -> None:
        """A read or a write: a sliding lifetime begins again."""
        if self.entry.ttl is not None:
            self.expires = max(self.expires or 0.0, now + self.entry.ttl)

    def headers(self) -> dict[str, str]:
        """What every answer about it says."""
        headers = {"stream-next-offset": offset_text(self.tail)}
        if self.closed:
            headers["stream-closed"] = "true"
        return headers


def seal(change: Change) -> bytes:
    """The record of a change, unlike any other."""
    return secrets.token_bytes(_NONCE) + msgspec.msgpack.encode(change)


def change_of(record: bytes) -> Change:
    """The change that a record holds."""
    return msgspec.msgpack.decode(memoryview(record)[_NONCE:], type=Change)


# --- creating ----------------------------------------------------------------------------------


def plan_create(
    path: str, request: Create, existing: Stream | None, source: Stream | None, now: float
) -> Answer | Entry:
    """``PUT``: the entry of the new stream, or 200 when it is there with the same configuration.
    Raises `Refusal` (409) for another one, `InputError` for a fork beyond its source."""
    if existing is not None:
        if existing.entry.hidden or not _same(existing, request, source):
            raise Refusal(409, "a stream with another configuration exists at this path")
        return created(existing, 200)
    content_type = request.content_type
    if source is not None:
        content_type = content_type or source.content_type
        if media_type(content_type) != media_type(source.content_type):
            raise Refusal(409, "a fork must have the content type of its source")
    entry = Entry(
        path=path,
        id=secrets.token_hex(12),
        content_type=content_type or "application/octet-stream",
        ttl=request.ttl,
        expires_at=request.expires_at,
        expires_text=request.expires_text,
    )
    if source is not None:
        _inherit(entry, source, request)
    entry.expires = entry.expires_at if entry.ttl is None else now + entry.ttl
    return entry


def created(stream: Stream, status: int) -> Answer:
    """The answer to a ``PUT``."""
    headers = {**stream.headers(), "content-type": stream.content_type}
    return Answer(status=status, headers=headers)


def _inherit(entry: Entry, source: Stream, request: Create) -> None:
    at = source.tail if request.fork_at is None else request.fork_at
    if at > source.tail:
        raise InputError("the fork offset is beyond the end of the source")
    if request.fork_sub and source.index_after(at) == len(source.ends):
        raise InputError("the fork sub-offset is beyond the end of the source")
    entry.source, entry.source_id = source.entry.path, source.id
    entry.fork_at, entry.fork_sub = at, request.fork_sub
    if request.ttl is None and request.expires_at is None:
        entry.ttl = source.entry.ttl
        entry.expires_at = source.entry.expires_at
        entry.expires_text = source.entry.expires_text


def first_parts(entry: Entry, request: Create) -> list[bytes]:
    """What the body of a ``PUT`` puts into the new stream."""
    if not request.body:
        return []
    json = content_kind(entry.content_type) == "json"
    return flatten(request.body, empty=True) if json else [request.body]


def slice_of(kind: str, parts: list[bytes], count: int) -> list[bytes]:
    """The first ``count`` messages (JSON) or bytes of a piece, for a fork inside of it."""
    if kind == "json":
        if count > len(parts):
            raise InputError("the fork sub-offset is beyond that append")
        return parts[:count]
    whole = b"".join(parts)
    if count > len(whole):
        raise InputError("the fork sub-offset is beyond that append")
    return [whole[:count]]


def _same(existing: Stream, request: Create, source: Stream | None) -> bool:
    entry, content_type = existing.entry, request.content_type
    if source is not None:
        content_type = content_type or source.content_type
        at = entry.fork_at if request.fork_at is None else request.fork_at
        if (entry.source, entry.fork_at, entry.fork_sub) != (
            source.entry.path,
            at,
            request.fork_sub,
        ):
            return False
        inherits = request.ttl is None and request.expires_at is None
    else:
        if entry.source is not None:
            return False
        inherits = False
    same_life = inherits or (entry.ttl, entry.expires_at) == (request.ttl, request.expires_at)
    kind = media_type(content_type or "application/octet-stream")
    return (
        same_life
        and kind == media_type(existing.content_type)
        and existing.closed == request.closed
    )


# --- appending ---------------------------------------------------------------------------------


def plan_append(stream: Stream, request: Append, now: float) -> Answer | Change:
    """``POST``: the change to store, or the answer to what changes nothing. Checks come in the
    protocol's order: closed, type, producer, sequence."""
    if stream.closed:
        return _append_closed(stream, request)
    if request.body:
        if request.content_type is None:
            raise InputError("'Content-Type' is needed with a body", field="content-type")
        if media_type(request.content_type) != media_type(stream.content_type):
            raise Refusal(409, "the content type differs from the stream's")
    elif not request.close:
        raise InputError("an empty body appends nothing; 'Stream-Closed: true' closes")
    parts: list[bytes] = []
    if request.body:
        json = stream.kind == "json"
        parts = flatten(request.body, empty=False) if json else [request.body]
    if request.producer is not None:
        duplicate = _check_producer(stream, request.producer)
        if duplicate is not None:
            return duplicate
    seq = request.seq
    before = stream.last_seq
    if seq is not None and before is not None and seq.encode() <= before.encode():
        raise Refusal(409, "'Stream-Seq' must grow")
    return Change(parts=parts, close=request.close, seq=seq, producer=request.producer, time=now)


def appended(stream: Stream, change: Change) -> Answer:
    """The answer once the change was accepted and taken."""
    headers: dict[str, str] = {}
    if change.producer is not None:
        _, epoch, seq = change.producer
        headers = {"producer-epoch": str(epoch), "producer-seq": str(seq)}
    fresh = change.producer is not None and bool(change.parts)
    return Answer(status=200 if fresh else 204, headers={**stream.headers(), **headers})


def _append_closed(stream: Stream, request: Append) -> Answer:
    headers = stream.headers()
    if request.producer is not None and request.producer == stream.closed_by:
        _, epoch, seq = request.producer
        headers |= {"producer-epoch": str(epoch), "producer-seq": str(seq)}
        return Answer(status=204, headers=headers)
    if request.close and not request.body and request.producer is None:
        return Answer(status=204, headers=headers)
    raise Refusal(
        409, "the stream is closed", **{k.replace("-", "_"): v for k, v in headers.items()}
    )


def _check_producer(stream: Stream, producer: tuple[str, int, int]) -> Answer | None:
    """None for a new request, the answer for a duplicate. Raises `Refusal` otherwise."""
    name, epoch, seq = producer
    last = stream.producers.get(name)
    if last is None:
        if seq != 0:
            raise _gap(0, seq)
        return None
    last_epoch, last_seq = last
    if epoch < last_epoch:
        raise Refusal(403, "a newer epoch of this producer writes", producer_epoch=str(last_epoch))
    if epoch > last_epoch:
        if seq != 0:
            raise InputError("a new epoch begins with sequence 0")
        return None
    if seq <= last_seq:
        headers: dict[str, Any] = {
            **stream.headers(),
            "producer-epoch": str(last_epoch),
            "producer-seq": str(last_seq),
        }
        return Answer(status=204, headers=headers)
    if seq > last_seq + 1:
        raise _gap(last_seq + 1, seq)
    return None


def _gap(expected: int, received: int) -> Refusal:
    return Refusal(
        409,
        "requests of this producer are missing",
        producer_expected_seq=str(expected),
        producer_received_seq=str(received),
    )
