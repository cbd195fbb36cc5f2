"""A run in any wire, as the answer of an application's own route.

::

    @app.get("/lines/{run}")
    async def lines(run: str, request: Request):
        after = request.headers.get("last-event-id")
        return respond(await live.runs.follow(run, after=after), Lines())

Always true: a reader that comes back gets what it misses, with what was open opened again; one that
has the end gets 204; an encoder that fails breaks its own response off, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokenwire.errors import ConfigError
from tokenwire.per_loop import PerLoop
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.respond import RunResponse
from tokenwire.server.embed.stop_signals import call_on_stop
from tokenwire.wire.base import Encoder
from tokenwire.wire.own import OwnEncoder

if TYPE_CHECKING:
    from tokenwire.relay.follow import Follower

__all__ = ["respond"]

#: The tickers of one event loop, by their clocks.
_connections: PerLoop[dict[tuple[float, float, int], Connections]] = PerLoop(dict)


def respond(
    follower: Follower,
    encoder: Encoder,
    *,
    heartbeat: float = 15.0,
    max_age: float = 240.0,
    retry_ms: int = 1000,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response that sends the run of ``follower`` (of ``runs.follow(run, after=...)``, opened
    for this reader) in the wire of ``encoder`` (a new one). Where the follower begins after a
    cursor, an encoder with state skips what comes before, and opens again what was open.
    ``heartbeat``: seconds between keep-alives of an idle stream; ``max_age``: seconds after which
    the reader is asked to come back, where the wire has a word for it; ``retry_ms``: after how many
    milliseconds; ``status``: of the response, and ``headers``: added to its own. Raises
    `ConfigError` for times that are not positive."""
    for name, value in (("heartbeat", heartbeat), ("max_age", max_age), ("retry_ms", retry_ms)):
        if not (value > 0 and math.isfinite(value)):
            follower.close(returning=True)
            raise ConfigError(f"{name} must be a positive number, not {value!r}")
    clocks = (heartbeat, max_age, retry_ms)
    return _Answer(follower, encoder, clocks, status, {**(headers or {})})


def _of_loop(clocks: tuple[float, float, int]) -> Connections:
    there = _connections()
    connections = there.get(clocks)
    if connections is None:
        heartbeat, max_age, retry_ms = clocks
        connections = there[clocks] = Connections(
            heartbeat=heartbeat, max_age=max_age, retry_ms=retry_ms
        )
        # A server waits for its readers before it stops: they are told first.
        call_on_stop(connections.drain)
    return connections


class _Answer(Response):
    """What is decided when the response is sent: whether anything is left to read."""

    def __init__(
        self,
        follower: Follower,
        encoder: Encoder,
        clocks: tuple[float, float, int],
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._follower, self._encoder = follower, encoder
        self._clocks, self._more = clocks, {"tokenwire-run": follower.run, **headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        follower = self._follower
        skip = 0
        try:
            if follower.after and await follower.is_read():
                follower.close(returning=True)
                await Response(status_code=204)(scope, receive, send)
                return
            encoder = OwnEncoder(self._encoder, self._encoder.name)
            if follower.after and not encoder.stateless:
                skip = follower.after
                follower.rewind()
            response = RunResponse(
                _of_loop(self._clocks),
                follower,
                encoder,
                run_id=follower.run,
                skip=skip,
                status=self.status_code,
                headers=self._more,
                preamble=None if encoder.is_event_stream else b"",
            )
        except BaseException:
            follower.close(returning=True)  # its client retries
            raise
        await response(scope, receive, send)
