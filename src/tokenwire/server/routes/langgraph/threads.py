"""Threads of LangGraph's clients, which are conversations, and assistants, which are models and
agents.

Always true: any name is a thread, and one of which nothing is stored is empty; metadata of threads
is not stored, and none is fields.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from starlette.responses import Response

from tokenwire import __version__
from tokenwire.errors import ConflictError, NotFoundError
from tokenwire.relay.description import RunInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.langgraph.caller import Caller
from tokenwire.server.routes.langgraph.thread_state import moment, states_of, status_of
from tokenwire.server.routes.threads import erase
from tokenwire.server.tokens.grant import only_by_login, thread_to_start
from tokenwire.wire.chunk_encoder import Chunk
from tokenwire.wire.fields import Fields, one_name
from tokenwire.wire.langgraph.request import checkpoint_of

__all__ = [
    "create",
    "delete_thread",
    "history",
    "info",
    "search",
    "search_assistants",
    "show",
    "show_assistant",
    "show_state",
    "state_at",
]

#: States of one page of a history: each holds the conversation up to its place.
_MOST_STATES = 100
_MOST_THREADS = 1000


# --- threads --------------------------------------------------------------------------------------


async def create(caller: Caller) -> Response:
    """``POST /threads``: a name for a conversation, which begins with its first run."""
    body = Fields(caller.info.json if caller.info.json is not None else {})
    for name in ("supersteps", "ttl"):
        if body.value.get(name):
            raise body.fail(name, "is not supported")
    thread = one_name(body, "thread_id") if body.has("thread_id") else None
    thread = thread_to_start(thread) or str(uuid.uuid4())
    exists = body.text("if_exists") or "raise"
    if exists not in ("raise", "do_nothing"):
        raise body.fail("if_exists", "must be raise or do_nothing")
    run = await _newest(caller, thread)
    if run is not None and exists == "raise":
        raise ConflictError("this thread exists already", reason="thread_exists")
    return json_response(await _thread(caller, thread, run))


async def _newest(caller: Caller, thread: str) -> RunInfo | None:
    runs = await caller.state.runs.thread(thread, principal=caller.principal, most=1)
    return runs[0] if runs else None


async def _thread(
    caller: Caller, thread: str, run: RunInfo | None, *, with_values: bool = False
) -> Chunk:
    created = moment(run.created if run is not None else time.time())
    fields: Chunk = {
        "thread_id": thread,
        "created_at": created,
        "updated_at": created,
        "metadata": {"graph_id": run.model} if run is not None else {},
        "status": status_of(run),
        "config": {},
        "values": None,
        "interrupts": {},
    }
    if with_values and run is not None:
        (state,) = await states_of(caller.state, thread, caller.principal, most=1)
        fields["values"] = state["values"]
        fields["interrupts"] = {t["id"]: t["interrupts"] for t in state["tasks"] if t["interrupts"]}
    return fields


async def show(caller: Caller) -> Response:
    """``GET /threads/{thread}``."""
    thread = caller.thread or ""
    run = await _newest(caller, thread)
    return json_response(await _thread(caller, thread, run, with_values=True))


async def delete_thread(caller: Caller) -> Response:
    """``DELETE /threads/{thread}``: the conversation and all of its runs."""
    return await erase(caller.state, caller.request, caller.info)


async def search(caller: Caller) -> Response:
    """``POST /threads/search``: the caller's threads, the newest first."""
    only_by_login()
    body = Fields(caller.info.json if caller.info.json is not None else {})
    for name in ("values", "status", "ids", "extract"):
        if body.value.get(name):
            raise body.fail(name, "is not supported")
    metadata = body.object("metadata") or Fields({})
    metadata.only(("graph_id", "assistant_id"))
    model = metadata.text("graph_id") or metadata.text("assistant_id")
    limit = body.whole("limit", 1, _MOST_THREADS) or 10
    offset = body.whole("offset", 0, _MOST_THREADS) or 0
    page = await caller.state.threads.page(caller.principal, min(limit + offset, _MOST_THREADS))
    threads: list[Chunk] = []
    for entry in page.threads:
        thread = entry.id or entry.thread
        run = await _newest(caller, thread)
        if run is not None and model in (None, run.model):
            threads.append(await _thread(caller, thread, run))
    return json_response(threads[offset:])


