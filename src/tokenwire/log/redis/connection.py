"""One connection to a Redis server: commands of one turn in one write, answers in order.

Always true: answers belong to commands by their order and by nothing else, so a caller that gives
up leaves its place in the line, and a connection in doubt is dropped, never used again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from hiredis import HiredisError, Reader, pack_command

from tokenwire.errors import ConfigError
from tokenwire.log.redis.url import RedisSettings

__all__ = ["Address", "Connection", "ReplyError", "WakeWire", "Word", "encode", "open_wire"]

#: Host and port.
Address = tuple[str, int]
#: One word of a command.
Word = str | bytes | int | float

#: What the parser answers while an answer is not whole.
NOTHING: Any = object()


class ReplyError(Exception):
    """An error that the server answered; `code` is its first word (``MOVED``, ``OOM``, ``ERR``)."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


def encode(*words: Word) -> bytes:
    """A command as it goes over the wire."""
    return pack_command(words)  # type: ignore[arg-type]


class Connection(asyncio.Protocol):
    """An open connection. `send` raises `ConnectionError` once it is lost."""

    def __init__(self) -> None:
        self._reader = Reader(replyError=ReplyError, notEnoughData=NOTHING)
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int]] = deque()
        self._answers: list[Any] = []
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        #: Why it is of no use any more.
        self.failure: Exception | None = None

    def send(self, data: bytes, answers: int = 1) -> asyncio.Future[list[Any]]:
        """Send one or more encoded commands; their answers come as a list. Errors of the server
        are answers too (`ReplyError`), not exceptions."""
        if self.failure is not None:
            raise ConnectionError(str(self.failure))
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append((future, answers))
        self.write(data)
        return future

    def write(self, data: bytes) -> None:
        """Send without expecting an answer of its own."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if self._transport is not None and self.failure is None:
            self._transport.write(data)

    def abort(self, reason: str) -> None:
        """Drop the connection at once; everybody who waits is told."""
        if self.failure is None:
            self._end(ConnectionError(reason))
        if self._transport is not None:
            self._transport.abort()

    def _end(self, reason: Exception) -> None:
        self.failure = reason
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                error = ConnectionError(str(reason))
                error.__cause__ = reason
                future.set_exception(error)

    def answered(self, answer: Any) -> None:
        """One answer has come."""
        if not self._waiting:
            self.abort("the server sent an unexpected reply")
            return
        self._answers.append(answer)
        future, count = self._waiting[0]
        if len(self._answers) == count:
            self._waiting.popleft()
            answers, self._answers = self._answers, []
            if not future.done():
                future.set_result(answers)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no such class
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        try:
            while self.failure is None:
                answer = reader.gets()
                if answer is NOTHING:
                    return
                self.answered(answer)
        except HiredisError as error:
            self.abort(f"the server does not speak the protocol ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.failure is None:
            self._end(exc or ConnectionError("the server closed the connection"))


class WakeWire(Connection):
    """A connection of subscriptions: after `listen`, everything that comes goes to ``hear``."""

    def __init__(self) -> None:
        super().__init__()
        self._hear: Callable[[Any], None] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def listen(self, hear: Callable[[Any], None]) -> None:
        self._hear = hear

    async def ended(self) -> None:
        """Returns when the connection is lost."""
        await asyncio.shield(self._ended)

    def answered(self, answer: Any) -> None:
        if self._hear is None:
            super().answered(answer)
        else:
            self._hear(answer)

    def _end(self, reason: Exception) -> None:
        super()._end(reason)
        if not self._ended.done():
            self._ended.set_result(None)


def make_context(settings: RedisSettings) -> ssl.SSLContext | None:
    """How servers are known and told who we are; `ConfigError` for files that are no such thing."""
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_certs)
        if settings.ssl_certfile is not None:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "cannot read the certificates of the store URL (ssl_ca_certs, ssl_certfile, "
            f"ssl_keyfile: PEM files): {error.strerror or type(error).__name__}"
        ) from error
    context.check_hostname = settings.ssl_check_hostname
    return context


async def open_wire(
    kind: Callable[[], Any],
    address: Address,
    settings: RedisSettings,
    context: ssl.SSLContext | None,
    commands: Sequence[bytes] = (),
    *,
    user: bool = True,
) -> tuple[Any, list[Any]]:
    """A connection of ``kind`` whose server knows us (with ``user``), and its answers to
    ``commands``. Raises `OSError` when nobody is there, `ReplyError` when we are refused."""
    host, port = address
    loop = asyncio.get_running_loop()
    name = host if context is not None else None
    hello = list(commands)
    greetings = 0
    if user and settings.password is not None:
        who = (settings.username,) if settings.username is not None else ()
        hello.insert(0, encode("AUTH", *who, settings.password))
        greetings = 1
    if user and settings.database:
        hello.insert(greetings, encode("SELECT", settings.database))
        greetings += 1
    wire: Any = None
    try:
        async with asyncio.timeout(min(2.0, settings.timeout / 2)):
            _, wire = await loop.create_connection(
                kind, host, port, ssl=context, server_hostname=name
            )
            if not hello:
                return wire, []
            answers = await wire.send(b"".join(hello), len(hello))
    except BaseException as error:
        if wire is not None:
            wire.abort("the connection was given up while it was being made")
        if isinstance(error, TimeoutError):
            what = "TLS" if context is not None and wire is None else "answer"
            raise TimeoutError(f"no {what} from {host}:{port}") from error
        raise
    for answer in answers[:greetings]:
        if isinstance(answer, ReplyError):
            wire.abort("refused")
            raise answer
    return wire, answers[greetings:]
