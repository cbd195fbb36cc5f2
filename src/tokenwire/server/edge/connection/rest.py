"""A response that goes on when its request has been answered, and its end.

Always true: uvicorn hears of a response's end once, when nothing of it follows.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tokenwire.server.edge.transport import Transport

__all__ = ["RestOfRequest", "end_of"]


class Spawning(Protocol):
    """A connection."""

    def spawn(self, work: Coroutine[Any, Any, None], context: Context) -> None:
        """Work in a task of it."""
        ...


class RestOfRequest:
    """What a response that goes on has of its connection."""

    __slots__ = ("_context", "_cycle", "_failure", "_own", "_protocol")

    def __init__(
        self,
        protocol: Spawning,
        cycle: RequestResponseCycle,
        own: Transport,
        context: Context,
        failure: BaseException | None,
    ) -> None:
        self._protocol, self._cycle, self._own, self._context = protocol, cycle, own, context
        #: What the application failed with, after it had left the rest.
        self._failure = failure

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """See `RestWay`."""
        self._protocol.spawn(work, self._context)

    async def over(self, failure: BaseException | None) -> None:
        """See `RestWay`."""
        own = self._own
        if own.when_over is not None:
            own.when_over()
        own.forget()
        await end_of(self._cycle, self._failure or failure)


async def end_of(cycle: RequestResponseCycle, failure: BaseException | None) -> None:
    """What uvicorn does when an application has returned, or failed."""

    async def ended(scope: Any, receive: Any, send: Any) -> None:
        if failure is not None:
            raise failure

    await cycle.run_asgi(ended)
