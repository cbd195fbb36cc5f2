"""Read-write Durable Streams: what a stream is, and every rule about writing to it.

Always true: a position once given out keeps its bytes; after a close nothing is appended; a
producer's request counts once; a stream that forks need is kept, hidden, until they are gone.

Time is an argument. `Streams` is the table of streams by path; `ds_store` keeps it.
Writes come in two halves, planned and then applied, so that a store can accept them in between.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from tokenwire.errors import InputError, TokenwireError
from tokenwire.wire.durable import content_kind, flatten, media_type, offset_text

__all__ = ["Answer", "Append", "Create", "Piece", "Refusal", "Stream", "Streams"]

#: Counted for every append, so that an empty position never equals the one before.
_FRAMING = 5


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


class Producer(msgspec.Struct):
    epoch: int
    seq: int


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


class Change(msgspec.Struct, kw_only=True):
    """What an append does to a stream; replayed when the stream is read from its store."""

    parts: list[bytes] = []
    close: bool = False
    seq: str | None = None
    producer: tuple[str, int, int] | None = None
    time: float = 0.0


class Answer(msgspec.Struct, kw_only=True):
    """What a write is answered with."""

    status: int
    headers: dict[str, str]


class Stream(msgspec.Struct, kw_only=True):
    """One stream. ``wakes`` are called when it grew, closed or went away."""

    path: str
    id: str
    content_type: str
    pieces: list[Piece] = []
    tail: int = 0
    closed: bool = False
    closed_by: tuple[str, int, int] | None = None
    ttl: int | None = None
    expires_at: float | None = None
    expires_text: str | None = None
    expires: float | None = None
    last_seq: str | None = None
    producers: dict[str, Producer] = {}
    source: str | None = None
    fork_at: int | None = None
    fork_sub: int = 0
    forks: int = 0
    hidden: bool = False
    gone: bool = False

    @property
    def kind(self) -> str:
        """How it is framed."""
        return content_kind(self.content_type)

    def add(self, parts: list[bytes]) -> None:
        """Append ``parts`` as one piece."""
        if parts:
            self.tail += sum(map(len, parts)) + _FRAMING
            self.pieces.append(Piece(self.tail, parts))

    def take(self, change: Change) -> None:
        """An accepted append."""
        if change.seq is not None:
            self.last_seq = change.seq
        self.add(change.parts)
        if change.producer is not None:
            name, epoch, seq = change.producer
            self.producers[name] = Producer(epoch, seq)
        if change.close:
            self.closed, self.closed_by = True, change.producer
        self.touch(change.time)

    def after(self, position: int) -> list[Piece]:
        """The pieces behind a position."""
        low, high = 0, len(self.pieces)
        while low < high:
            middle = (low + high) // 2
            if self.pieces[middle].end <= position:
                low = middle + 1
            else:
                high = middle
        return self.pieces[low:]

    def touch(self, now: float) -> None:
        """A read or a write: a sliding lifetime begins again."""
        if self.ttl is not None:
            self.expires = now + self.ttl

    def headers(self) -> dict[str, str]:
        """What every answer about it says."""
        told = {"stream-next-offset": offset_text(self.tail)}
        if self.closed:
            told["stream-closed"] = "true"
        return told


class Streams:
    """The streams of one server by path, and the rules."""

    def __init__(self) -> None:
        self.table: dict[str, Stream] = {}
        #: Streams that were hidden, shown to forks or removed (`gone`), for whoever keeps them.
        self.changed: list[Stream] = []
        self._wakes: dict[str, dict[int, Callable[[], None]]] = {}
        self._next = 0

    # --- looking -------------------------------------------------------------------------------

    def find(self, path: str, now: float) -> Stream:
        """The stream. 404 for none, 410 for one that only its forks need."""
        stream = self._live(path, now)
        if stream is None:
            raise Refusal(404, "there is no such stream")
        if stream.hidden:
            raise Refusal(410, "this stream was deleted")
        return stream

    def _live(self, path: str, now: float) -> Stream | None:
        stream = self.table.get(path)
        if stream is not None and stream.expires is not None and now >= stream.expires:
            self._remove(stream)
            stream = self.table.get(path)
        return stream

    def subscribe(self, path: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when the stream changed; returns what ends that."""
        self._next += 1
        number = self._next
        self._wakes.setdefault(path, {})[number] = wake

        def stop() -> None:
            wakes = self._wakes.get(path)
            if wakes is not None:
                wakes.pop(number, None)
                if not wakes:
                    self._wakes.pop(path, None)

        return stop

    def _wake(self, path: str) -> None:
        for wake in list(self._wakes.get(path, {}).values()):
            wake()

    # --- creating ------------------------------------------------------------------------------

    def plan_create(self, path: str, wanted: Create, now: float) -> Answer | Stream:
        """``PUT``: the new stream for `add`; 200 when it is there with the same configuration, 409
        with another."""
        source = self._source(wanted, now) if wanted.source is not None else None
        known = self._live(path, now)
        if known is not None:
            if known.hidden or not _same(known, wanted, source):
                raise Refusal(409, "a stream with another configuration is at this path")
            return Answer(status=200, headers=self._created(known))
        content_type = wanted.content_type
        if source is not None:
            content_type = content_type or source.content_type
            if media_type(content_type) != media_type(source.content_type):
                raise Refusal(409, "a fork has the content type of its source")
        stream = Stream(
            path=path,
            id=secrets.token_hex(12),
            content_type=content_type or "application/octet-stream",
            ttl=wanted.ttl,
            expires_at=wanted.expires_at,
            expires_text=wanted.expires_text,
        )
        if source is not None:
            self._inherit(stream, source, wanted)
        if wanted.body:
            body = wanted.body
            stream.add(flatten(body, empty=True) if stream.kind == "json" else [body])
        stream.closed = wanted.closed
        stream.expires = stream.expires_at
        stream.touch(now)
        return stream

    def add(self, stream: Stream) -> Answer:
        """Take a planned stream in: 201."""
        source = self.table.get(stream.source) if stream.source is not None else None
        if source is not None:
            source.forks += 1
            self.changed.append(source)
        self.table[stream.path] = stream
        return Answer(status=201, headers=self._created(stream))

    def _created(self, stream: Stream) -> dict[str, str]:
        return {**stream.headers(), "content-type": stream.content_type}

    def _source(self, wanted: Create, now: float) -> Stream:
        source = self._live(wanted.source or "", now)
        if source is None:
            raise Refusal(404, "the stream to fork does not exist")
        if source.hidden:
            raise Refusal(409, "the stream to fork was deleted")
        return source

    def _inherit(self, stream: Stream, source: Stream, wanted: Create) -> None:
        at = source.tail if wanted.fork_at is None else wanted.fork_at
        if at > source.tail:
            raise InputError("the fork offset is beyond the end of the source")
        stream.pieces = [piece for piece in source.pieces if piece.end <= at]
        stream.tail = at
        stream.source, stream.fork_at, stream.fork_sub = source.path, at, wanted.fork_sub
        if wanted.fork_sub:
            following = source.after(at)
            if not following:
                raise InputError("the fork sub-offset is beyond the end of the source")
            stream.add(_slice(stream.kind, following[0].parts, wanted.fork_sub))
        if wanted.ttl is None and wanted.expires_at is None:
            stream.ttl = source.ttl
            stream.expires_at, stream.expires_text = source.expires_at, source.expires_text

    # --- writing -------------------------------------------------------------------------------

    def plan_append(self, path: str, wanted: Append, now: float) -> Answer | Change:
        """``POST``: the change for `apply`, or the answer to what changes nothing. Checks come in
        the protocol's order: closed, type, producer, sequence."""
        stream = self.find(path, now)
        if stream.closed:
            return self._append_closed(stream, wanted)
        if wanted.body:
            if wanted.content_type is None:
                raise InputError("'Content-Type' is needed with a body", field="content-type")
            if media_type(wanted.content_type) != media_type(stream.content_type):
                raise Refusal(409, "the content type differs from the stream's")
        elif not wanted.close:
            raise InputError("an empty body appends nothing; 'Stream-Closed: true' closes")
        parts: list[bytes] = []
        if wanted.body:
            json = stream.kind == "json"
            parts = flatten(wanted.body, empty=False) if json else [wanted.body]
        if wanted.producer is not None:
            duplicate = _check_producer(stream, wanted.producer)
            if duplicate is not None:
                return duplicate
        seq = wanted.seq
        before = stream.last_seq
        if seq is not None and before is not None and seq.encode() <= before.encode():
            raise Refusal(409, "'Stream-Seq' must grow")
        return Change(parts=parts, close=wanted.close, seq=seq, producer=wanted.producer, time=now)

    def apply(self, stream: Stream, change: Change) -> Answer:
        """Make a planned change, and tell the readers."""
        stream.take(change)
        headers: dict[str, str] = {}
        if change.producer is not None:
            _, epoch, seq = change.producer
            headers = {"producer-epoch": str(epoch), "producer-seq": str(seq)}
        self._wake(stream.path)
        fresh = change.producer is not None and bool(change.parts)
        return Answer(status=200 if fresh else 204, headers={**stream.headers(), **headers})

    def _append_closed(self, stream: Stream, wanted: Append) -> Answer:
        headers = stream.headers()
        if wanted.producer is not None and wanted.producer == stream.closed_by:
            _, epoch, seq = wanted.producer
            headers |= {"producer-epoch": str(epoch), "producer-seq": str(seq)}
            return Answer(status=204, headers=headers)
        if wanted.close and not wanted.body and wanted.producer is None:
            return Answer(status=204, headers=headers)
        raise Refusal(
            409, "the stream is closed", **{k.replace("-", "_"): v for k, v in headers.items()}
        )

    def delete(self, path: str, now: float) -> None:
        """``DELETE``: gone at once, or hidden for as long as forks need it."""
        self._remove(self.find(path, now))

    def _remove(self, stream: Stream) -> None:
        stream.gone = True
        self.changed.append(stream)
        if stream.forks:
            stream.hidden, stream.expires = True, None
            self._wake(stream.path)
            return
        del self.table[stream.path]
        self._wake(stream.path)
        source = self.table.get(stream.source) if stream.source is not None else None
        if source is not None:
            source.forks -= 1
            self.changed.append(source)
            if source.hidden and not source.forks:
                self._remove(source)


