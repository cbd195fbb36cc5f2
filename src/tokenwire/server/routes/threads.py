"""Conversations: their runs, their titles, and the list that a person sees.

Always true: a thread is its principal's own, name included; a run writes the thread's entry and a
person its title, each a document of its own, so neither undoes the other; erasing a thread erases
its runs, and what is kept of a thread goes when its last run has gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tokenwire.errors import GoneError, InputError, NotFoundError
from tokenwire.events.message import FilePart, Message
from tokenwire.events.reasons import OUTCOMES
from tokenwire.server.edge.bodies import THREAD, read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.ai_sdk_history import compat_of, ui_messages
from tokenwire.server.runs import describe
from tokenwire.server.state import State

__all__ = [
    "ALIASES",
    "ALIASES_OF",
    "erase_run",
    "forget_aliases",
    "forget_expired",
    "forget_old",
    "forget_unused",
    "routes",
    "touch",
]

_KIND = "thread"
#: AG-UI clients have names of their own for runs: the documents that translate them, and those
#: that say, by ``RUN/NAME``, which names a run has.
ALIASES, ALIASES_OF = "ag-ui-run", "ag-ui-names"
_TITLE = "thread-title"
#: Conversations that were named before their first run.
_UNUSED = "thread-unused"
#: When everything that is kept of conversations was looked at last, in Unix seconds; and how often
#: that is done.
_LAST_LOOK = ("upkeep", "threads")
_LOOK_SECONDS = 86_400.0
#: Entries of one page of a list.
_MOST_THREADS = 1000
#: Runs of a thread that a page has unless ``limit`` says otherwise.
_USUAL_RUNS = 100
#: Characters of the first question that name a thread until a person does.
_MOST_FIRST = 80
#: Threads that one sweep looks at, of all principals.
_MOST_SWEPT = 100_000


class _Title(msgspec.Struct, forbid_unknown_fields=True):
    title: Annotated[str, msgspec.Meta(max_length=200)]


class _Alias(msgspec.Struct):
    run: str


class _Entry(msgspec.Struct, omit_defaults=True):
    """What a run leaves of its thread. ``updated``: Unix seconds; ``first``: what the first
    question was about, and ``run`` which run asked it."""

    updated: float = 0.0
    first: str | None = None
    run: str | None = None


def routes(state: State) -> list[BaseRoute]:
    """``/v1/threads``."""

    def route(path: str, handler: Callable[..., Awaitable[Response]], method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(state, request, request.scope["tokenwire"])

        return Route(path, endpoint, methods=[method], name=f"thread_{handler.__name__}")

    one = "/v1/threads/{thread}"
    return [
        route("/v1/threads", listed, "GET"),
        route(one, show, "GET"),
        route(one, name_it, "PUT"),
        route(one, erase, "DELETE"),
    ]


async def touch(
    state: State, principal: str, thread: str, messages: list[Message], run: str
) -> None:
    """A run was started in ``thread``: it goes to the top of the list, named by what was asked
    first."""
    known = await _entry(state, principal, thread)
    if known is not None and known.first:
        entry = _Entry(updated=time.time(), first=known.first, run=known.run)
    else:
        entry = _Entry(updated=time.time(), first=_subject(messages), run=run)
    await _keep(state, principal, thread, entry)


async def erase_run(state: State, run: str, principal: str) -> None:
    """Erase a run and what is left of it elsewhere: its question, where that names the thread, and
    the names that clients have for it. Raises `NotFoundError`."""
    info = await state.runs.info(run, principal=principal)
    aliases = await state.store.documents(ALIASES_OF, prefix=f"{run}/")
    await state.runs.delete(run, principal=principal)
    for name in aliases:
        await _forget_alias(state, run, name.partition("/")[2])
    if info.thread is None:
        return
    if not await state.runs.thread(info.thread, principal=principal, most=1):
        await _forget(state, principal, info.thread)
        return
    entry = await _entry(state, principal, info.thread)
    if entry is not None and entry.run in (None, run):
        await _keep(state, principal, info.thread, _Entry(updated=entry.updated))


async def forget_expired(state: State, runs: list[str], threads: list[str]) -> None:
    """Erase what is left of runs that went by the retention, and of conversations (by their names
    in the store) of which nothing is left. Raises `LogError`."""
    await asyncio.gather(*(_forget_names(state, run) for run in runs))
    await asyncio.gather(*(_forget_unless_used(state, thread) for thread in threads))


async def _forget_names(state: State, run: str) -> None:
    for name in await state.store.documents(ALIASES_OF, prefix=f"{run}/"):
        await _forget_alias(state, run, name.partition("/")[2])


async def _forget_unless_used(state: State, name: str) -> None:
    """Who starts a run in the conversation meanwhile creates it first, and then the entry."""
    store = state.store
    entry = await store.document(_KIND, name)
    if await store.thread(name, most=1):
        return
    if entry is None or await store.swap_document(_KIND, name, entry, None):
        await store.set_document(_TITLE, name, None)


async def forget_unused(state: State) -> None:
    """Erase titles of conversations that never had a run, after the retention; and once a day look
    at everything that is kept of conversations and runs, should a crash, or the end of a key in
    the store, have left some of it. Raises `LogError` when the store does not answer."""
    before = time.time() - state.settings.retention
    for name in await state.store.documents(_UNUSED, most=_MOST_SWEPT):
        entry = await _entry(state, *_parts(name))
        if entry is None or entry.updated <= before:
            await _forget_unless_used(state, name)
            await state.store.set_document(_UNUSED, name, None)
    last = await state.store.document(*_LAST_LOOK)
    now = time.time()
    if last is not None and 0 <= now - float(last) < _LOOK_SECONDS:
        return
    if await state.store.swap_document(*_LAST_LOOK, last, str(now).encode()):
        await forget_old(state)
        await forget_aliases(state)


async def forget_aliases(state: State) -> None:
    """Erase names that clients had for runs which have gone by the retention."""
    for name, data in (await state.store.documents(ALIASES, most=_MOST_SWEPT)).items():
        run = msgspec.json.decode(data, type=_Alias).run
        try:
            await state.store.describe(run)
        except (NotFoundError, GoneError):
            await _forget_alias(state, run, name)


async def _forget_alias(state: State, run: str, name: str) -> None:
    await state.store.set_document(ALIASES, name, None)
    await state.store.set_document(ALIASES_OF, f"{run}/{name}", None)


async def forget_old(state: State) -> None:
    """Erase what is kept of threads whose runs have all gone by the retention. Raises `LogError`
    when the store does not answer."""
    before = time.time() - state.settings.retention
    found = await state.store.documents(_KIND, most=_MOST_SWEPT)
    for name, data in found.items():
        if msgspec.json.decode(data, type=_Entry).updated > before:
            continue
        await _forget_unless_used(state, name)


async def listed(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads``: this principal's conversations, newest first, in pages: ``limit`` of
    them, ``before`` the thread that the last page named as ``next``. With how long each is kept:
    ``retention`` seconds after its last use, and what the store's ``durability`` is."""
    prefix = _name(info.principal, "")
    limit, before = _limit(request), request.query_params.get("before")
    found = await state.store.documents(_KIND, prefix=prefix, most=_MOST_SWEPT)
    titles = await state.store.documents(_TITLE, prefix=prefix, most=_MOST_SWEPT)
    threads: list[dict[str, Any]] = []
    for name, data in found.items():
        entry = msgspec.json.decode(data, type=_Entry)
        title = titles[name].decode() if name in titles else entry.first
        shown = {"thread": name[len(prefix) :], "title": title, "updated": entry.updated}
        threads.append({k: v for k, v in shown.items() if v is not None})
    threads.sort(key=lambda thread: (-thread["updated"], thread["thread"]))
    if before is not None:
        names = [thread["thread"] for thread in threads]
        threads = threads[names.index(before) + 1 :] if before in names else []
    page: dict[str, Any] = {
        "threads": threads[:limit],
        "retention": state.settings.retention,
        "durability": state.store.durability,
    }
    if len(threads) > limit:
        page["next"] = threads[limit - 1]["thread"]
    return json_response(page)


