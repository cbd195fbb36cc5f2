"""Streams of a server's ``/v1/probe``, with the time at which each piece arrived.

Always true: it measures and judges nothing; an error is a part of the measurement.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any
from urllib.parse import urlencode

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

from tokenwire.client.origin import Origin, read_some, response_error
from tokenwire.errors import TokenwireError
from tokenwire.framing.sse import SSEDecoder

__all__ = ["Piece", "Socket", "Stream", "open_socket", "read_stream"]


class Piece(msgspec.Struct):
    """What one read gave: when (seconds after the request), its events, the comments in it."""

    at: float
    events: list[dict[str, Any]]
    comments: int


class Stream(msgspec.Struct):
    """One probe. ``status`` and ``headers`` of the response, 0 without one; ``head``: when they
    came, in seconds after the request; ``ended``: when the stream did; ``error``: why there is no
    stream, or why it broke off."""

    status: int = 0
    headers: dict[str, str] = {}
    head: float = 0.0
    pieces: list[Piece] = []
    ended: float = 0.0
    error: str | None = None
    code: str | None = None
    #: SHA-256 of the burst's events as they arrived, in that order.
    burst: str = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events, in order."""
        return [event for piece in self.pieces for event in piece.events]

    def of(self, kind: str) -> dict[str, Any] | None:
        """The first event of a type."""
        return next((event for event in self.events if event.get("type") == kind), None)


class Socket(msgspec.Struct):
    """A WebSocket: whether it was opened and answered a ping; else the status and the error."""

    is_open: bool
    status: int = 0
    error: str = ""


async def read_stream(
    origin: Origin, query: dict[str, Any], headers: dict[str, str], *, patience: float
) -> Stream:
    """The probe that ``query`` asks for. ``patience``: seconds to its end at most."""
    stream, decoder, digest = Stream(), SSEDecoder(), hashlib.sha256()
    loop = asyncio.get_running_loop()
    start = loop.time()
    try:
        async with asyncio.timeout(patience):
            response = await origin.open(
                "GET",
                f"/v1/probe?{urlencode(query)}",
                {"accept": "text/event-stream", **headers},
                timeout=patience,
            )
            try:
                stream.status, stream.headers = response.status, dict(response.headers)
                stream.head = loop.time() - start
                if response.status != 200:
                    raise await response_error(response)
                while data := await read_some(response):
                    _add(stream, decoder, data, loop.time() - start, digest)
            finally:
                await response.aclose()
    except TokenwireError as error:
        stream.error, stream.code = error.message, error.code
    except TimeoutError:
        stream.error = f"no end after {patience:.0f} s"
    stream.ended = loop.time() - start
    stream.burst = digest.hexdigest()
    return stream


def _add(stream: Stream, decoder: SSEDecoder, data: bytes, at: float, digest: Any) -> None:
    before = decoder.comments
    events = []
    for frame in decoder.feed(data):
        event = msgspec.json.decode(frame.data)
        if not isinstance(event, dict):
            continue
        if event.get("type") == "burst":
            digest.update(frame.data.encode() if isinstance(frame.data, str) else frame.data)
        events.append(event)
    stream.pieces.append(Piece(at, events, decoder.comments - before))


async def open_socket(origin: Origin, *, patience: float) -> Socket:
    """Open ``/ws``, and send it a ping."""
    try:
        async with asyncio.timeout(patience):
            headers = await origin.credentials()
            async with connect(
                origin.socket_url,
                additional_headers=headers,
                compression=None,
                open_timeout=patience,
            ) as socket:
                await (await socket.ping())
                return Socket(True)
    except InvalidStatus as error:
        return Socket(False, error.response.status_code, f"status {error.response.status_code}")
    except TimeoutError:
        return Socket(False, error=f"no answer within {patience:.0f} s")
    except (InvalidHandshake, WebSocketException, OSError, TokenwireError) as error:
        return Socket(False, error=str(error)[:200] or type(error).__name__)
