"""What all WebSockets share: accepting, one lock around sending, the ticker, closing.

Always true: messages go out whole and in order; a socket that closes detaches its readers and stops
no run; when the server stops, it closes the socket so that the client reconnects; a peer that does
not read gets a close frame behind what it has not read; whatever fails, the peer gets a close frame
with the request's id, and the log has the reason under it, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import msgspec
from starlette.types import Message, Receive, Scope, Send

from tokenwire.errors import GoneError, TokenwireError
from tokenwire.observe.facts import FollowerGone
from tokenwire.observe.hooks import report
from tokenwire.server.edge.connections import REVOKED, Connection, SlowReader
from tokenwire.server.edge.guard import parse_json, request_info
from tokenwire.server.edge.transport import transport_of
from tokenwire.server.state import State
from tokenwire.server.tokens.grant import within

__all__ = [
    "MANY",
    "MAX_REASON",
    "POLICY",
    "RESTART",
    "TRY_AGAIN",
    "Socket",
    "SocketEndpoint",
    "erased_under_reader",
]

_log = logging.getLogger("tokenwire.server")

#: Close codes: a fault of the server, the server stops, try again later, a rule was broken.
FAULT, RESTART, TRY_AGAIN, POLICY = 1011, 1012, 1013, 1008
#: Records of a batch after which a reader that catches up leaves the loop to others.
MANY = 64
#: A close reason has at most 123 bytes.
MAX_REASON = 123


def erased_under_reader() -> GoneError:
    """What a reader gets whose run is erased, or not theirs any more, while they follow it."""
    return GoneError(
        "the run was deleted or has expired, or you are no member of its conversation any more"
    )


class Socket(ABC):
    """Base of all WebSockets. A subclass implements `take` and `leave`."""

    #: Its name in metrics and logs.
    wire: ClassVar[str] = "websocket"
    #: Whether the client is asked to reconnect when the connection is old.
    has_max_age: ClassVar[bool] = False

    def __init__(self, state: State, scope: Scope, receive: Receive, send: Send) -> None:
        self.state, self.scope = state, scope
        self.info = request_info(scope)
        self.transport = transport_of(scope)
        self._receive, self._asgi_send = receive, send
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Done when the socket is over: the peer left, or a task of the socket failed.
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leaving: asyncio.Task[None] | None = None
        self._is_closed = False
        self.connection: Connection | None = None
        #: The peer closed the socket, without being asked to.
        self.is_left = False

    # --- what subclasses implement ---------------------------------------------------------------

    @abstractmethod
    async def take(self, message: Message) -> None:
        """A message arrived."""

    async def leave(self, reason: str) -> None:
        """The server asks the client to reconnect: ``max_age`` or ``drain``."""
        await self.close(RESTART, reason)

    async def admit(self) -> bool:
        """Before `take`: whether the peer may use the socket, or was told why not."""
        return True

    async def opened(self) -> None:
        """The socket was accepted and the peer admitted."""

    def subprotocol(self, names: list[str]) -> str | None:
        """Which of the client's subprotocols is spoken: our own name, for clients that insist on
        one. It is not the one that holds a token."""
        return "tokenwire" if "tokenwire" in names else None

    def keep_alive(self) -> dict[str, Any] | None:
        """A message that keeps an idle socket open; None where the protocol's own pings do."""
        return None

    def slow_reason(self) -> str:
        """The close reason for a peer that does not read."""
        return "slow_reader"

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until the peer goes, or is asked to."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        protocol = self.subprotocol(self.scope.get("subprotocols", []))
        await self._asgi_send({"type": "websocket.accept", "subprotocol": protocol})
        connection = self.connection = self.state.connections.open(self)
        connection.unsent = self.transport.unsent
        if not self.has_max_age:
            connection.expires = float("inf")
        try:
            if await self.admit():  # at once: a message may be behind the accepted request
                connection.identity = self.info.identity
                with within(self.info.identity.grant):
                    self.spawn(self._serve(connection))
                await self._over
        except SlowReader:
            if self.transport.give_up is not None:
                self.transport.give_up(TRY_AGAIN, self.slow_reason())
        except Exception as error:
            _log.error("socket %s failed", self.info.id, exc_info=error)
            await self._break_off()
        finally:
            self.state.connections.close(connection)
            await self._stop_tasks()

    async def _break_off(self) -> None:
        await self._stop_tasks()  # one of them may be sending
        reason = f"internal error; the server's log has it under request {self.info.id}"
        if self.transport.give_up is not None:
            self.transport.give_up(FAULT, reason)
        else:
            with contextlib.suppress(SlowReader):
                await self.close(FAULT, reason)

    async def _stop_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, connection: Connection) -> None:
        await self.opened()
        while (message := await self.receive()) is not None:
            try:
                await self.state.identify.confirm(self.info.identity)
            except TokenwireError as error:
                await self.close(POLICY, error.message)
                break
            await self.take(message)
        self.is_left = connection.leaving is None and not self._is_closed
        if not self._over.done():
            self._over.set_result(None)

    async def receive(self) -> Message | None:
        """The next message; None when the peer is gone."""
        message = await self._receive()
        return message if message["type"] == "websocket.receive" else None

    def json(self, message: Message) -> Any:
        """The JSON value of a message. Raises `InputError`."""
        text = message.get("text")
        data = text.encode() if text is not None else message.get("bytes") or b""
        return parse_json(data, self.state.settings.json_depth)

    def poke(self) -> None:
        """The ticker: time for a keep-alive, or to leave."""
        connection = self.connection
        if connection is None:
            return
        connection.last_write = asyncio.get_running_loop().time()
        if connection.leaving is not None:
            if self._leaving is None:
                self._leaving = self.spawn(self._leave(connection.leaving))
        elif not self._lock.locked() and (message := self.keep_alive()) is not None:
            self.spawn(self.send(message))

    async def _leave(self, reason: str) -> None:
        if reason == REVOKED:
            await self.close(POLICY, "the key behind this connection is no longer valid")
        else:
            await self.leave(reason)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work beside the receive loop; cancelled when the socket closes, which it ends if it
        raises: nothing that fails leaves a socket that is silent."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (failure := task.exception()) is None:
            return
        if not self._over.done():
            self._over.set_exception(failure)

    def report_gone(
        self, run: str, why: str, has_left: bool, records: int, opened_at: float
    ) -> None:
        """A reader of this socket leaves ``run``. ``why``: ``closed`` where neither an end nor an
        error was reached; ``has_left``: the person left; ``opened_at``: a time of the loop."""
        connection = self.connection
        if connection is not None and why == "closed" and not has_left:
            leaving = "slow" if connection.is_slow else connection.leaving or why
            why = {"max_age": "age"}.get(leaving, leaving)
        seconds = asyncio.get_running_loop().time() - opened_at
        report(FollowerGone(run, self.wire, why, records, seconds))

    # --- sending ---------------------------------------------------------------------------------

    async def send(self, value: dict[str, Any]) -> None:
        """One JSON message."""
        await self.send_text(msgspec.json.encode(value).decode())

    async def send_text(self, text: str) -> None:
        """One message. Raises `SlowReader`."""
        connection = self.connection
        async with self._lock:
            if self._is_closed or connection is None:
                return
            try:
                await connection.write(self._asgi_send, {"type": "websocket.send", "text": text})
            except (OSError, RuntimeError):
                connection.lost = True  # closed meanwhile; the receive loop notices by itself

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket, once what is being sent is out. Raises `SlowReader`."""
        connection = self.connection
        async with self._lock:
            if self._is_closed or connection is None:
                return
            self._is_closed = True
            text = reason.encode("ascii", "replace")[:MAX_REASON].decode()
            try:
                message = {"type": "websocket.close", "code": code, "reason": text}
                await connection.write(self._asgi_send, message)
            except (OSError, RuntimeError):
                pass  # the peer closed it meanwhile


class SocketEndpoint:
    """An ASGI endpoint that serves every connection with a socket that ``make`` builds."""

    def __init__(self, make: Callable[[Scope, Receive, Send], Socket]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._make(scope, receive, send).run()
