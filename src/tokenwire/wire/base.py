"""The encoder contract: how a run looks to one kind of client.

Always true: an encoder is a fold. Its bytes for event n, and its state after it, depend only on
events 1..n; it reads no clock and does no I/O. So a resumed reader gets the same bytes, or, where
its wire requires open parts to be opened again, a re-opening and then only what it misses: cut
anywhere, resume, and the client's final message is the same.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from tokenwire.events.codec import AnyEvent

__all__ = ["Encoder"]


class Encoder(Protocol):
    """Events of one run to one client's bytes."""

    #: The media type of the response.
    content_type: ClassVar[str]
    #: Response headers that this wire's clients look for, beyond the server's own.
    headers: ClassVar[dict[str, str]]

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The bytes of ``event`` (may be empty). ``cursor`` is its opaque position, for
        wires that carry one (SSE ``id:``)."""
        ...

    def skip(self, event: AnyEvent) -> None:
        """Apply ``event`` to the state without output: the client has received it already."""
        ...

    def reopen(self) -> bytes:
        """After the last `skip` and before the first `encode`: what a resumed connection must
        receive before the rest (open parts opened again). Empty where the wire needs nothing."""
        ...

    def finish(self) -> bytes:
        """After the terminal event: the wire's sentinel (``data: [DONE]``), or nothing."""
        ...

    def heartbeat(self) -> bytes:
        """Bytes that keep an idle connection open and change nothing: an SSE comment."""
        ...
