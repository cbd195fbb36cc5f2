"""The server as one ASGI application: routes, guard, and a lifespan that owns store and runs.

Always true: nothing is opened before the lifespan starts and everything is closed when it ends;
every request passes the guard; a wire is one module of `server.routes` with ``routes(state)``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Router
from starlette.types import Receive, Scope, Send

from tokenwire.demo import demo_server
from tokenwire.errors import ConfigError, LogError, TokenwireError
from tokenwire.observe import otel, prometheus
from tokenwire.observe.redact import keep_secret
from tokenwire.relay import Store, open_store
from tokenwire.relay.conversation.history import policy_of
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.spending.bill import zone_of
from tokenwire.relay.spending.prices import own_prices
from tokenwire.relay.upkeep.retention import Retention
from tokenwire.relay.webhooks.config import Webhooks
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.plan import LoopLimits
from tokenwire.server import probe
from tokenwire.server.edge.auth import Auth
from tokenwire.server.edge.guard import Guard
from tokenwire.server.hooks import hooks_of, named_function
from tokenwire.server.hosted import Hosted
from tokenwire.server.openapi import routes as openapi_routes
from tokenwire.server.own_wires.installed import checked, installed_wires, log_broken_wire
from tokenwire.server.own_wires.routes import own_routes
from tokenwire.server.routes import ag_ui, ai_sdk, anthropic, openai
from tokenwire.server.routes import chat as routes_chat
from tokenwire.server.routes import meta as routes_meta
from tokenwire.server.routes import runs as routes_runs
from tokenwire.server.routes import static as static_files
from tokenwire.server.routes import threads as routes_threads
from tokenwire.server.routes.a2a import routes as a2a
from tokenwire.server.routes.a2a.push import open_push
from tokenwire.server.routes.durable import runs as durable_runs
from tokenwire.server.routes.langgraph import routes as langgraph
from tokenwire.server.routes.producers import routes as producers
from tokenwire.server.settings import Settings
from tokenwire.server.sockets import native as native_socket
from tokenwire.server.spending import overview as routes_overview
from tokenwire.server.spending import routes as routes_budgets
from tokenwire.server.spending import usage as routes_usage
from tokenwire.server.state import State
from tokenwire.tools.registry import ToolSet
from tokenwire.wire import catalogue
from tokenwire.wire.own import OwnWire, label_of

if TYPE_CHECKING:
    from tokenwire.agents.context import RunContext
    from tokenwire.agents.prepare import Preparation
    from tokenwire.providers.http.client import HttpClient
    from tokenwire.providers.registry import Registry
    from tokenwire.relay.conversation.conversations import Conversations
    from tokenwire.relay.conversation.summary import Summarise
    from tokenwire.relay.outbox import OnEnd

__all__ = ["WIRES", "App", "create_app", "default_registry"]

#: The routes by the name of their wire; ``native`` has conversations and models as well.
WIRES: dict[str, tuple[Callable[[State], list[BaseRoute]], ...]] = {
    "native": (
        routes_runs.routes,
        routes_threads.routes,
        routes_chat.routes,
        routes_meta.routes,
        routes_usage.routes,
        routes_overview.routes,
        routes_budgets.routes,
        probe.routes,
        producers.routes,
        native_socket.routes,
    ),
    "ai-sdk": (ai_sdk.routes,),
    "ag-ui": (ag_ui.routes,),
    "openai": (openai.routes,),
    "anthropic": (anthropic.routes,),
    "a2a": (a2a.routes,),
    "langgraph": (langgraph.routes,),
    "durable-streams": (durable_runs.routes,),
}
#: What wires are called elsewhere.
_WORDS = ("events", "tokens", "token", "websocket")
_log = logging.getLogger("tokenwire.server")


class App:
    """The application. ``state`` is what its routes share."""

    def __init__(
        self,
        settings: Settings,
        *,
        registry: Registry | None = None,
        store: Store | None = None,
        tools: ToolSet | None = None,
        auth: Auth | None = None,
        agents: Iterable[object] = (),
        app: object = None,
        on_end: OnEnd | None = None,
        prepare: Callable[[RunContext], Any] | None = None,
        before_start: Callable[..., Any] | None = None,
        before_tool: Callable[..., Any] | None = None,
        after_tool: Callable[..., Any] | None = None,
        summarise: Summarise | None = None,
        http: HttpClient | None = None,
        hosted: Hosted | None = None,
        wires: Iterable[object] = (),
    ) -> None:
        self.state = State(settings, auth=auth, hosted=hosted)
        if settings.agent or agents:
            from tokenwire.agents.load import agents_of, listed

            self.state.agents = agents_of([*settings.agent, *listed(agents)])
        self._app, self._on_end = app, on_end or named_function(settings.on_end)
        urls, secrets = settings.webhook, settings.webhook_secrets
        for secret in secrets:
            keep_secret(secret)
        self._webhooks = Webhooks(urls, secrets) if urls else None
        if settings.webhook_links and settings.public_url is None:
            raise ConfigError("--webhook-links needs --public-url: links lead to this server")
        prepare = prepare or named_function(settings.prepare)
        self._prepare: Preparation | None = None
        if prepare is not None:
            from tokenwire.agents.prepare import preparation_of

            self._prepare = preparation_of(prepare)
        self._hooks = hooks_of(
            settings, before_start=before_start, before_tool=before_tool, after_tool=after_tool
        )
        self._summarise = summarise
        self._zone = zone_of(settings.usage_zone)
        self._own_prices = own_prices(settings.price)
        policy_of(settings.history)
        self._registry, self._log_argument, self._tools = registry, store, tools
        self._http = http
        self._opened_here = AsyncExitStack()
        self._retention: Retention | None = None
        self._sweeper: asyncio.Task[None] | None = None
        #: The event loop that it was started in; None before.
        self.loop: asyncio.AbstractEventLoop | None = None
        #: `startup` was awaited before the server's lifespan began.
        self.started_outside = False
        files = static_files.static_files(hosted=hosted is not None)
        self.state.public_paths |= set(files)
        #: The routes by the name of their wire; ``page``: the chat page;
        #: ``openapi``: what describes the others.
        self.wires = {name: _routes(makers, self.state) for name, makers in WIRES.items()}
        self.wires["page"] = static_files.routes(files)
        self.wires["openapi"] = openapi_routes.routes(self.state, lambda: self.wires)
        routes = [route for wire in self.wires.values() for route in wire]
        self._router = Router(routes, default=_nothing, redirect_slashes=False)
        self._guarded = Guard(self._routed, self.state)
        for wire in wires:
            self.add_wire(checked(wire))
        for wire in installed_wires():
            try:
                self.add_wire(wire)
            except ConfigError as error:
                log_broken_wire(f"'{wire.name}' ({label_of(wire.encoder)})", error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._guarded(scope, receive, send)

    def add_wire(self, wire: OwnWire) -> None:
        """Serve ``wire``, which is checked. Raises `ConfigError` for a name or path that is
        taken."""
        names = {*self.wires, *catalogue.WIRES, *self.state.own_wires, *_WORDS}
        if wire.name in names:
            raise ConfigError(f"the name '{wire.name}' of a wire is taken; give it another one")
        for path in (wire.path, f"{wire.path}/x") if wire.path is not None else ():
            scope = {"type": "http", "path": path, "method": "POST", "root_path": ""}
            if any(route.matches(scope)[0] is not Match.NONE for route in self._router.routes):
                raise ConfigError(
                    f"the path '{wire.path}' of the wire '{wire.name}' is taken; give it another "
                    "one"
                )
        self.state.own_wires[wire.name] = wire
        self.wires[wire.name] = own_routes(self.state, wire)
        self._router.routes += self.wires[wire.name]

    def cors_headers(self, scope: Scope) -> dict[str, str]:
        """The headers with which a page of another origin may read an answer to the request of
        ``scope``; none where it may not."""
        headers = dict(self._guarded.cors(dict(scope["headers"])))
        if b"access-control-allow-origin" not in headers:
            return {}
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}

    async def startup(self) -> None:
        """Open the store, begin to serve runs."""
        from tokenwire.relay.threads import Threads
        from tokenwire.server.tokens.door import GrantedRuns

        state = self.state
        self.loop = asyncio.get_running_loop()
        if state.settings.otel:
            _trace(state.settings)
        state.registry = self._registry or await self._opened_here.enter_async_context(
            default_registry([*state.settings.model, *state.settings.aliases.values()])
        )
        if aliases := state.settings.aliases:
            state.registry = aliased(state.registry, aliases, state.agents)
        for name in state.settings.model:
            _, target = state.registry.resolve(name)  # report a bad name now, not at first use
            keep_secret(target.api_key)
        log = self._log_argument
        state.store = open_store(state.settings.store or "memory:") if log is None else log
        state.store.retain(state.settings.retention)
        if (tools := self._tools) is None:
            tools = await self._opened_here.enter_async_context(tools_of(state.settings))
        state.runs = GrantedRuns(
            state.store,
            registry=state.registry,
            http=self._http,
            tools=tools,
            deadlines=deadlines(state.settings),
            limits=loop_limits(state.settings),
            bounds=log_bounds(state.settings),
            wait_timeout=state.settings.wait_timeout,
            models=state.settings.model,
            agents=state.agents,
            app=self._app,
            on_end=self._on_end,
            prepare=self._prepare,
            webhooks=self._webhooks,
            hooks=self._hooks,
            when_erased=state.encoder_states.erase,
        )
        self._open_settling(state)
        open_push(state)
        state.threads = Threads(state.runs)
        state.quotas.store = state.store
        state.conversations = self._conversations(state)
        self._open_inbox(state)
        await state.runs.open()
        state.conversations.open()
        await state.identify.open(state.store)
        state.auth.start()
        for service in state.services:
            await service.start(state.store)
        # The lag of the event loop is measured whether somebody reads or not.
        state.connections.sweep_with(lambda now: True)
        state.connections.sweep_with(state.recheck.sweep)
        state.connections.wake()
        self._retention = _open_retention(state)
        self._sweeper = asyncio.create_task(_upkeep(state))
        if state.settings.metrics:
            prometheus.start()

    def _open_settling(self, state: State) -> None:
        from tokenwire.relay.spending.settling import Settling

        if state.settings.usage or state.budgets.any:
            state.settling = Settling(state.store, self._zone, self._own_prices)
            state.budgets.open(state.store)
            worker, slice_tokens = state.runs.worker, state.settings.budget_slice
            worker.settle_with(state.settling, state.budgets.configured, slice_tokens=slice_tokens)

    def _open_inbox(self, state: State) -> None:
        from tokenwire.relay.waiting.inbox import Inbox
        from tokenwire.relay.waiting.links import Links

        state.inbox, state.inbox_links = Inbox(state.runs), Links(state.runs)
        state.approval_links.open(state.inbox_links)
        if self._webhooks is not None and state.settings.webhook_links:
            self._webhooks.links = state.approval_links.for_webhook

    def _conversations(self, state: State) -> Conversations:
        from tokenwire.relay.conversation.conversations import Conversations

        return Conversations(
            state.runs,
            policy=state.settings.history,
            while_busy=state.settings.while_busy,
            summarise=self._summarise,
            begins=state.quotas.began,
        )

    async def abandon(self) -> None:
        """After a `startup` that failed: close what it had opened."""
        await self._opened_here.aclose()

    async def shutdown(self) -> None:
        """Notify readers, hand runs over, close what was opened."""
        state = self.state
        state.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._retention is not None:
            await self._retention.aclose()
        await state.conversations.aclose()
        await state.runs.drain(state.settings.graceful_stop / 2)
        for service in reversed(state.services):
            await service.stop()
        await state.runs.aclose()  # the store as well
        await state.connections.aclose()
        await state.recheck.aclose()
        await state.auth.aclose()
        await self._opened_here.aclose()

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._router(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        started = False
        while True:
            message = await receive()
            stage = message["type"].removeprefix("lifespan.")
            try:
                if stage == "startup":
                    if not self.started_outside:
                        await self.startup()
                    started = True
                elif started:
                    await self.shutdown()
            except Exception as error:
                text = error.message if isinstance(error, TokenwireError) else repr(error)
                _log.error("%s failed: %s", stage, text)
                await send({"type": f"lifespan.{stage}.failed", "message": text})
                return
            await send({"type": f"lifespan.{stage}.complete"})
            if stage == "shutdown":
                return


def create_app(
    settings: Settings | None = None,
    *,
    registry: Registry | None = None,
    store: Store | None = None,
    tools: ToolSet | None = None,
    auth: Auth | None = None,
    agents: Iterable[object] = (),
    app: object = None,
    on_end: OnEnd | None = None,
    prepare: Callable[[RunContext], Any] | None = None,
    before_start: Callable[..., Any] | None = None,
    before_tool: Callable[..., Any] | None = None,
    after_tool: Callable[..., Any] | None = None,
    summarise: Summarise | None = None,
    wires: Iterable[object] = (),
) -> App:
    """The server as an ASGI application. ``settings``: default those of the class, without file
    and environment; ``registry``: the models by name; ``store``: a store that it opens and closes;
    ``tools``: a tool set that models may use; ``auth``: API keys or a check of your own;
    ``agents``: functions made by `tokenwire.agent`, objects of frameworks, or their names, beside
    those of the settings; ``app``: what they get as ``ctx.app``. ``on_end``: called with every
    ended run, at least once; ``prepare``: a function of a `tokenwire.RunContext` with which each
    run of a model begins; ``before_start``, ``before_tool``, ``after_tool``, ``summarise``,
    ``wires``: as in `Live`. Raises `ConfigError` for unsafe or contradicting settings."""
    return App(
        settings or Settings(),
        registry=registry,
        store=store,
        tools=tools,
        auth=auth,
        agents=agents,
        app=app,
        on_end=on_end,
        prepare=prepare,
        before_start=before_start,
        before_tool=before_tool,
        after_tool=after_tool,
        summarise=summarise,
        wires=wires,
    )


def deadlines(settings: Settings) -> Deadlines:
    """The provider's clocks of the settings."""
    return Deadlines(
        connect=settings.connect_timeout,
        first_event=settings.first_event_timeout,
        idle=settings.idle_timeout,
        keep_alive=settings.keep_alive_timeout,
        total=settings.total_timeout,
    )


