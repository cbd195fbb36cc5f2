"""A run as one JSON answer: counted as a reader, and by its bytes, from the first to the last.

Always true: what an answer will hold is counted before it is made, so that many at once are refused
before they fill the memory; making a large one leaves the loop to others in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokenwire.server.edge.transport import transport_of
from tokenwire.server.state import State

__all__ = ["json_in_turns", "whole_answer"]

#: Logs below this size are answered without further ado.
_LARGE = 64 << 10
#: An answer and what it is made of, in sizes of the log.
_COPIES = 2


class _Counted(Response):
    """An answer whose reader leaves when it has been sent, or could not be."""

    def __init__(self, body: bytes, release: Callable[[], None]) -> None:
        super().__init__(body, media_type="application/json")
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


async def whole_answer(
    state: State,
    scope: Scope,
    run: str,
    principal: str,
    make: Callable[[], Awaitable[Mapping[str, Any]]],
) -> Response:
    """The JSON object that ``make`` gives of ``run``. Raises `NotFoundError`; `BusyError` where the
    client has too many readers, or too much that waits."""
    info = await state.runs.info(run, principal=principal)
    release = state.limits.attach(run, principal)
    try:
        size = (await state.store.describe(info.id)).bytes
        account = transport_of(scope).account
        if account is not None and size > _LARGE:
            account.take(_COPIES * size)  # until the answer begins, whose own size is counted then
        body = await json_in_turns(await make(), size)
    except BaseException:
        release()
        raise
    return _Counted(body, release)


async def json_in_turns(value: Mapping[str, Any], size: int) -> bytes:
    """``value`` as JSON; of a large one (``size`` bytes or so) one field in each turn of the loop:
    a field is no larger than the run."""
    if size <= _LARGE:
        return msgspec.json.encode(value)
    pieces: list[bytes] = []
    for name, field in value.items():
        await asyncio.sleep(0)
        pieces += (b"," if pieces else b"{", msgspec.json.encode(name), b":")
        pieces.append(msgspec.json.encode(field))
    await asyncio.sleep(0)
    pieces.append(b"}" if pieces else b"{}")
    return b"".join(pieces)
