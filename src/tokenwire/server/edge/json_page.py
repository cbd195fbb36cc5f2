"""A run's events as one JSON page: what is there now, or as soon as there is something.

For clients behind proxies that swallow streams, and for scripts. The page says where the next one
begins (``next``) and whether the run has ended (``closed``).
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.responses import Response
from starlette.types import Receive

from tokenwire.events.reasons import OUTCOMES
from tokenwire.server.edge.auth import Identity
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.respond import offset_of
from tokenwire.server.state import State

__all__ = ["long_poll", "page"]

#: Records of a batch after which the loop is left to others.
_MANY = 64


async def page(state: State, run: str, after: str | None, principal: str) -> Response:
    """The events that are there now."""
    info = await state.runs.info(run, principal=principal)
    return await _page(state, run, after, principal, up_to=info.tail)


async def long_poll(
    state: State, run: str, after: str | None, identity: Identity, receive: Receive
) -> Response:
    """The events as soon as there are some; an empty page when the time is up. The reader counts
    as there until it closes its connection, or does not ask for the next page. Raises
    `NotAuthenticatedError` when the key of ``identity`` counts no more before that."""
    return await _page(state, run, after, identity.principal, identity=identity, receive=receive)


async def _page(
    state: State,
    run: str,
    after: str | None,
    principal: str,
    *,
    up_to: int | None = None,
    identity: Identity | None = None,
    receive: Receive | None = None,
) -> Response:
    release = state.limits.attach(run, principal)
    connections = state.connections
    items: list[bytes] = []
    cursor, closed = after or "0", False
    try:
        follower = await state.runs.follow(
            run, after=after, principal=principal, is_reader=receive is not None
        )
        connection = connections.open(follower, identity)
        connection.expires = connection.last_write + state.settings.long_poll_timeout
        offset = offset_of(after)
        watch = watch_disconnect(receive, connection.gone) if receive is not None else None
        try:
            while not items if up_to is None else offset < up_to:
                batch = await follower.next()
                if batch is None:
                    closed = True
                    break
                pieces: list[bytes] = []
                for cursor, data in batch.items():
                    pieces.append(b'{"cursor":"%b","event":%b}' % (cursor.encode(), data))
                if pieces:
                    items.append(b",".join(pieces))
                if len(pieces) >= _MANY:  # the store may not have made it wait
                    await asyncio.sleep(0)
                offset = offset_of(cursor)
                connection.check()
                if connection.leaving is not None or connection.lost:
                    break
        finally:
            if watch is not None:
                watch.cancel()
            connections.close(connection)
            follower.close(returning=not connection.lost)
    finally:
        release()
    if not closed:
        info = await state.runs.info(run, principal=principal)
        closed = info.state in OUTCOMES and offset_of(cursor) >= info.tail
    body = b'{"events":[%b],"next":%b,"closed":%b}' % (
        b",".join(items),
        msgspec.json.encode(cursor),
        b"true" if closed else b"false",
    )
    return Response(body, media_type="application/json")
