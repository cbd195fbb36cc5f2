"""Reading a run over ``/ws``: one socket, one followed run.

Always true: the socket connects to the server's own origin without redirects or proxies; pings
distinguish a dead peer from a quiet one, so that silence alone ends nothing.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tokenwire.client.origin import Origin, error_of_body, reason_of
from tokenwire.client.reconnect import Patience, retry_after
from tokenwire.client.sse import Connection
from tokenwire.errors import (
    NotAuthenticatedError,
    ServerError,
    ServerProtocolError,
    ServerUnavailableError,
)

__all__ = ["SocketConnection", "open_socket"]

#: An event has at most 1 MiB, a message of several about 48 KiB.
_MOST_MESSAGE = 4 << 20
#: The status with which the server means each code that a message may bring.
_STATUS = {"not_authenticated": 401, "forbidden": 403, "role_required": 403, "unknown_run": 404}
_STATUS |= {"gone": 410, "bad_cursor": 400, "bad_request": 400, "busy": 429, "limit_exceeded": 413}
#: The library logs a peer's failures at debug level and above; they are raised as well.
_log = logging.getLogger("tokenwire.client.websocket")


class _One(msgspec.Struct):
    event: msgspec.Raw
    cursor: str = ""


class _Message(msgspec.Struct):
    op: str
    events: list[_One] = []
    error: dict[str, Any] = {}
    after_ms: int = 1000
    reason: str | None = None


_decoder = msgspec.json.Decoder(_Message)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class SocketConnection:
    """An open socket that follows a run."""

    beats = False

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.over = False

    async def read(self) -> list[tuple[str, bytes]] | None:
        """The events of the next message."""
        if self.over:
            return None
        try:
            data = await self._socket.recv(decode=False)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else "no close frame"
            raise ServerUnavailableError(f"the socket closed ({code})") from closed
        try:
            message = _decoder.decode(data)
        except msgspec.DecodeError as error:
            raise ServerProtocolError(
                "the server sent a message that is not tokenwire's"
            ) from error
        if message.op == "events":
            return [(one.cursor, bytes(one.event)) for one in message.events]
        if message.op == "error":
            status = _STATUS.get(str(message.error.get("code")), 500)
            raise error_of_body(message.error, status, None)
        if message.op == "reconnect":
            event = {"type": "reconnect", "after_ms": message.after_ms, "reason": message.reason}
            return [("", msgspec.json.encode(event))]
        self.over = message.op == "end"
        return []

    def abort(self, error: ServerError) -> None:
        """Abort; the library ends a pending read."""
        self._socket.transport.abort()

    async def aclose(self) -> None:
        """Close the socket at once."""
        self._socket.transport.abort()
        await self._socket.wait_closed()


async def open_socket(
    origin: Origin, run: str, after: str | None, patience: Patience
) -> Connection:
    """Open a socket and follow ``run`` after ``after``. A key that was refused is renewed once."""
    key = await origin.credentials()
    try:
        socket = await _opened(origin, key, patience)
    except NotAuthenticatedError:
        if not await origin.renew(key):
            raise
        socket = await _opened(origin, await origin.credentials(), patience)
    ask = {"op": "follow", "id": 1, "run": run, "after": after}
    try:
        await socket.send(msgspec.json.encode({k: v for k, v in ask.items() if v}).decode())
    except ConnectionClosed as error:
        raise ServerUnavailableError("the server closed the socket at once") from error
    except BaseException:
        socket.transport.abort()
        raise
    return SocketConnection(socket)


async def _opened(origin: Origin, key: dict[str, str], patience: Patience) -> ClientConnection:
    try:
        return await _Connect(
            origin.socket_url,
            additional_headers=key,
            subprotocols=["tokenwire"],  # type: ignore[list-item]
            compression=None,
            proxy=None,
            open_timeout=patience.connect,
            ping_interval=patience.silence / 2,
            ping_timeout=patience.silence / 2,
            close_timeout=1.0,  # a peer that answers no ping sends no close frame either
            max_size=_MOST_MESSAGE,
            logger=_log,
        )
    except InvalidStatus as error:
        response = error.response
        wait = retry_after(response.headers.get("retry-after"), time.time())
        raise error_of_body(_error_of(response.body), response.status_code, wait) from error
    except (InvalidHandshake, ConnectionClosed, EOFError) as error:
        raise ServerUnavailableError(f"{origin.url} did not accept a WebSocket") from error
    except TimeoutError as error:
        raise ServerUnavailableError(f"{origin.url} does not respond") from error
    except OSError as error:
        raise ServerUnavailableError(
            f"cannot connect to {origin.url}: {reason_of(error)}"
        ) from error


def _error_of(body: bytes | bytearray | None) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(bytes(body or b""))
    except msgspec.DecodeError:
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}
