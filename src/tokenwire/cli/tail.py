"""``tokenwire tail``: follow a run through a server, or in the store itself.

Always true: every event is printed once and in order, also across lost connections (it resumes from
the last cursor); a run that did not complete gives exit code 1.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing

from tokenwire.cli.render import Printer, printer
from tokenwire.cli.terminal import Out, note
from tokenwire.client import Client
from tokenwire.client.origin import run_of_path
from tokenwire.errors import (
    AccessError,
    ConfigError,
    NotAuthenticatedError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.events.codec import AnyEvent, encode
from tokenwire.events.model import (
    Error,
    ReasoningDelta,
    RefusalDelta,
    RunEnd,
    RunWait,
    TextDelta,
    ToolError,
    ToolResult,
    ToolStart,
)

__all__ = ["run_tail"]


def run_tail(
    run: str, *, url: str, store: str | None, after: str | None, as_json: bool, raw: bool
) -> int:
    """Follow the run to its end. Returns the exit code."""
    run_of_path(run)
    events = _from_store(store, run, after) if store else _from_server(url, run, after)
    return asyncio.run(_show(events, as_json=as_json, out=Out(raw=raw)))


async def _show(events: AsyncIterator[AnyEvent], *, as_json: bool, out: Out) -> int:
    screen: Printer = printer(out, plain=as_json)
    outcome: RunEnd | None = None
    try:
        async with aclosing(events) as following:  # type: ignore[type-var]
            async for event in following:
                if as_json:
                    out.write(encode(event).decode() + "\n")
                else:
                    _draw(event, screen)
                if isinstance(event, RunEnd):
                    outcome = event
                    break
    finally:
        screen.finish()
    if outcome is None or outcome.outcome == "complete":
        return 0
    note(f"[the run ended: {outcome.outcome}{f', {outcome.reason}' if outcome.reason else ''}]")
    return 1


def _draw(event: AnyEvent, screen: Printer) -> None:
    if isinstance(event, TextDelta | RefusalDelta):
        screen.text(event.text)
    elif isinstance(event, ReasoningDelta):
        screen.reasoning(event.text)
    elif isinstance(event, ToolStart):
        screen.aside(f"→ {event.name}")
    elif isinstance(event, ToolResult):
        screen.aside(f"← {event.name} finished")
    elif isinstance(event, ToolError):
        screen.aside(f"← {event.code}: {event.message}")
    elif isinstance(event, RunWait):
        screen.aside(f"[waiting for {event.reason.replace('_', ' ')}: {', '.join(event.pending)}]")
    elif isinstance(event, Error):
        screen.aside(f"[{event.code}: {event.message}]")


async def _from_store(url: str, run: str, after: str | None) -> AsyncIterator[AnyEvent]:
    from tokenwire.log.open import file_of, open_store
    from tokenwire.relay.follow import open_follower

    if url.startswith("memory:"):
        raise ConfigError(
            "a memory store exists only inside its server; use --url instead of --store"
        )
    store, file = open_store(url, upgrade=False), file_of(url)
    # A wrong path must not become a new store.
    if file is not None and not (file.is_file() and file.stat().st_size):
        raise ConfigError(f"no store file at {file}; check the path")
    await store.start()
    try:
        follower = await open_follower(store, run, after)
        try:
            while (batch := await follower.next()) is not None:
                for _, event in batch.events():
                    yield event
        finally:
            follower.close()
    except NotFoundError as error:
        raise NotFoundError(f"no run '{run}' in this store") from error
    finally:
        await store.close()


async def _from_server(base: str, run: str, after: str | None) -> AsyncIterator[AnyEvent]:
    connected = after is not None

    def cut(error: TokenwireError | None, wait: float) -> None:
        if error is not None and not connected:
            raise error  # no run to resume
        if error is not None:
            note(f"[{error.message}; retrying in {wait:.1f} s]")

    try:
        async with (
            Client(base, api_key=os.environ.get("TOKENWIRE_API_KEY") or None) as client,
            client.follow(run, after=after, on_cut=cut) as following,
        ):
            async for event in following:
                connected = True
                yield event
    except AccessError as error:
        hint = f"{error.message} (the key comes from TOKENWIRE_API_KEY)"
        raise NotAuthenticatedError(hint) from error
