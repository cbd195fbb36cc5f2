"""The base of the wires that send JSON chunks: chunks to SSE frames, skipping, resuming.

Always true: every frame has its own ``id``; the last frame of an event carries the event's cursor,
the ones before it ``cursor.k`` (`wire.place`); so a reader that resumes at any id gets exactly the
frames that it misses, and skipping takes the same path as sending.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import PartDelta, Reconnect, RunBudget, StepReset
from tokenwire.wire.base import EncodeJSON, Steady
from tokenwire.wire.place import Place
from tokenwire.wire.speakers import RootAgent
from tokenwire.wire.view import PartView, RunView

__all__ = [
    "GAP",
    "Chunk",
    "ChunkEncoder",
    "Common",
    "budget_fields",
    "clean",
    "dumps",
    "dumps_text",
]

dumps = msgspec.json.encode

Chunk = dict[str, Any]
#: The chunk that each delta of a part is, with `GAP` as its text, and what text of deltas, as JSON
#: has it, changes beside the part.
Common = tuple[Chunk, Callable[[bytes], None] | None]

#: What stands in the place of a delta's text, and of a cursor, while their places are looked for.
GAP = "~text~"
_CURSORS = "~cursor-a~", "~cursor-b~"


def clean(**fields: Any) -> Chunk:
    """A chunk without the fields that are None: these wires have no null."""
    return {name: value for name, value in fields.items() if value is not None}


def budget_fields(event: RunBudget) -> Chunk:
    """What a budget's event says of it."""
    fields = (event.name, event.unit, event.left, event.most, event.resets)
    return clean(**dict(zip(("name", "unit", "left", "most", "resets"), fields, strict=True)))


def dumps_text(value: Any) -> str:
    """A JSON value as text; a text stays itself."""
    return value if isinstance(value, str) else dumps(value).decode()


