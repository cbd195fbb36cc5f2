"""Reading a run as server-sent events: one connection."""

from __future__ import annotations

from typing import Protocol

from tokenwire.client.origin import Origin, read_some, response_error, run_of_path
from tokenwire.client.reconnect import Patience
from tokenwire.errors import NetworkError, ServerError, ServerUnavailableError
from tokenwire.framing.sse import SSEDecoder
from tokenwire.providers.http.response import Response

__all__ = ["Connection", "SSEConnection", "open_events", "open_sse"]


class Connection(Protocol):
    """One connection of a reader, whatever its wire."""

    #: A live connection is never silent, so that silence means that it is lost.
    beats: bool
    #: The run has ended and all of it was read; no event will follow.
    over: bool

    async def read(self) -> list[tuple[str, bytes]] | None:
        """The next events as (cursor, JSON), with an empty cursor for those that are not in the
        log; an empty list is a sign of life; None is the end."""
        ...

    def abort(self, error: ServerError) -> None:
        """Abort: a pending read raises ``error``."""
        ...

    async def aclose(self) -> None:
        """Close the connection and drop what was not read."""
        ...


class SSEConnection:
    """An open response that is an event stream."""

    beats = True

    def __init__(self, response: Response) -> None:
        self._response = response
        self.over = response.status == 204
        self._decoder = SSEDecoder()
        self._ended = False
        self._aborted: ServerError | None = None

    async def read(self) -> list[tuple[str, bytes]] | None:
        """The frames that the next bytes complete. An incomplete last block is dropped."""
        try:
            data = await read_some(self._response)
        except ServerError as error:
            raise (self._aborted or error) from error
        if not data:
            self._ended = True
            return None
        return [(frame.id, frame.data) for frame in self._decoder.feed(data)]

    def abort(self, error: ServerError) -> None:
        """Abort the response."""
        self._aborted = error
        self._response.abort(NetworkError(error.message))

    async def aclose(self) -> None:
        """Close the connection; a pending read raises."""
        if not self._ended:
            self.abort(ServerUnavailableError("the client closed the connection"))
        await self._response.aclose()


async def open_sse(origin: Origin, run: str, after: str | None, patience: Patience) -> Connection:
    """Request the events after ``after``. Raises the error that the server reports."""
    return await open_events(origin, f"/v1/runs/{run_of_path(run)}/events", after, patience)


async def open_events(
    origin: Origin, path: str, after: str | None, patience: Patience
) -> Connection:
    """Request the event stream at ``path`` after ``after``. Raises the error that the server
    reports."""
    headers = {"accept": "text/event-stream"}
    if after is not None:
        headers["last-event-id"] = after
    response = await origin.open(
        "GET",
        path,
        headers,
        connect=patience.connect,
        timeout=patience.connect + patience.silence,
    )
    try:
        if response.status == 204 and after is not None:
            return SSEConnection(response)
        if response.status != 200:
            raise await response_error(response)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            # A proxy responded in the server's place; retry.
            raise ServerUnavailableError(f"expected text/event-stream, got '{kind[:80]}'")
    except BaseException:
        await response.aclose()
        raise
    return SSEConnection(response)
