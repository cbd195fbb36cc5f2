"""Reading a run as server-sent events: one connection."""

from __future__ import annotations

from typing import Protocol

from tokenwire.client.origin import Origin, refusal, run_of_path
from tokenwire.client.reconnect import Patience
from tokenwire.errors import NetworkError
from tokenwire.framing.sse import SSEDecoder
from tokenwire.providers.http.connection import Response

__all__ = ["Connection", "SSEConnection", "open_sse"]


class Connection(Protocol):
    """One connection of a reader, whatever its wire."""

    #: It is never silent while it lives, so silence can be taken for its death.
    beats: bool
    #: The server said that nothing will follow, ever: the run has ended and all of it was read.
    over: bool

    async def read(self) -> list[tuple[str, bytes]] | None:
        """What came: (cursor, JSON) of events, with an empty cursor for those that are not in the
        log; an empty list is a sign of life; None is the end."""
        ...

    def abort(self, error: NetworkError) -> None:
        """Break it off: whoever reads gets ``error``."""
        ...

    async def aclose(self) -> None:
        """Let it go; what was not read is lost."""
        ...


class SSEConnection:
    """An answered ``GET /v1/runs/{run}/events``."""

    beats = True

    def __init__(self, response: Response) -> None:
        self._response = response
        self.over = response.status == 204
        self._decoder = SSEDecoder()
        self._ended = False

    async def read(self) -> list[tuple[str, bytes]] | None:
        """The frames that the next bytes complete. A block that the end cuts off is dropped."""
        data = await self._response.read()
        if not data:
            self._ended = True
            return None
        return [(frame.id, frame.data) for frame in self._decoder.feed(data)]

    def abort(self, error: NetworkError) -> None:
        """Break it off."""
        self._response.abort(error)

    async def aclose(self) -> None:
        """Close the connection; whoever still reads it is told."""
        if not self._ended:
            self._response.abort(NetworkError("the connection was closed here"))
        await self._response.aclose()


async def open_sse(origin: Origin, run: str, after: str | None, patience: Patience) -> Connection:
    """Ask for the events after ``after``. Raises what the server says."""
    headers = {"accept": "text/event-stream"}
    if after is not None:
        headers["last-event-id"] = after
    response = await origin.open(
        "GET",
        f"/v1/runs/{run_of_path(run)}/events",
        headers,
        connect=patience.connect,
        timeout=patience.connect + patience.silence,
    )
    try:
        if response.status == 204 and after is not None:
            return SSEConnection(response)
        if response.status != 200:
            raise await refusal(response)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            # Somebody in between answers in the server's place; that passes.
            raise NetworkError(f"an event stream was due, not '{kind[:80]}'")
    except BaseException:
        await response.aclose()
        raise
    return SSEConnection(response)