class ChunkEncoder:
    """Base of the encoders that send events as JSON chunks.

    A subclass implements `_render` (event to chunks) and, where a resumed connection must receive
    open parts again, `_track`, `_reopened_parts` and `_client_names`; and `_common` for deltas.
    """

    name: ClassVar[str]
    content_type: ClassVar[str] = "text/event-stream"
    headers: ClassVar[dict[str, str]] = {}
    stateless: ClassVar[bool] = False
    encode_json: EncodeJSON | None = None
    #: Whether the wire can say who speaks. On others only the root agent's words are the answer.
    subagents: ClassVar[bool] = False
    #: What belongs to the reader and its place, not to the run.
    of_reader: ClassVar[frozenset[str]] = frozenset({"_place"})

    def __init__(self, *, place: Place | None = None) -> None:
        self.view = RunView()
        self._root = RootAgent()
        #: The client has received the wire's end; nothing follows.
        self.ended = False
        self._place = place if place is not None and place.frames is not None else None

    # --- the contract ----------------------------------------------------------------------------

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The frames of ``event``."""
        place = self._place
        if place is None or event.seq > place.offset:
            return self.frames(self.chunks(event), cursor)
        # The reader resumes in the middle of this event.
        self._place = None
        chunks, seen_frames = self._rendered(event), place.frames or 0
        for chunk in chunks[:seen_frames]:
            self._track(chunk)
        reopened = [self._frame(chunk, None) for chunk in self._reopened_parts()]
        rest = [self._deliver(chunk) for chunk in chunks[seen_frames:]]
        return b"".join([*reopened, self.frames(rest, cursor, seen_frames)])

    def skip(self, event: AnyEvent) -> None:
        """Apply ``event``, which the client has received."""
        for chunk in self._rendered(event):
            self._track(chunk)
        self.ended = False

    def reopen(self) -> bytes:
        """Open parts again, where the wire needs it."""
        if self._place is not None:
            return b""  # `encode` sends it inside the event that was cut
        return b"".join([self._frame(chunk, None) for chunk in self._reopened_parts()])

    def steady(self, delta: PartDelta) -> Steady | None:
        """What the deltas that follow ``delta`` look like; see `SteadyEncoder`."""
        part = self.view.open.get(delta.part)
        if part is None or part.kind != delta.kind or not delta.text:
            return None
        if self.ended or self._place is not None:
            return None
        if not self.subagents and self._root.hides(delta):
            return None
        common = self._common(part)
        return None if common is None else self._around(part, *common)

    def _around(
        self, part: PartView, chunk: Chunk, change: Callable[[bytes], None] | None
    ) -> Steady | None:
        """The bytes around cursor and text in a frame with ``chunk``."""
        client_chunk = self._client_names(chunk)
        frame, other = (self._frame(client_chunk, cursor) for cursor in _CURSORS)
        gap, mark = b'"%b"' % GAP.encode(), _CURSORS[0].encode()
        has_cursor = frame != other
        before, _, after = frame.partition(gap)
        if frame.count(gap) != 1 or (has_cursor and frame.count(mark) != 1):
            return None  # a name of a client's says the same
        head, middle = before, b""
        if has_cursor:
            if mark not in before:
                return None
            head, _, middle = before.partition(mark)

        def take(text: bytes, count: int) -> None:
            part.add_json(text)
            if change is not None:
                change(text)

        return Steady(
            head=head if has_cursor else head + b'"',
            middle=middle + b'"' if has_cursor else b"",
            tail=b'"' + after,
            take=take,
            has_cursor=has_cursor,
        )

    def finish(self) -> bytes:
        """The wire's sentinel; most have none."""
        return b""

    def heartbeat(self) -> bytes:
        """An SSE comment."""
        return b": keep-alive\n\n"

    def farewell(self, event: Reconnect) -> bytes | None:
        """These wires have no word for it."""
        return None

    def state(self) -> dict[str, Any]:
        """Its options, and what the events so far have made of it: not a copy."""
        return {name: value for name, value in vars(self).items() if name not in self.of_reader}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a copy of the state of an encoder with the same options."""
        vars(self).update(state)

    # --- for those who want values instead of bytes ----------------------------------------------

    def chunks(self, event: AnyEvent) -> list[Chunk]:
        """The chunks of ``event`` as JSON objects (Durable Streams, WebSocket)."""
        if self.ended:
            return []
        return [self._deliver(chunk) for chunk in self._rendered(event)]

    def frames(self, chunks: list[Chunk], cursor: str, seen_frames: int = 0) -> bytes:
        """Chunks as SSE frames, with ids that end at ``cursor``."""
        last = len(chunks) - 1
        return b"".join(
            self._frame(chunk, cursor if i == last else f"{cursor}.{seen_frames + i + 1}")
            for i, chunk in enumerate(chunks)
        )

    def _rendered(self, event: AnyEvent) -> list[Chunk]:
        """The chunks of ``event``, without what the wire has no word for."""
        if not self.subagents and self._root.hides(event):
            return []
        if isinstance(event, StepReset) and event.step in self.view.tasks:
            self.view.apply(event)  # nothing that a reader has is void; its new start follows
            return []
        return self._render(event)

    # --- what subclasses implement ---------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        raise NotImplementedError

    def _track(self, chunk: Chunk) -> None:
        """Record what the client has open."""

    def _reopened_parts(self) -> list[Chunk]:
        return []

    def _client_names(self, chunk: Chunk) -> Chunk:
        return chunk

    def _common(self, part: PartView) -> Common | None:
        """What each of the deltas of an open part is, from now on, whatever its text; None where
        they differ."""
        return None

    def _deliver(self, chunk: Chunk) -> Chunk:
        client_chunk = self._client_names(chunk)
        self._track(chunk)
        return client_chunk

    def _frame(self, chunk: Chunk, frame_id: str | None) -> bytes:
        if frame_id is None:
            return b"data: %b\n\n" % dumps(chunk)
        return b"id: %b\ndata: %b\n\n" % (frame_id.encode("ascii"), dumps(chunk))
