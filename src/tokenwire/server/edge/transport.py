"""What a connection can do beyond ASGI when our own server serves it: one typed value in its scope.

Always true: on any other ASGI server every field is None, and the application works without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import Scope, Send

from tokenwire.express import Port
from tokenwire.server.budget import Account

__all__ = ["ResponseBody", "Rest", "RestWay", "Transport", "transport_of"]

_KEY = "tokenwire.transport"


class ResponseBody(Protocol):
    """The body of one response, written past ASGI's `send`."""

    @property
    def port(self) -> Port | None:
        """The same for who does not call; ``is_open`` is true only while `ready` is."""
        ...

    def ready(self) -> bool:
        """Whether the response has begun, and its socket takes more without waiting."""
        ...

    def write(self, data: bytes) -> None:
        """Write some of the body; only while `ready`."""
        ...

    def hold(self) -> None:
        """Let what is written from now on, however it is, leave together a moment later: a few
        turns of the event loop, or with the end of the response."""
        ...


class RestWay(Protocol):
    """What a response that goes on without ASGI's call has in its place."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work in a task of the connection."""
        ...

    async def over(self, failure: BaseException | None) -> None:
        """The response is over; ``failure``: what failed, if anything did."""
        ...


class Rest(Protocol):
    """What is left of a response when ASGI's call returns."""

    def go_on(self, way: RestWay) -> None:
        """Go on from here; `RestWay.over` is awaited once, at the end."""
        ...


@dataclass(slots=True)
class Transport:
    """The connection of one request or WebSocket."""

    #: The server's own `send`, without the guard's wrapper: for everything after the headers.
    send: Send | None = None
    #: Where what waits to be sent is counted, for the client of this request.
    account: Account | None = None
    #: Bytes that wait in the transport.
    unsent: Callable[[], int] | None = None
    #: Whether some of the request has not been received yet.
    unread: Callable[[], bool] | None = None
    #: Count the connection's buffers under the name of its client.
    rename: Callable[[str], None] | None = None
    #: Drop the connection at once; close it behind what was written of a response without its end.
    abort: Callable[[], None] | None = None
    cut: Callable[[], None] | None = None
    #: The server dropped the connection, because its peer did not read.
    is_slow: bool = False
    #: The response's body, past ASGI's `send`.
    body: ResponseBody | None = None
    #: Send a close frame ``(code, reason)`` behind what waits, and drop the WebSocket.
    give_up: Callable[[int, str], None] | None = None
    #: Accept WebSocket messages of up to so many bytes.
    accept_up_to: Callable[[int], None] | None = None
    #: Whether a response may go on when ASGI's call has returned, by its `rest`.
    takes_rest: bool = False
    rest: Rest | None = None
    #: Called when a response that went on is over, in place of what follows ASGI's call.
    when_over: Callable[[], None] | None = None
    #: The peer has gone; who is called then.
    is_gone: bool = False
    on_gone: Callable[[], None] | None = None

    def is_received(self) -> bool:
        """Whether all of the request is here."""
        return self.unread is not None and not self.unread()

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call ``on_gone`` once, when the peer has gone."""
        self.on_gone = on_gone
        if self.is_gone:
            on_gone()

    def lost(self) -> None:
        """The peer has gone."""
        self.is_gone = True
        if self.on_gone is not None:
            self.on_gone()

    def forget(self) -> None:
        """The request is over: let go of the connection, which has this in its scope. Such cycles
        would wait for the collector, as many as there were requests."""
        self.send = self.unsent = self.unread = self.rename = self.abort = self.cut = None
        self.body = self.give_up = self.accept_up_to = self.account = None
        self.rest = self.when_over = self.on_gone = None

    async def drop(self) -> None:
        """Drop the connection of a peer that does not read. Another server closes it by itself
        once the response has ended without its end."""
        if self.abort is not None:
            self.abort()
            await asyncio.sleep(0)  # the server hears of it before this returns

    def break_off(self) -> None:
        """End the response without its end, so that nobody takes it for whole; what was written is
        sent. Another server does that by itself."""
        if self.cut is not None:
            self.cut()


def transport_of(scope: Scope) -> Transport:
    """The scope's transport; an empty one where the server gave none."""
    transport = scope.get(_KEY)
    if transport is None:
        transport = scope[_KEY] = Transport()
    return transport