def _limit(request: Request, usual: int = _MOST_THREADS) -> int:
    """How many entries of a list a page has."""
    text = request.query_params.get("limit", str(usual))
    if not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_THREADS:
        raise InputError(f"'limit' must be a whole number from 1 to {_MOST_THREADS}", field="limit")
    return int(text)


async def show(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}``: its runs, newest first, and which one is under way; with
    ``as=ui-messages`` the conversation as the AI SDK's messages."""
    thread, query = request.path_params["thread"], request.query_params
    if (form := query.get("as")) is not None:
        if form != "ui-messages":
            raise InputError("'as' must be ui-messages", field="as")
        compat = compat_of(state, request)
        limit, before = query.get("limit"), query.get("before")
        conversation = await ui_messages(
            state, thread, info.principal, compat=compat, limit=limit, before=before
        )
        return json_response(conversation)
    limit = _limit(request, _USUAL_RUNS)
    before = query.get("before")
    # One more than the page, to know whether there are more.
    found = await state.runs.thread(thread, principal=info.principal, most=limit + 1, before=before)
    entry = await _entry(state, info.principal, thread)
    active = next((run.id for run in found if run.state not in OUTCOMES), None)
    shown: dict[str, Any] = {
        "thread": thread,
        "active": active,
        "runs": [describe(run) for run in found[:limit]],
    }
    if len(found) > limit:
        shown["next"] = found[limit - 1].id
    title = await _title(state, info.principal, thread) or (entry and entry.first)
    if title:
        shown["title"] = title
    return json_response(shown)


