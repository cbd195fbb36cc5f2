"""The server's routes inside of another ASGI application, below a prefix.

Always true: a request reaches a route only after the application has named its user, or with a
token that the server checks itself; before the lifespan it is answered with 503, which says what to
do.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol
from urllib.parse import quote, unquote

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenwire.errors import ConfigError, TokenwireError
from tokenwire.exits import EXITS, is_by_signal
from tokenwire.server.app import App
from tokenwire.server.edge.problems import HTTPProblem
from tokenwire.server.hosted import UNKNOWN_USER, User, ask_user, set_refusal
from tokenwire.server.tokens.carried import take_token

__all__ = [
    "Mounted",
    "Started",
    "Wrapped",
    "check_prefix",
    "require_open",
    "whole_path",
]

#: The page and the dashboard say themselves that nobody is signed in.
_PUBLIC = ("/", "/dash", "/favicon.ico", "/livez")
_log = logging.getLogger("tokenwire.server")


class Started(Protocol):
    """A server that somebody starts: `tokenwire.server.Live`."""

    @property
    def server(self) -> App:
        """The application inside."""
        ...

    def require_open(self) -> None:
        """Raise `RuntimeError` outside of its lifespan."""
        ...

    async def startup(self) -> None:
        """Begin to serve."""
        ...

    async def shutdown(self) -> None:
        """End."""
        ...


class Mounted:
    """The server of ``live``, whose prefix is the scope's ``root_path``."""

    def __init__(self, live: Started, user: User) -> None:
        self._live, self._user = live, user

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket; a lifespan of its own is `Live`'s."""
        if scope["type"] == "lifespan":
            await _lifespan(self._live, receive, send)
            return
        has_token = take_token(scope) is not None  # out of the address, also for the host's log
        scope = dict(scope)
        # Starlette's `Mount` has added its prefix to the `root_path` that was there before.
        whole_path(scope, scope.get("app_root_path", ""))
        find_mount(scope)
        if scope["path"] == scope.get("root_path") and scope["type"] == "http":
            await _slash(scope)(scope, receive, send)
            return
        try:
            require_open(self._live)
            if not has_token and not self._is_public(scope) and not is_preflight(scope):
                await self._ask(scope)
        except TokenwireError as error:
            set_refusal(scope, error)
        except HTTPException as error:
            if "app" in scope and scope["type"] == "http":
                # The application around has its own form for it.
                raise with_headers(error, self._live.server.cors_headers(scope)) from None
            response = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
            set_refusal(scope, response)
        await self._live.server(scope, receive, send)

    async def _ask(self, scope: Scope) -> None:
        try:
            await ask_user(self._user, scope)
        except (TokenwireError, HTTPException):
            raise
        except (Exception, *EXITS) as error:
            if is_by_signal(error):
                raise
            _log.exception("user failed")
            raise TokenwireError(UNKNOWN_USER) from None

    def _is_public(self, scope: Scope) -> bool:
        """The page's own files are nobody's, and neither is the description of the routes."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith(self._live.server.state.link_paths):
            return True
        if path in ("/openapi.json", "/docs"):
            return path in self._live.server.state.public_paths
        return path.startswith("/assets/") or path in _PUBLIC


class Wrapped:
    """``app``, with the server of ``live`` below ``prefix``."""

    def __init__(self, live: Started, app: ASGIApp, prefix: str, user: User) -> None:
        self._live, self._app = live, app
        self._prefix = check_prefix(prefix)
        if not self._prefix:
            raise ConfigError("wrap needs a prefix such as '/ai'")
        self._mounted = Mounted(live, user)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, WebSocket, or the lifespan, which both applications share."""
        if scope["type"] == "lifespan":
            await self._both_lifespans(scope, receive, send)
            return
        root = scope.get("root_path", "").rstrip("/")
        below, path = root + self._prefix, scope["path"]
        if root and (path == self._prefix or path.startswith(f"{self._prefix}/")):
            scope = dict(scope)
            whole_path(scope, root)  # a proxy took it off
            path = scope["path"]
        if path == below and scope["type"] == "http":
            await _slash(scope)(scope, receive, send)
        elif path.startswith(f"{below}/"):
            take_token(scope)  # out of the address that the host logs
            await self._mounted({**scope, "root_path": below}, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _both_lifespans(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start ours, then the application's, if it has one; end them the other way round."""
        host = _HostLifespan(self._app, scope)
        await _lifespan(self._live, receive, send, host)


class _HostLifespan:
    """The lifespan of an application that may have none (Django raises)."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app, self._scope = app, scope
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._outgoing: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def say(self, stage: str) -> Message | None:
        """Send one stage; the application's answer, or None if it has no lifespan."""
        if self._task is None:
            if stage != "startup":
                return None
            self._task = asyncio.create_task(self._run())
        elif self._task.done():
            return None
        await self._incoming.put({"type": f"lifespan.{stage}"})
        return await self._outgoing.get()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._incoming.get, self._outgoing.put)
        except Exception as error:  # the specification lets an application refuse so
            _log.debug("the application has no lifespan: %s", type(error).__name__)
        finally:
            self._outgoing.put_nowait(None)


def _slash(scope: Scope) -> RedirectResponse:
    """To the same path with a slash: what the page names is beside it, and so below the slash."""
    query = scope.get("query_string", b"").decode("latin-1")
    return RedirectResponse(f"{quote(scope['path'])}/{query and '?'}{query}")


async def _lifespan(
    live: Started, receive: Receive, send: Send, host: _HostLifespan | None = None
) -> None:
    while True:
        stage = (await receive())["type"].removeprefix("lifespan.")
        reply: Message | None = None
        try:
            if stage == "startup":
                await live.startup()
                reply = await host.say("startup") if host is not None else None
            else:
                reply = await host.say("shutdown") if host is not None else None
                await live.shutdown()
        except Exception as error:
            text = error.message if isinstance(error, TokenwireError) else repr(error)
            _log.error("%s failed: %s", stage, text)
            await send({"type": f"lifespan.{stage}.failed", "message": text})
            return
        if reply is not None and reply["type"].endswith(".failed"):
            await live.shutdown()
            await send(reply)
            return
        await send({"type": f"lifespan.{stage}.complete"})
        if stage == "shutdown":
            return


def whole_path(scope: Scope, root: str) -> None:
    """Give ``scope``'s own path the ``root`` that a proxy took off before, as ASGI has it."""
    root = root.rstrip("/")
    if root and not scope["path"].startswith(f"{root}/"):
        scope["path"] = root + scope["path"]
        if scope.get("raw_path"):
            scope["raw_path"] = quote(root).encode("ascii") + scope["raw_path"]


def find_mount(scope: Scope) -> None:
    """Give ``scope`` the whole path and a ``root_path`` as ASGI has them where a host has taken its
    prefix off the path and does not say which (Litestar, which adds a slash at the end as well):
    the path as it was sent shows it."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    sent = unquote(scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1"))
    tail = path.rstrip("/")
    if not sent or path == sent or path.startswith(f"{root}/" if root else sent):
        return
    if root and not sent.startswith(f"{root}/"):
        sent = root + sent
    whole = sent.rstrip("/")
    mount = whole.removesuffix(tail)
    if path.startswith("/") and whole.endswith(tail) and mount.startswith(root) and mount != root:
        scope["path"], scope["root_path"] = sent, mount


def is_preflight(scope: Scope) -> bool:
    """A browser's question whether a page of another origin may ask: it comes without a login, and
    only the server's headers answer it."""
    names = [name for name, _ in scope["headers"]]
    is_asked = b"access-control-request-method" in names
    return scope["type"] == "http" and scope["method"] == "OPTIONS" and is_asked


def with_headers(error: HTTPException, headers: dict[str, str]) -> HTTPException:
    """A copy of ``error`` that has ``headers`` as well, as one error may be raised for many."""
    copy = type(error).__new__(type(error))
    copy.__dict__.update(error.__dict__)
    copy.args = error.args
    copy.headers = {**headers, **(error.headers or {})}
    return copy


def check_prefix(prefix: str) -> str:
    """A prefix as ASGI has it: '' or '/ai'. Raises `ConfigError`."""
    if prefix in ("", "/"):
        return ""
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise ConfigError(f"a prefix begins with '/' and does not end with it, not {prefix!r}")
    return prefix


def require_open(live: Started) -> None:
    """Raise the 503 of a server whose lifespan has not begun."""
    try:
        live.require_open()
    except RuntimeError as error:
        _log.error("%s", error)
        raise HTTPProblem(503, "not_started", str(error)) from None
