"""One request with a JSON response, sent again after errors that pass."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tokenwire.client.origin import Origin, is_final, wait_of
from tokenwire.client.reconnect import Patience, Reconnect
from tokenwire.errors import TokenwireError

__all__ = ["json_request"]


async def json_request(
    origin: Origin,
    patience: Patience,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    timeout: float = 30.0,
    tries: int | None = None,
    effected: type[TokenwireError] | None = None,
) -> Any:
    """The JSON response, None if it is empty. The request must be one that may come twice.

    ``timeout``: seconds of each attempt; ``tries``: the most attempts, None for as many as
    ``patience`` allows; ``effected``: the refusal of a command that took effect before: the
    response is None then, if that of an earlier attempt was lost. Raises the server's error if it
    is final or the last."""
    loop = asyncio.get_running_loop()
    link = Reconnect(patience, loop.time())
    while True:
        try:
            return await origin.json(method, path, body, headers, timeout=timeout)
        except TokenwireError as error:
            if effected is not None and link.tries and isinstance(error, effected):
                return None
            if is_final(error) or not error.retryable or link.tries + 1 == tries:
                raise
            pause = link.cut(loop.time(), random.random(), wait=wait_of(error))
            if pause is None:
                raise
            await asyncio.sleep(pause)
