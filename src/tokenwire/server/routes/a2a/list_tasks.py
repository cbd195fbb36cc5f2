"""``ListTasks``: the tasks of a context, or of all contexts of a principal, in pages.

Always true: only tasks that their reader may see; the contexts by their newest run, and in each the
newest task first. The pages of one listing are those of the moment of its first page: a context
that gets a run meanwhile keeps its place, without that run, and no task comes twice or is left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import msgspec

from tokenwire.errors import GoneError, InputError, NotFoundError
from tokenwire.relay.description import RunInfo
from tokenwire.server.routes.a2a.tasks import Caller, get
from tokenwire.server.tokens.grant import only_by_login
from tokenwire.wire.a2a.task import TERMINAL
from tokenwire.wire.fields import Fields, one_name

__all__ = ["ListQuery", "list_tasks", "parse_list"]

_DEFAULT_SIZE, _MOST_SIZE = 50, 100
#: Tasks that one page may look at where only some are asked for; it is then shorter than it may be.
_MOST_LOOKED = 500
#: Contexts that are listed, the newest ones; and tasks of one context that are counted.
_MOST_CONTEXTS, _MOST_COUNTED = 1000, 1000
_STATES = frozenset(
    {
        "TASK_STATE_SUBMITTED",
        "TASK_STATE_WORKING",
        "TASK_STATE_INPUT_REQUIRED",
        "TASK_STATE_AUTH_REQUIRED",
        *TERMINAL,
    }
)


_TOKEN = re.compile(r"([0-9]{1,12}\.[0-9]{1,9}):([0-9]{1,12}\.[0-9]{1,9})/(.+)/([^/]+)", re.DOTALL)


class Token(msgspec.Struct, frozen=True):
    """Where a page ended. ``since``: Unix seconds of the listing; ``key``: of the context's newest
    run at that time."""

    since: float
    key: float
    context: str
    run: str

    def __str__(self) -> str:
        return f"{float(self.since)!r}:{float(self.key)!r}/{self.context}/{self.run}"


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """``ListTasksRequest``. ``after``: where the page before it ended."""

    context: str | None = None
    status: str | None = None
    size: int = _DEFAULT_SIZE
    after: Token | None = None
    history: int | None = None
    since: datetime | None = None
    has_artifacts: bool = False


def parse_list(fields: Fields) -> ListQuery:
    """The parameters. Raises `InputError`."""
    status = fields.text("status") or "TASK_STATE_UNSPECIFIED"
    if status not in _STATES | {"TASK_STATE_UNSPECIFIED"}:
        raise fields.fail("status", f"must be one of {', '.join(sorted(_STATES))}")
    since = fields.text("statusTimestampAfter") or None
    return ListQuery(
        context=one_name(fields, "contextId") if fields.text("contextId") else None,
        status=None if status == "TASK_STATE_UNSPECIFIED" else status,
        size=fields.whole("pageSize", 1, _MOST_SIZE) or _DEFAULT_SIZE,
        after=_token(fields),
        history=fields.whole("historyLength", 0, 1 << 31),
        since=_moment(since, fields) if since is not None else None,
        has_artifacts=fields.flag("includeArtifacts"),
    )


def _token(fields: Fields) -> Token | None:
    text = fields.text("pageToken") or None
    if text is None:
        return None
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise fields.fail("pageToken", "is not a token of an earlier page")
    return Token(float(match[1]), float(match[2]), match[3], match[4])


def _moment(text: str, fields: Fields) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise fields.fail("statusTimestampAfter", "must be an ISO 8601 time") from None
    if moment.tzinfo is None:
        raise fields.fail("statusTimestampAfter", "must name its time zone")
    return moment


async def list_tasks(caller: Caller, query: ListQuery) -> dict[str, Any]:
    """One page. Raises `NotFoundError` for a context of others, `ForbiddenError` for a token that
    lists other contexts than its own."""
    since = query.after.since if query.after is not None else time.time()
    contexts = await _contexts(caller, query, since)
    tasks: list[dict[str, Any]] = []
    next_token, last, looked = "", "", 0
    async for key, context, info in _runs(caller, contexts, query, since):
        if len(tasks) >= query.size or looked >= _MOST_LOOKED:
            next_token = last
            break
        looked += 1
        last = str(Token(since, key, context, info.id))
        try:
            task = await get(caller, info.id, query.history)
        except (NotFoundError, GoneError):
            continue  # erased meanwhile
        if _fits(task, query):
            if not query.has_artifacts:
                task.pop("artifacts", None)
            tasks.append(task)
    return {
        "tasks": tasks,
        "nextPageToken": next_token,
        "pageSize": query.size,
        "totalSize": await _count(caller, contexts),
    }


async def _contexts(caller: Caller, query: ListQuery, since: float) -> list[tuple[float, str]]:
    """The contexts as they were at ``since``: each with its newest run's time, that first."""
    if query.context is not None:
        return [(0.0, query.context)]
    only_by_login()
    page = await caller.state.threads.page(caller.principal, _MOST_CONTEXTS)
    contexts: list[tuple[float, str]] = []
    for thread in page.threads:
        name, key = thread.id or thread.thread, thread.updated
        if key > since:  # it has a run since then, and had another place before
            infos = await _older(caller, name, None, since, 1)
            if not infos:
                continue
            key = infos[0].created
        contexts.append((key, name))
    return sorted(contexts, key=lambda context: (-context[0], context[1]))


async def _older(
    caller: Caller, context: str, before: str | None, since: float, most: int
) -> list[RunInfo]:
    """Runs of a context from before ``since``; none where the caller may not read it any more."""
    while True:
        try:
            infos = await caller.state.runs.thread(
                context, principal=caller.principal, most=most, before=before
            )
        except (NotFoundError, GoneError):
            return []
        old = [info for info in infos if info.created <= since]
        if old or not infos:
            return old
        before = infos[-1].id


async def _runs(
    caller: Caller, contexts: list[tuple[float, str]], query: ListQuery, since: float
) -> AsyncGenerator[tuple[float, str, RunInfo]]:
    after, before = query.after, None
    if after is not None:
        place = (-after.key, after.context)
        contexts = [(key, name) for key, name in contexts if (-key, name) >= place]
        if (after.key, after.context) in contexts:
            before = after.run
            try:
                await caller.state.runs.info(before, principal=caller.principal)
            except (NotFoundError, GoneError) as error:
                raise InputError(
                    "'pageToken' names a task that was erased, or none of these; list them from "
                    "the start",
                    field="pageToken",
                ) from error
    elif query.context is not None:
        # A context of others is an error, where it was asked for.
        await caller.state.runs.members.enter(caller.principal, query.context)
    for key, context in contexts:
        while infos := await _older(caller, context, before, since, query.size + 1):
            for info in infos:
                yield key, context, info
            before = infos[-1].id
        before = None


def _fits(task: dict[str, Any], query: ListQuery) -> bool:
    status = task["status"]
    if query.status is not None and status["state"] != query.status:
        return False
    return query.since is None or datetime.fromisoformat(status["timestamp"]) >= query.since


async def _count(caller: Caller, contexts: list[tuple[float, str]]) -> int:
    """How many tasks there are, whatever their states."""
    count = 0
    for _, context in contexts:
        try:
            access = await caller.state.runs.members.enter(caller.principal, context)
        except (NotFoundError, GoneError):
            continue  # left meanwhile
        count += len(await caller.state.store.thread(access.scope, most=_MOST_COUNTED))
    return count
