"""``/ws``: one socket, many runs; the same events as over SSE, each with its cursor.

Messages are JSON objects whose ``op`` says what they are (docs/reference/http.md lists them).

Always true: a run's events are sent once and in order, whatever else the socket carries; what
accumulates while the socket is slow goes out in one larger message; before the server closes a
socket it sends the cursor of every run that the socket follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from tokenwire.errors import (
    ConflictError,
    GoneError,
    InputError,
    LimitError,
    LogError,
    NotAuthenticatedError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.observe.facts import FollowerOpened
from tokenwire.observe.hooks import report
from tokenwire.relay.follow import Follower
from tokenwire.server.access.jwt_issuer import MOST_TOKEN
from tokenwire.server.edge.auth import Identity, Role
from tokenwire.server.edge.bodies import CreateRun, read_body
from tokenwire.server.edge.problems import error_fields
from tokenwire.server.routes.runs import begin, count_misses
from tokenwire.server.runs import describe
from tokenwire.server.sockets.base import (
    MANY,
    MAX_REASON,
    POLICY,
    RESTART,
    Socket,
    SocketEndpoint,
    erased_under_reader,
)
from tokenwire.server.sockets.threads import LIST, SocketThreads
from tokenwire.server.spending.budgets import HEADER
from tokenwire.server.spending.notice import collected, header_value
from tokenwire.server.starts.start import ThreadQuery
from tokenwire.server.state import State
from tokenwire.server.tokens.tokens import TOKEN
from tokenwire.wire.native import socket_message

__all__ = ["NativeSocket", "routes"]

_MOST_FOLLOWED = 64
_MOST_MESSAGE = 48 << 10
_AUTH_SECONDS = 5.0
#: The first message is small: it comes from who has not shown a key yet.
_AUTH_BYTES = 12 << 10

Text = Annotated[str, Meta(max_length=2000)]


class _Command(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    op: str
    id: str | int | None = None


class _Start(_Command):
    request: CreateRun
    key: Annotated[str, Meta(max_length=255)] | None = None
    follow: bool = True


class _Follow(_Command):
    run: str
    after: str | None = None


class _Run(_Command):
    run: str


class _Cancel(_Run):
    reason: Text | None = None


class _Approve(_Run):
    approval_id: str
    approved: bool
    reason: Text | None = None
    arguments: dict[str, Any] | None = None


class _Tool(_Run):
    call_id: str
    content: Any


class _Thread(_Command):
    thread: Annotated[str, Meta(max_length=128)]


class _FollowThread(_Thread):
    after: str | None = None
    runs: Literal["none", "full"] = "none"


class _FollowThreads(_Command):
    after: str | None = None


class _Auth(_Command):
    key: Annotated[str, Meta(max_length=MOST_TOKEN)]


#: What a command holds, what it does, and the role that it needs.
_Handling = tuple[type[_Command], Callable[[Any], Awaitable[None]], Role]


def routes(state: State) -> list[BaseRoute]:
    """The one route."""
    return [WebSocketRoute("/ws", SocketEndpoint(partial(NativeSocket, state)))]


class NativeSocket(Socket):
    """One socket: one task a followed run."""

    has_max_age = True

    def __init__(self, state: State, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(state, scope, receive, send)
        self._followed: dict[str, asyncio.Task[None]] = {}
        #: The cursor of the last event that was sent of each followed run.
        self.cursors: dict[str, str] = {}
        self._threads = SocketThreads(self, self._thread_failed)
        self._commands: dict[str, _Handling] = {
            "start": (_Start, self._start, "write"),
            "follow": (_Follow, self._follow, "read"),
            "unfollow": (_Run, self._unfollow, "read"),
            "cancel": (_Cancel, self._cancel, "write"),
            "approve": (_Approve, self._approve, "approve"),
            "tool": (_Tool, self._tool, "write"),
            "follow-thread": (_FollowThread, self._follow_thread, "read"),
            "unfollow-thread": (_Thread, self._unfollow_thread, "read"),
            "follow-threads": (_FollowThreads, self._follow_threads, "read"),
            "unfollow-threads": (_Command, self._unfollow_threads, "read"),
            "typing": (_Thread, self._typing, "write"),
            "ping": (_Command, self._ping, "read"),
        }

    async def leave(self, reason: str) -> None:
        """``reconnect`` with the cursor of every followed run, then the close."""
        after_ms = self.state.connections.retry_ms
        farewell = {"op": "reconnect", "after_ms": after_ms, "reason": reason}
        offsets = {"offsets": dict(self.cursors)}
        await self._say({**farewell, **offsets, **self._threads.farewell()})
        await self.close(RESTART, reason)

    def slow_reason(self) -> str:
        """The cursors, as many as a close reason holds."""
        reason = "slow_reader"
        for run, cursor in self.cursors.items():
            longer = f"{reason} {run}={cursor}"
            if len(longer) > MAX_REASON:
                break
            reason = longer
        return reason

    async def admit(self) -> bool:
        """The first message brings the key where no header did."""
        if self.info.how != "later":
            return True
        try:
            async with asyncio.timeout(_AUTH_SECONDS):
                message = await self.receive()
            if message is None:
                return False
            if len(message.get("text") or message.get("bytes") or b"") > _AUTH_BYTES:
                raise LimitError(
                    "the first message is too large", limit="auth_message", most=_AUTH_BYTES
                )
            value = self.json(message)
            if not isinstance(value, dict) or value.get("op") != "auth":
                raise NotAuthenticatedError('the first message must be {"op":"auth","key":...}')
            command = read_body(value, _Auth)
            self.info.identity = await self._identity_of(command.key)
            self.info.identity.require("read")
        except (TokenwireError, TimeoutError) as error:
            if isinstance(error, TokenwireError):
                await self._say({"op": "error", "error": self._fields(error)})
            await self.close(POLICY, "API key required")
            return False
        await self._say({"op": "ok", "id": command.id})
        return True

    async def _identity_of(self, key: str) -> Identity:
        if key.startswith(TOKEN):
            return await self.state.identify.by_token(key, self.info, "WEBSOCKET")
        return await self.state.identify.by_key(key, self.info.client)

    async def take(self, message: Message) -> None:
        """A command; what is wrong with it is an ``error`` message."""
        number: Any = None
        try:
            value = self.json(message)
            if not isinstance(value, dict):
                raise InputError("a message is a JSON object with an 'op'")
            number, op = value.get("id"), value.get("op")
            if not isinstance(op, str) or op not in self._commands:
                choices = ", ".join(self._commands)
                raise InputError(f"unknown 'op'; choose one of {choices}", field="op")
            kind, handler, role = self._commands[op]
            self.info.identity.require(role)
            command = read_body(value, kind)
            async with count_misses(self.state, self.info):
                await handler(command)
        except TokenwireError as error:
            message_id = number if isinstance(number, str | int) else None
            await self._say({"op": "error", "id": message_id, "error": self._fields(error)})

    # --- commands ------------------------------------------------------------------------------

    async def _start(self, command: _Start) -> None:
        identity, key = self.info.identity, command.key
        headers: list[tuple[bytes, bytes]] = []
        with collected(headers):
            reply = await begin(self.state, command.request, identity, key, ThreadQuery())
        info, left = reply.info, header_value(headers, HEADER)
        more = {"budget": left} if left is not None else {}
        if info is None:
            waits = {"op": "queued", "id": command.id, "run": reply.run, "position": reply.position}
            waits |= more
            if reply.while_busy is not None:
                waits["while_busy"] = reply.while_busy
            if reply.steers is not None:
                waits["steers"] = reply.steers
            await self._say(waits)
            return
        run = describe(info, self.info.mount)
        await self._say({"op": "started", "id": command.id, "run": run, **more})
        if command.follow and info.id not in self._followed:
            await self._open(info.id, None)

    async def _follow(self, command: _Follow) -> None:
        if command.run in self._followed:
            raise ConflictError("this socket already follows that run", field="run")
        await self._open(command.run, command.after)
        await self._ok(command)

    async def _unfollow(self, command: _Run) -> None:
        task = self._followed.pop(command.run, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.cursors.pop(command.run, None)
        await self._ok(command)

    async def _cancel(self, command: _Cancel) -> None:
        principal = self.info.principal
        await self.state.runs.cancel(
            command.run, principal=principal, by=self.info.by, reason=command.reason
        )
        await self._ok(command)

    async def _approve(self, command: _Approve) -> None:
        is_taken = await self.state.runs.approve(
            command.run,
            command.approval_id,
            approved=command.approved,
            by=self.info.by,
            reason=command.reason,
            arguments=command.arguments,
            principal=self.info.principal,
        )
        await self._ok(command, taken=is_taken)

    async def _tool(self, command: _Tool) -> None:
        is_taken = await self.state.runs.answer_tool(
            command.run,
            command.call_id,
            content=command.content,
            by=self.info.by,
            principal=self.info.principal,
        )
        await self._ok(command, taken=is_taken)

    async def _follow_thread(self, command: _FollowThread) -> None:
        await self._threads.follow(command.thread, command.after, command.runs)
        await self._say({"op": "ok", "id": command.id, "thread": command.thread})

    async def _unfollow_thread(self, command: _Thread) -> None:
        await self._threads.unfollow(command.thread)
        await self._say({"op": "ok", "id": command.id, "thread": command.thread})

    async def _follow_threads(self, command: _FollowThreads) -> None:
        await self._threads.follow_list(command.after)
        await self._ok(command)

    async def _unfollow_threads(self, command: _Command) -> None:
        await self._threads.unfollow(LIST)
        await self._ok(command)

    async def _typing(self, command: _Thread) -> None:
        await self._threads.type(command.thread)
        await self._say({"op": "ok", "id": command.id, "thread": command.thread})

    async def _ping(self, command: _Command) -> None:
        await self._say({"op": "pong", "id": command.id})

    # --- following -----------------------------------------------------------------------------

    async def _open(self, run: str, after: str | None) -> None:
        if len(self._followed) >= _MOST_FOLLOWED:
            raise LimitError(
                f"a socket follows at most {_MOST_FOLLOWED} runs",
                limit="followed",
                most=_MOST_FOLLOWED,
            )
        release = self.state.limits.attach(run, self.info.principal)
        try:
            follower = await self.state.runs.follow(
                run, after=after or None, principal=self.info.principal
            )
        except BaseException:
            release()
            raise
        self.cursors[run] = after or "0"
        self._followed[run] = self.spawn(self._pump(run, follower, release))

    async def _pump(self, run: str, follower: Follower, release: Callable[[], None]) -> None:
        started_at, first, why = asyncio.get_running_loop().time(), follower.after, "closed"
        report(FollowerOpened(run, self.wire, first > 0))
        try:
            while (batch := await follower.next()) is not None:
                items: list[tuple[str, bytes]] = []
                size = 0
                for at, data in batch.items():
                    if items and size + len(data) > _MOST_MESSAGE:
                        await self._send_events(run, items)
                        items, size = [], 0
                    items.append((at, data))
                    size += len(data) + len(at) + 24
                if items:
                    await self._send_events(run, items)
                if len(batch.records) >= MANY:  # neither store nor socket may have made it wait
                    await asyncio.sleep(0)
            await self._say({"op": "end", "run": run, "cursor": self.cursors.get(run)})
            why = "end"
        except TokenwireError as error:
            # The run was erased, the store failed, or a failover lost what was sent: the reader
            # must not wait on.
            why = "store" if isinstance(error, LogError) else "error"
            if isinstance(error, NotFoundError | GoneError):
                why, error = "gone", erased_under_reader()
            await self._say({"op": "error", "run": run, "error": self._fields(error)})
        finally:
            # An `unfollow` and a socket that the peer closed are people who go.
            has_left = self.is_left or self._followed.get(run) is not asyncio.current_task()
            follower.close(returning=not has_left)
            self.report_gone(run, why, has_left, max(0, follower.after - first), started_at)
            release()
            if self._followed.get(run) is asyncio.current_task():
                del self._followed[run]

    async def _thread_failed(self, thread: str, error: TokenwireError) -> None:
        which = {"list": True} if thread == LIST else {"thread": thread}
        await self._say({"op": "error", **which, "error": self._fields(error)})

    # --- sending -------------------------------------------------------------------------------

    async def _send_events(self, run: str, items: list[tuple[str, bytes]]) -> None:
        await self.send_text(socket_message(run, items).decode())
        self.cursors[run] = items[-1][0]

    async def _say(self, value: dict[str, Any]) -> None:
        await self.send({key: item for key, item in value.items() if item is not None})

    async def _ok(self, command: _Command, **more: Any) -> None:
        run = command.run if isinstance(command, _Run | _Follow) else None
        await self._say({"op": "ok", "id": command.id, "run": run, **more})

    def _fields(self, error: TokenwireError) -> dict[str, Any]:
        return error_fields(error, self.info.id)