# --- states ---------------------------------------------------------------------------------------


async def show_state(caller: Caller) -> Response:
    """``GET /threads/{thread}/state``: the newest state."""
    states = await states_of(caller.state, caller.thread or "", caller.principal, most=1)
    return json_response(states[0])


async def state_at(caller: Caller) -> Response:
    """``GET /threads/{thread}/state/{checkpoint}`` and ``POST .../state/checkpoint``."""
    if caller.request.method == "POST":
        name = checkpoint_of(Fields(caller.info.json))
    else:
        name = caller.request.path_params["checkpoint"]
    states = await states_of(caller.state, caller.thread or "", caller.principal, most=1, only=name)
    if not states:
        raise NotFoundError("no such checkpoint in this thread")
    return json_response(states[0])


async def history(caller: Caller) -> Response:
    """``POST /threads/{thread}/history``: the states of all branches, the newest first."""
    body = Fields(caller.info.json if caller.info.json is not None else {})
    if body.value.get("metadata"):
        raise body.fail("metadata", "is not supported")
    limit = min(body.whole("limit", 1, 1000) or 10, _MOST_STATES)
    checkpoint = body.object("checkpoint")
    if checkpoint is not None and checkpoint.text("checkpoint_ns"):
        return json_response([])  # of a subgraph, which has none
    before = _before(body)
    thread = caller.thread or ""
    most = limit if before is None else _MOST_STATES * 10
    states = await states_of(caller.state, thread, caller.principal, most=most)
    if before is not None:
        names = [state["checkpoint"]["checkpoint_id"] for state in states]
        if before not in names:
            raise NotFoundError("no such checkpoint in this thread")
        states = states[names.index(before) + 1 :]
    return json_response(states[:limit])


def _before(body: Fields) -> str | None:
    value = body.raw("before")
    if value is None or isinstance(value, str):
        return value or None
    before = Fields(value, "before")
    return checkpoint_of(before.object("configurable") or before)


# --- assistants -----------------------------------------------------------------------------------


async def search_assistants(caller: Caller) -> Response:
    """``POST /assistants/search``."""
    body = Fields(caller.info.json if caller.info.json is not None else {})
    limit = body.whole("limit", 1, 1000) or 10
    offset = body.whole("offset", 0, 10_000) or 0
    name_filter = body.text("graph_id") or body.text("name")
    names = [name for name in _names(caller) if name_filter in (None, name)]
    return json_response([_assistant(name) for name in names[offset : offset + limit]])


async def show_assistant(caller: Caller) -> Response:
    """``GET /assistants/{assistant}``."""
    name = caller.request.path_params["assistant"]
    if name not in _names(caller):
        raise NotFoundError("no such assistant")
    return json_response(_assistant(name))


def _names(caller: Caller) -> list[str]:
    agents, principal = caller.state.agents, caller.principal
    names = caller.state.model_names
    return [name for name in names if name not in agents or agents[name].allows(principal)]


def _assistant(name: str) -> Chunk:
    return {
        "assistant_id": name,
        "graph_id": name,
        "name": name,
        "description": None,
        "config": {},
        "context": {},
        "metadata": {},
        "version": 1,
        "created_at": moment(0),
        "updated_at": moment(0),
    }


async def info(caller: Caller) -> Response:
    """``GET /info``: what the server is."""
    flags: dict[str, Any] = {"assistants": True, "crons": False, "langsmith": False}
    return json_response({"version": __version__, "flags": flags})
