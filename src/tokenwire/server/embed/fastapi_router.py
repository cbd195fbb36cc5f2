"""The server's routes as a FastAPI router: the application's own dependency says who asks.

Always true: FastAPI matches the path and solves the dependency, and then the server answers as it
does by itself, so that no body is parsed twice and no stream passes another layer.
"""

# Annotations stay values here: FastAPI reads those of an endpoint.
import re
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Depends, Request, WebSocket
from fastapi.dependencies.utils import get_dependant
from fastapi.params import Depends as DependsParameter
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from tokenwire.errors import ConfigError, TokenwireError
from tokenwire.events.names import names_of
from tokenwire.server.embed.mount import Started, check_prefix, require_open, whole_path
from tokenwire.server.hosted import principal_of, set_refusal, set_user
from tokenwire.server.openapi.catalogue import described, plain_path
from tokenwire.server.openapi.document import operation_fields
from tokenwire.server.openapi.routes import WIRES_KEY
from tokenwire.server.tokens.carried import take_token

__all__ = ["fastapi_router"]

_WORDS = re.compile(r"\W+")
_CONVERTER = re.compile(r"\{(\w+)(?::\w+)?\}")


def fastapi_router(
    live: Started, *, prefix: str, user: Any, wires: Any, sockets: bool
) -> APIRouter:
    """The routes of ``wires`` under ``prefix``, WebSockets only with ``sockets``. Raises
    `ConfigError`."""
    router = APIRouter(prefix=check_prefix(prefix), route_class=_route_class(live))
    names = _chosen(live, wires)
    routes = [
        route
        for name in names
        for route in live.server.wires[name]
        if sockets or not isinstance(route, WebSocketRoute)
    ]
    has_sockets = any(isinstance(route, WebSocketRoute) for route in routes)
    depends = _dependency(user, has_sockets=has_sockets)
    for route in routes:
        if isinstance(route, WebSocketRoute):
            _add_socket(router, live, route, depends)
        elif isinstance(route, Route):
            _add_route(router, live, route, depends, names)
    for path in dict.fromkeys(route.path for route in routes if isinstance(route, Route)):
        _add_preflight(router, live, path)
    return router


def _chosen(live: Started, wires: Any) -> list[str]:
    """The names of the wires. The application has a description of its own, and a page."""
    groups = live.server.wires
    usual = [name for name in groups if name not in ("page", "openapi")]
    names = names_of(wires, "wires") if wires is not None else usual
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise ConfigError(f"unknown wire {unknown[0]!r}; choose of {', '.join(groups)}")
    return names


def _route_class(live: Started) -> type[APIRoute]:
    """Routes whose every answer, also that of a dependency which refuses, may be read by the pages
    of `Settings.cors_origin`; a token, which the server checks, takes the dependencies' place."""

    class ReadableRoute(APIRoute):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            path = self.endpoint.tokenwire_path  # type: ignore[attr-defined]
            is_open = path.startswith(live.server.state.link_paths)
            if scope["method"] in (self.methods or ()) and (
                is_open or take_token(scope) is not None
            ):
                await _Answer(live, path, None, is_open=True)(scope, receive, send)
                return
            more = live.server.cors_headers(scope)

            async def send_readable(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    if "access-control-allow-origin" not in headers:
                        headers.update(more)
                await send(message)

            await super().handle(scope, receive, send_readable if more else send)

    return ReadableRoute


def _dependency(user: Any, *, has_sockets: bool) -> DependsParameter:
    """The application's dependency, checked: one that takes a ``Request`` would fail for every
    WebSocket, if there are any."""
    if user is None:
        raise ConfigError(
            "pass router(..., user=Depends(who)), or Live(user=...): who names the principal of a "
            "request, or returns None to refuse it"
        )
    depends = user if isinstance(user, DependsParameter) else Depends(user)
    if depends.dependency is None or not callable(depends.dependency):
        raise ConfigError("user must be Depends(FUNCTION), or the function")
    pending = [get_dependant(path="/", call=depends.dependency)]
    while pending and has_sockets:
        dependant = pending.pop()
        pending += dependant.dependencies
        if dependant.request_param_name is not None:
            name = getattr(dependant.call, "__qualname__", type(dependant.call).__name__)
            raise ConfigError(
                f"{name}, which user depends on, takes a Request, which a WebSocket has not; "
                "annotate the parameter as starlette.requests.HTTPConnection, or pass "
                "router(..., sockets=False)"
            )
    return depends


def _add_route(
    router: APIRouter, live: Started, route: Route, depends: DependsParameter, names: list[str]
) -> None:
    async def endpoint(request: Request, principal: Any = depends) -> Response:
        return _Answer(live, route.path, principal, wires=names)

    endpoint.tokenwire_path = route.path  # type: ignore[attr-defined]
    path, methods = _CONVERTER.sub(_plain, route.path), route.methods or {"GET"}
    operations, _ = described([route], live.server.state.described)
    for method in sorted(methods - {"OPTIONS"}):
        operation = operations.get((method, plain_path(route.path)))
        if operation is None or method == "HEAD":
            router.add_api_route(path, endpoint, methods=[method], include_in_schema=False)
            continue
        fields = operation_fields(
            method, plain_path(route.path), operation, version="3.1", inline=True
        )
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            name=route.name,
            status_code=operation.answers[0].status,
            response_description=operation.answers[0].text,
            summary=fields.pop("summary"),
            description=fields.pop("description", ""),
            response_class=Response,
            operation_id=fields.pop("operationId"),
            tags=["tokenwire", *fields.pop("tags")],
            openapi_extra=fields,
        )


