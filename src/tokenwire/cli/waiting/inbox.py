"""``tokenwire waiting``: what waits on a server, and a decision about it.

Always true: the arguments are printed whole and without effect on the terminal; nothing is decided
that was not named by its run.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime

import msgspec

from tokenwire.cli.terminal import Out, note
from tokenwire.client import Client
from tokenwire.client.waiting import Waiting
from tokenwire.errors import AccessError, ConflictError, InputError, NotAuthenticatedError

__all__ = ["run_waiting"]


def run_waiting(
    run: str | None,
    approval: str | None,
    *,
    url: str,
    approves: bool | None,
    reason: str | None,
    thread: str | None,
    tool: str | None,
    as_json: bool,
) -> int:
    """List what waits, or decide about one of it. Returns the exit code."""
    if approves is None and run is not None:
        raise InputError("say what to decide: --approve or --deny")
    if approves is not None and run is None:
        raise InputError("name the run to decide about; 'tokenwire waiting' lists them")
    return asyncio.run(_work(run, approval, url, approves, reason, thread, tool, as_json))


async def _work(
    run: str | None,
    approval: str | None,
    url: str,
    approves: bool | None,
    reason: str | None,
    thread: str | None,
    tool: str | None,
    as_json: bool,
) -> int:
    out = Out(raw=False)
    try:
        async with Client(url, api_key=os.environ.get("TOKENWIRE_API_KEY") or None) as client:
            items = await _all(client, thread, tool)
            if run is None:
                for item in items:
                    out.write(_json(item) if as_json else _text(item))
                return 0
            names = [one.approval for one in items if one.run == run]
            if approval is None and len(names) != 1:
                raise ConflictError(f"run '{run}' has {len(names)} approvals that wait; name one")
            name = approval or names[0]
            await client.approve(run, name, approved=bool(approves), reason=reason)
            note(f"[{name} of run {run}: {'approved' if approves else 'denied'}]")
            return 0
    except AccessError as error:
        hint = f"{error.message} (the key comes from TOKENWIRE_API_KEY)"
        raise NotAuthenticatedError(hint) from error


async def _all(client: Client, thread: str | None, tool: str | None) -> list[Waiting]:
    items: list[Waiting] = []
    after: str | None = ""
    while after is not None:
        page = await client.waiting(after=after, limit=200, thread=thread, tool=tool)
        items += page.waiting
        after = page.next
    return items


def _json(item: Waiting) -> str:
    return msgspec.json.encode(item).decode() + "\n"


def _text(item: Waiting) -> str:
    since = datetime.fromtimestamp(item.since).astimezone().strftime("%Y-%m-%d %H:%M")
    until = ""
    if item.expires is not None:
        until = f", until {datetime.fromtimestamp(item.expires).astimezone():%Y-%m-%d %H:%M}"
    reason = f"\n  why: {item.reason}" if item.reason else ""
    arguments = json.dumps(item.arguments, ensure_ascii=False)
    return f"{item.run} {item.approval}\n  {item.tool} {arguments}{reason}\n  {since}{until}\n"