async def name_it(state: State, request: Request, info: RequestInfo) -> Response:
    """``PUT /v1/threads/{thread}`` with a ``title``; an empty one gives the name back that the
    thread had by itself."""
    thread = request.path_params["thread"]
    if not THREAD.fullmatch(thread):
        raise InputError("a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
    title = read_body(info.json, _Title).title.strip()
    entry = await _entry(state, info.principal, thread)
    if entry is None:
        entry = _Entry(updated=time.time())
        await state.store.set_document(_UNUSED, _name(info.principal, thread), b"1")
        await _keep(state, info.principal, thread, entry)
    name = _name(info.principal, thread)
    await state.store.set_document(_TITLE, name, title.encode() or None)
    shown = {"thread": thread, "title": title or entry.first, "updated": entry.updated}
    return json_response({k: v for k, v in shown.items() if v is not None})


async def erase(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/threads/{thread}``: the conversation and all of its runs."""
    thread = request.path_params["thread"]
    while found := await state.runs.thread(thread, principal=info.principal):
        for run in found:
            try:
                await erase_run(state, run.id, info.principal)
            except NotFoundError:
                continue  # somebody else erased it meanwhile
    await _forget(state, info.principal, thread)
    return Response(status_code=204)


#: Between principal and thread in a document's name; no thread has it.
_BETWEEN = "\x1f"


def _name(principal: str, thread: str) -> str:
    return principal + _BETWEEN + thread


def _parts(name: str) -> tuple[str, str]:
    principal, _, thread = name.rpartition(_BETWEEN)
    return principal, thread


def _subject(messages: list[Message]) -> str | None:
    """The first line that a person asked, or the name of the file that came without words."""
    asked = next((m for m in messages if m.role == "user"), None)
    if asked is None:
        return None
    text = asked.text.strip() or next(
        (part.name for part in asked.parts if isinstance(part, FilePart) and part.name), ""
    )
    line = " ".join(text.partition("\n")[0].split())
    return (line if len(line) <= _MOST_FIRST else line[: _MOST_FIRST - 1].rstrip() + "…") or None


async def _document(state: State, kind: str, name: str) -> bytes | None:
    return await state.store.document(kind, name)


async def _entry(state: State, principal: str, thread: str) -> _Entry | None:
    data = await _document(state, _KIND, _name(principal, thread))
    return None if data is None else msgspec.json.decode(data, type=_Entry)


async def _title(state: State, principal: str, thread: str) -> str | None:
    data = await _document(state, _TITLE, _name(principal, thread))
    return None if data is None else data.decode()


async def _forget(state: State, principal: str, thread: str) -> None:
    for kind in (_TITLE, _KIND, _UNUSED):
        await state.store.set_document(kind, _name(principal, thread), None)


async def _keep(state: State, principal: str, thread: str, entry: _Entry) -> None:
    name = _name(principal, thread)
    await state.store.set_document(_KIND, name, msgspec.json.encode(entry))
