"""Wait until all runs of a server or an application have ended.

Always true: what is returned has ended; a run that has not is named, with its state.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING

from tokenwire.errors import TokenwireError
from tokenwire.relay.description import RunSnapshot, meta_of

if TYPE_CHECKING:
    from tokenwire.relay.runs import Runs
    from tokenwire.server.app import App
    from tokenwire.server.embed.live import Live

__all__ = ["eventually_ends", "wait_for_ends"]

_PAUSE = 0.02
#: How much longer than its own time a call of another thread may take.
_GRACE = 30.0


def eventually_ends(live: Live | App, *runs: str, timeout: float = 30.0) -> dict[str, str]:
    """Assert that every run of ``live`` ends in ``timeout`` seconds; returns the states of those
    that were waited for, by id.

    For a test beside the application's event loop, such as one with a ``TestClient``, inside of
    its ``with``; in a coroutine, await `wait_for_ends`. ``live``: a `tokenwire.server.Live`, or
    what ``create_app`` made; ``runs``: ids of runs whose states are wanted, also where they have
    ended before. Raises `AssertionError` that names each run that is still open, with its state,
    its last text and what it waits for, and `NotFoundError` for an id that no run has.
    """
    loop = _app(live).loop
    if loop is None or not loop.is_running():
        raise AssertionError(
            "the application does not run: call this inside of its lifespan ('with "
            "TestClient(app)')"
        )
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        raise AssertionError("this would block the application: await wait_for_ends(...) instead")
    future = asyncio.run_coroutine_threadsafe(wait_for_ends(live, *runs, timeout=timeout), loop)
    try:
        return future.result(timeout + _GRACE)
    except FutureTimeoutError:
        future.cancel()
        raise AssertionError(
            f"the application's event loop did not answer in {timeout + _GRACE:g} s: something "
            "blocks it"
        ) from None


async def wait_for_ends(live: Live | App, *runs: str, timeout: float = 30.0) -> dict[str, str]:
    """`eventually_ends` for a coroutine in the application's event loop: ``live``, ``runs``,
    ``timeout`` as there."""
    relay = _app(live).state.runs
    deadline = time.monotonic() + timeout
    states: dict[str, str] = {}
    names = dict.fromkeys(runs)
    while True:
        names |= dict.fromkeys(await _open_runs(relay))
        remaining: list[str] = []
        for run in names:
            if run in states:
                continue
            info = await relay.store.describe(run)
            if info.closed is None or run in relay.owned:
                remaining.append(run)
            else:
                states[run] = info.closed
        if not remaining:
            return states
        if time.monotonic() > deadline:
            lines = [await _said(relay, run) for run in remaining]
            count = "1 run" if len(lines) == 1 else f"{len(lines)} runs"
            raise AssertionError(
                "\n".join([f"{count} of {len(names)} did not end in {timeout:g} s:", *lines])
            )
        await asyncio.sleep(_PAUSE)


def _app(live: Live | App) -> App:
    from tokenwire.server.app import App

    return live if isinstance(live, App) else live.server


async def _open_runs(relay: Runs) -> list[str]:
    """Of this process, of others, and of nobody."""
    store = relay.store
    leases = await store.leases(await store.owners())
    return [*relay.owned, *(run for run, _ in leases), *await store.orphans()]


async def _said(relay: Runs, run: str) -> str:
    try:
        meta = meta_of(await relay.store.describe(run))
        snapshot = await relay.snapshot(run, principal=meta.principal)
    except TokenwireError as error:
        return f"  {run}: its state cannot be read: {error.message}"
    owner = "" if run in relay.owned else ", no worker of this process has it"
    return f"  {run}: {_state(snapshot)}{owner}"


def _state(snapshot: RunSnapshot) -> str:
    text = snapshot.message.text
    words = f"last text {text[-60:]!r}" if text else "no text"
    tools = [tool.name for tool in snapshot.tools if tool.started and not tool.done]
    parts = [f"state {snapshot.state}", f"model {snapshot.model}", f"{snapshot.tail} events", words]
    if tools:
        parts.append(f"in the tool {', '.join(tools)}")
    if snapshot.waiting:
        parts.append(f"waits for {', '.join(snapshot.waiting)}")
    return ", ".join(parts)