def loop_limits(settings: Settings) -> LoopLimits:
    """The bounds of a run's tool loop."""
    return LoopLimits(
        steps=settings.run_steps,
        calls=settings.run_tool_calls,
        parallel=settings.run_tools_at_once,
        approval_timeout=settings.approval_timeout,
    )


def log_bounds(settings: Settings) -> ProducerLimits:
    """The bounds of a run's log."""
    return ProducerLimits(records=settings.run_events, bytes=settings.run_bytes)


@asynccontextmanager
async def default_registry(models: list[str]) -> AsyncIterator[Registry]:
    """A registry from the environment; with ``demo`` among the models, the demo runs meanwhile."""
    from tokenwire.providers.registry import Registry

    if "demo" not in models:
        yield Registry()
        return
    async with demo_server() as url:
        yield Registry(demo_url=url)


def aliased(registry: Registry, aliases: dict[str, str], agents: Iterable[str]) -> Registry:
    """``registry`` with ``aliases``. Raises `ConfigError` for one that is an agent's name, or leads
    to an agent."""
    from tokenwire.providers.routing.aliases import Aliased, shadowed

    names = set(agents)
    for name, model in aliases.items():
        if name in names:
            raise ConfigError(f"the alias '{name}' is the name of an agent; choose another")
        if model in names:
            raise ConfigError(f"the alias '{name}' leads to an agent; aliases are of models")
    for name in shadowed(aliases, registry):
        _log.warning(
            "the alias '%s' takes the place of the model of that name: it is %s",
            name,
            aliases[name],
        )
    return Aliased(registry, aliases)


