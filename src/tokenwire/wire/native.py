"""The native wire: every event of a run as one SSE block, ``id`` its cursor, ``data`` its JSON.

Always true: the encoder has no state, so resuming after any cursor gives exactly the missing bytes;
one event is one ``id`` line and one ``data`` line, whatever the model wrote; blocks carry no
``event`` line, so a browser's ``onmessage`` sees them all and the JSON's ``type`` tells them apart.
"""

from __future__ import annotations

from typing import ClassVar

from tokenwire.events.codec import AnyEvent, encode
from tokenwire.events.model import Reconnect

__all__ = ["NativeEncoder", "block", "socket_message"]


_BLOCK = b"id: %b\ndata: %b\n\n"


def block(data: bytes, cursor: bytes) -> bytes:
    """One SSE block of canonical JSON (which holds no line end) at ``cursor``."""
    return _BLOCK % (cursor, data)


def socket_message(run: str, items: list[tuple[str, bytes]]) -> bytes:
    """One WebSocket message with events of a run: ``(cursor, canonical JSON)`` each."""
    events = [b'{"cursor":"%b","event":%b}' % (at.encode("ascii"), data) for at, data in items]
    return b'{"op":"events","run":"%b","events":[%b]}' % (run.encode("ascii"), b",".join(events))


class NativeEncoder:
    """Events to SSE blocks; every reader of a run gets the same bytes, so they are shared."""

    name: ClassVar[str] = "native"
    content_type: ClassVar[str] = "text/event-stream"
    headers: ClassVar[dict[str, str]] = {}
    stateless: ClassVar[bool] = True
    ended: bool = False

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """One block."""
        return block(encode(event), cursor.encode("ascii"))

    #: One block from the stored canonical JSON and its cursor in ASCII, without decoding it.
    encode_json = staticmethod(block)
    form: ClassVar[bytes] = _BLOCK

    def farewell(self, event: Reconnect) -> bytes | None:
        """A block without an id: this event is not in the log and moves no cursor."""
        return b"data: %b\n\n" % encode(event)

    def skip(self, event: AnyEvent) -> None:
        """No state to update."""

    def reopen(self) -> bytes:
        """Nothing to open again."""
        return b""

    def finish(self) -> bytes:
        """The ``run-end`` event is the end."""
        return b""

    def heartbeat(self) -> bytes:
        """An SSE comment."""
        return b": keep-alive\n\n"
