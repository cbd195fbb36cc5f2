"""``tokenwire tail``: follow a run by way of a server, or in the store itself.

Always true: every event is shown once and in order, also over broken connections (we come back with
the offset of the last one); a run that ended badly gives exit code 1.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import msgspec

from tokenwire.cli.render import Printer, printer
from tokenwire.cli.terminal import Out, note
from tokenwire.errors import (
    ConfigError,
    InputError,
    NetworkError,
    NotAuthenticatedError,
    NotFoundError,
    ProtocolError,
    TokenwireError,
)
from tokenwire.events.codec import AnyEvent, decode, encode
from tokenwire.events.model import (
    Error,
    LogReset,
    ReasoningDelta,
    Reconnect,
    RefusalDelta,
    RunEnd,
    RunWait,
    TextDelta,
    ToolError,
    ToolResult,
    ToolStart,
)
from tokenwire.framing.sse import SSEDecoder
from tokenwire.providers.base import Call
from tokenwire.providers.http import HttpClient

__all__ = ["run_tail"]

#: Connections that bring nothing before we give up; each waits longer than the one before.
_ATTEMPTS: Final = 8
_MOST_WAIT: Final = 10.0
#: Larger answers to a question for a stream are pages of somebody else.
_MOST_ERROR: Final = 64 * 1024


def run_tail(
    run: str, *, url: str, store: str | None, after: str | None, as_json: bool, raw: bool
) -> int:
    """Follow until the run ends; the exit code."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run):
        raise InputError(f"{run[:80]!r} is no run id")
    events = _from_store(store, run, after) if store else _from_server(url, run, after)
    return asyncio.run(_show(events, as_json=as_json, out=Out(raw=raw)))


async def _show(events: AsyncIterator[AnyEvent], *, as_json: bool, out: Out) -> int:
    shown: Printer = printer(out, plain=as_json)
    outcome: RunEnd | None = None
    try:
        async with aclosing(events) as following:  # type: ignore[type-var]
            async for event in following:
                if as_json:
                    out.write(encode(event).decode() + "\n")
                else:
                    _draw(event, shown)
                if isinstance(event, RunEnd):
                    outcome = event
                    break
    finally:
        shown.finish()
    if outcome is None or outcome.outcome == "complete":
        return 0
    note(f"[the run ended: {outcome.outcome}{f', {outcome.reason}' if outcome.reason else ''}]")
    return 1


def _draw(event: AnyEvent, shown: Printer) -> None:
    if isinstance(event, TextDelta | RefusalDelta):
        shown.text(event.text)
    elif isinstance(event, ReasoningDelta):
        shown.reasoning(event.text)
    elif isinstance(event, ToolStart):
        shown.aside(f"→ {event.name}")
    elif isinstance(event, ToolResult):
        shown.aside(f"← {event.name} answered")
    elif isinstance(event, ToolError):
        shown.aside(f"← {event.code}: {event.message}")
    elif isinstance(event, RunWait):
        shown.aside(f"[waits for {event.reason.replace('_', ' ')}: {', '.join(event.pending)}]")
    elif isinstance(event, Error):
        shown.aside(f"[{event.code}: {event.message}]")


async def _from_store(url: str, run: str, after: str | None) -> AsyncIterator[AnyEvent]:
    from tokenwire.log.open import open_log
    from tokenwire.relay.follow import open_follower

    if url.startswith("memory:"):
        raise ConfigError("a store in memory lives in its server; use --url in place of --store")
    log = open_log(url)
    await log.start()
    try:
        follower = await open_follower(log, run, after)
        try:
            while (batch := await follower.next()) is not None:
                for _, event in batch.events():
                    yield event
        finally:
            follower.close()
    finally:
        await log.close()


async def _from_server(base: str, run: str, after: str | None) -> AsyncIterator[AnyEvent]:
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"--url must begin with http:// or https://, not {base[:80]!r}")
    address = f"{base.rstrip('/')}/v1/runs/{run}/events"
    http = HttpClient()
    failures = 0
    try:
        while True:
            ended = False
            try:
                async for event, cursor in _connection(http, address, after):
                    failures = 0
                    after = cursor or after
                    ended = isinstance(event, RunEnd)
                    if isinstance(event, LogReset):
                        raise ProtocolError("the server no longer has what was shown; start again")
                    if not isinstance(event, Reconnect):
                        yield event
                    if ended:
                        return
            except NetworkError as error:
                if failures == 0 and after is None:
                    raise
                note(f"[{error.message}; trying again]")
            failures += 1
            if failures > _ATTEMPTS:
                raise NetworkError(f"{address} breaks off again and again")
            await asyncio.sleep(random.uniform(0.1, min(_MOST_WAIT, 0.5 * 2**failures)))
    finally:
        await http.aclose()


async def _connection(
    http: HttpClient, address: str, after: str | None
) -> AsyncIterator[tuple[AnyEvent, str | None]]:
    """The events of one connection, each with its cursor (None for those not in the log)."""
    headers = {"accept": "text/event-stream"}
    key = os.environ.get("TOKENWIRE_API_KEY")
    if key:
        headers["authorization"] = f"Bearer {key}"
    if after is not None:
        headers["last-event-id"] = after
    call = Call(url=address, headers=headers, body=b"", method="GET")
    stream = await http.open(call, connect_timeout=10.0)
    try:
        if stream.status != 200:
            body = b""
            while len(body) < _MOST_ERROR and (piece := await stream.read()):
                body += piece
            raise _refusal(stream.status, body, address)
        decoder = SSEDecoder()
        while piece := await stream.read():
            for frame in decoder.feed(piece):
                yield decode(frame.data), frame.id or None
    finally:
        await stream.aclose()


def _refusal(status: int, body: bytes, address: str) -> TokenwireError:
    message = f"{address} answers {status}"
    try:
        error = msgspec.json.decode(body)["error"]
        message = str(error["message"])[:500]
    except (msgspec.DecodeError, KeyError, TypeError):
        pass
    if status in (401, 403):
        return NotAuthenticatedError(f"{message} (a key is taken from TOKENWIRE_API_KEY)")
    if status == 404:
        return NotFoundError(message)
    return ProtocolError(message, status=status)