def _open_retention(state: State) -> Retention:
    deliveries = [state.runs.outbox] if state.runs.outbox is not None else []
    retention = Retention(state.store, state.settings.retention, deliveries=deliveries)
    retention.cleaners += [state.encoder_states.forget_expired, state.threads.forget_expired]
    if state.settling is not None:
        retention.cleaners.append(state.settling.forget_expired)
        retention.cleaners.append(state.budgets.forget_expired)
    retention.open()
    return retention


async def _upkeep(state: State) -> None:
    """Look after what no run and no conversation takes with it when it goes."""
    pause = min(600.0, max(0.5, state.settings.retention / 4))
    while True:
        await asyncio.sleep(pause)
        try:
            await state.threads.forget_unused(state.settings.retention)
            await state.identify.sessions.sweep()
            await state.identify.tokens.sweep()
            await state.quotas.sweep()
            if state.settling is not None:
                await state.settling.ledger.sweep()
                await state.budgets.stored.sweep()
            await state.inbox_links.sweep()
            await state.inbox.sweep()
        except LogError as error:
            _log.warning("what is old could not be erased: %s", error)


def _trace(settings: Settings) -> None:
    """Record spans and metrics. Raises `ConfigError` where OpenTelemetry is not installed."""
    send_to, baggage, chunks = settings.otel_send_to, settings.otel_baggage, settings.otel_chunks
    if otel.start(send_to=send_to, baggage=baggage, chunks=chunks) is None:
        raise ConfigError("OpenTelemetry is not installed: pip install 'tokenwire[otel]'")


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "no such path"})
        return
    raise HTTPException(404)


def _routes(
    makers: tuple[Callable[[State], list[BaseRoute]], ...], state: State
) -> list[BaseRoute]:
    return [route for routes in makers for route in routes(state)]


def tools_of(settings: Settings) -> AbstractAsyncContextManager[ToolSet]:
    """The tools of the ``tools`` setting; the demo has its own."""
    from tokenwire.tools.load import open_tools

    names = settings.tools
    return open_tools(["demo"] if not names and settings.model == ["demo"] else names)
