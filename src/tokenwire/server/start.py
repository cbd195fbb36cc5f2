"""From settings to a listening server: bind, uvicorn with our protocol, and a stop that ends.

Always true: what cannot work is said in one line (`ConfigError`) before anything serves; a stop
takes at most ``graceful_stop`` seconds, with streams open or not; a second signal ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from tokenwire.errors import ConfigError
from tokenwire.exits import run_to_end
from tokenwire.server.app import App
from tokenwire.server.edge.connection.http import GuardedProtocol
from tokenwire.server.edge.connection.watch import Watch
from tokenwire.server.edge.connection.websocket import GuardedWebSocket
from tokenwire.server.settings import Settings
from tokenwire.server.starts.early import EarlyRefusals

if TYPE_CHECKING:
    from tokenwire.providers.registry import Registry

__all__ = [
    "Server",
    "ThreadedServer",
    "bind",
    "check",
    "check_names",
    "listen",
    "raise_file_limit",
    "server_for",
    "unbound",
]

BACKLOG = 4096
#: Files beside the connections: the store, runs at their providers, tools.
_OTHER_FILES = 512


def check(settings: Settings, *, keys_on: bool) -> None:
    """Refuse what would be unsafe or cannot work."""
    if not settings.loopback and not keys_on and not settings.insecure:
        raise ConfigError(
            f"{settings.host} can be reached from outside and no API key is set: give "
            "--api-key-file FILE, TOKENWIRE_API_KEYS or --jwt-issuer URL, or --insecure to serve "
            "everybody"
        )
    for origin in settings.cors_origin:
        scheme, _, host = origin.partition("://")
        if scheme not in ("http", "https") or not host or "/" in host or "*" in origin:
            raise ConfigError(
                f"--cors-origin takes exact origins such as https://app.example, not '{origin}'"
            )
    if not settings.model:
        raise ConfigError("no model is given: --model NAME")
    if settings.durable_streams_webhooks and settings.durable_streams != "readwrite":
        raise ConfigError("--durable-streams-webhooks needs --durable-streams readwrite")
    if settings.workers > 1 and (settings.store or "memory:").startswith("memory"):
        raise ConfigError("several workers need a store that they share: --store sqlite:FILE")


def check_names(settings: Settings) -> Registry:
    """Refuse models and stores that do not exist, before the port is looked at; the registry that
    knows the models."""
    from tokenwire.providers.registry import Registry
    from tokenwire.providers.routing.aliases import Aliased
    from tokenwire.relay import open_store

    registry = Registry(demo_url="http://127.0.0.1:9/v1")  # it is not called
    if settings.aliases:
        registry = Aliased(registry, settings.aliases)
    for name in settings.model:
        registry.resolve(name)
    open_store(settings.store or "memory:")  # nothing is opened before its start
    return registry


def raise_file_limit(settings: Settings, note: Callable[[str], None]) -> None:
    """Let the process open as many files as ``connections`` needs; where the system does not allow
    it, say so and accept fewer, so that they are refused in order instead of failing anywhere."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    necessary = settings.connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    if soft != endless and soft < necessary:
        possible = necessary if hard == endless else min(necessary, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            soft = possible
        except (OSError, ValueError):
            pass
    if soft != endless and soft < necessary:
        settings.connections = max(16, soft - _OTHER_FILES)
        note(
            f"tokenwire: --connections {necessary - _OTHER_FILES} is more than the limit of {soft} "
            f"open files allows; {settings.connections} are accepted (raise it with ulimit -n)"
        )


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises `ConfigError` when the address is taken or not ours."""
    listener = unbound(settings)
    listen(listener, settings)
    return listener


def unbound(settings: Settings) -> socket.socket:
    """A socket for the address, which is not taken yet: workers that are forked share it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by every connection: what a reader that stopped can make the kernel hold.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_buffer)
    return listener


def listen(listener: socket.socket, settings: Settings) -> None:
    """Take the address, unless a process that shares the socket has done so. Raises `ConfigError`
    when it is taken by another one or not ours."""
    host, port = settings.host.strip("[]"), settings.port
    try:
        if not listener.getsockname()[1]:
            listener.bind((host, port))
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host}:{port}: {reason.lower()}; choose another with --port"
        ) from error
    listener.setblocking(False)


#: Connections that are accepted in one turn of the event loop. uvloop accepts one for each handle
#: that listens: with a single one, a server whose turns take 30 ms takes 33 in a second, and others
#: wait where nobody sees them; 32 took half of a turn of 10 ms. (asyncio's own loop accepts as
#: many as there are.)
_ACCEPTS = 16


class Server(uvicorn.Server):
    """uvicorn, with readers told to come back before it closes, and an end on every path."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self.tokenwire = app
        #: Called once connections are accepted.
        self.on_started: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        if sockets is not None and not isinstance(
            asyncio.get_running_loop(), asyncio.BaseEventLoop
        ):
            more = [each.dup() for each in sockets for _ in range(_ACCEPTS - 1)]
            for each in more:
                each.setblocking(False)
            sockets = [*sockets, *more]
        await super().startup(sockets)
        self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop within the grace: readers first, then what is left."""
        for server in self.servers:
            server.close()  # no new connection
        self.tokenwire.state.drain()
        await asyncio.sleep(0.1)  # WebSockets are closed next; let them hear `reconnect` before
        await super().shutdown(sockets=None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops gently, the second at once."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self.should_exit = True


def server_for(app: App) -> Server:
    """A uvicorn server of ``app``, not yet running."""
    settings = app.state.settings
    early = EarlyRefusals(app.state)
    watch = Watch(settings, app.state.connections, app.state.budget, early)
    bound: dict[str, Any] = {"watch": watch}
    config = uvicorn.Config(
        app,
        http=type("BoundProtocol", (GuardedProtocol,), {**bound, "__slots__": ()}),
        ws=type("BoundWebSocket", (GuardedWebSocket,), bound),
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=settings.drain_seconds,
        ws_max_size=64 << 10,
        ws_ping_interval=settings.ping,
        ws_ping_timeout=settings.ping,
        ws_per_message_deflate=False,
    )
    return Server(config, app)


class ThreadedServer:
    """A server in a thread of its own, on a free loopback port: for tests and notebooks."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._listener = bind(app.state.settings)
        self._server = server_for(app)
        self._thread = threading.Thread(target=self._run, name="tokenwire-server", daemon=True)
        self._ready = threading.Event()
        self._port = 0
        self.error: BaseException | None = None

    @property
    def port(self) -> int:
        """The port that was taken."""
        return self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """Where to ask."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> ThreadedServer:
        self._port = self.port
        self._server.on_started = self._ready.set
        self._thread.start()
        self._ready.wait(15)
        if self.error is not None or not self._server.started:
            raise ConfigError("the server did not start") from self.error
        return self

    def __exit__(self, *exc: Any) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                run_to_end(runner, self._server.serve(sockets=[self._listener]))
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()
            with contextlib.suppress(OSError):
                self._listener.close()