def _same(known: Stream, wanted: Create, source: Stream | None) -> bool:
    content_type = wanted.content_type
    if source is not None:
        content_type = content_type or source.content_type
        at = known.fork_at if wanted.fork_at is None else wanted.fork_at
        if (known.source, known.fork_at, known.fork_sub) != (source.path, at, wanted.fork_sub):
            return False
        inherits = wanted.ttl is None and wanted.expires_at is None
    else:
        if known.source is not None:
            return False
        inherits = False
    same_life = inherits or (known.ttl, known.expires_at) == (wanted.ttl, wanted.expires_at)
    kind = media_type(content_type or "application/octet-stream")
    return same_life and kind == media_type(known.content_type) and known.closed == wanted.closed


def _slice(kind: str, parts: list[bytes], count: int) -> list[bytes]:
    if kind == "json":
        if count > len(parts):
            raise InputError("the fork sub-offset is beyond that append")
        return parts[:count]
    whole = b"".join(parts)
    if count > len(whole):
        raise InputError("the fork sub-offset is beyond that append")
    return [whole[:count]]


def _check_producer(stream: Stream, producer: tuple[str, int, int]) -> Answer | None:
    """None for a new request, the answer for a duplicate. Raises `Refusal` otherwise."""
    name, epoch, seq = producer
    known = stream.producers.get(name)
    if known is None:
        if seq != 0:
            raise _gap(0, seq)
        return None
    if epoch < known.epoch:
        raise Refusal(403, "a newer epoch of this producer writes", producer_epoch=str(known.epoch))
    if epoch > known.epoch:
        if seq != 0:
            raise InputError("a new epoch begins with sequence 0")
        return None
    if seq <= known.seq:
        headers: dict[str, Any] = {
            **stream.headers(),
            "producer-epoch": str(known.epoch),
            "producer-seq": str(known.seq),
        }
        return Answer(status=204, headers=headers)
    if seq > known.seq + 1:
        raise _gap(known.seq + 1, seq)
    return None


def _gap(expected: int, received: int) -> Refusal:
    return Refusal(
        409,
        "requests of this producer are missing",
        producer_expected_seq=str(expected),
        producer_received_seq=str(received),
    )