def _add_preflight(router: APIRouter, live: Started, path: str) -> None:
    """A preflight has no login; any other question for options is refused by the server."""

    async def endpoint(request: Request) -> Response:
        return _Answer(live, path, None, is_open=True)

    endpoint.tokenwire_path = path  # type: ignore[attr-defined]
    path_here = _CONVERTER.sub(_plain, path)
    router.add_api_route(path_here, endpoint, methods=["OPTIONS"], include_in_schema=False)


def _add_socket(
    router: APIRouter, live: Started, route: WebSocketRoute, depends: DependsParameter
) -> None:
    async def by_user(websocket: WebSocket, principal: Any = depends) -> None:
        # Starlette's object is between us and the server; its own two functions are the way.
        answer = _Answer(live, route.path, principal)
        await answer(websocket.scope, websocket._receive, websocket._send)

    async def endpoint(websocket: WebSocket) -> None:
        """A token takes the place of ``user``, which must not be asked then: so it is a dependency
        of a route inside of this one."""
        scope, receive, send = websocket.scope, websocket._receive, websocket._send
        if take_token(scope) is not None:
            await _Answer(live, route.path, None, is_open=True)(scope, receive, send)
            return
        overrides = scope.get("app")  # where tests replace dependencies
        inner = APIWebSocketRoute(route.path, by_user, dependency_overrides_provider=overrides)
        await inner.app(scope, receive, send)

    router.add_api_websocket_route(_CONVERTER.sub(_plain, route.path), endpoint, name=route.name)


def _plain(match: re.Match[str]) -> str:
    """A path parameter; one that may hold slashes keeps its converter."""
    return match[0] if match[0].endswith(":path}") else "{" + match[1] + "}"


class _Answer(Response):
    """The server's own answer to a request that FastAPI has matched. ``is_open``: nobody's, which
    the server refuses unless it is a preflight or brings a token."""

    def __init__(
        self,
        live: Started,
        path: str,
        principal: Any,
        *,
        is_open: bool = False,
        wires: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self._wires = tuple(wires)
        self._live, self._path, self._principal = live, path, principal
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = dict(scope)
        root = scope.get("root_path", "").rstrip("/")
        whole_path(inner, root)
        inner["root_path"] = self._mount(inner)
        inner[WIRES_KEY] = self._wires
        try:
            require_open(self._live)
            if not self._is_open:
                set_user(inner, principal_of(self._principal))
        except TokenwireError as error:
            set_refusal(inner, error)
        await self._live.server(inner, receive, send)

    def _mount(self, scope: Scope) -> str:
        """What stands before the route's own path: the prefixes of all routers, and the host's
        ``root_path``."""
        below = _CONVERTER.sub(lambda name: scope["path_params"][name[1]], self._path)
        return scope["path"].removesuffix(below)
