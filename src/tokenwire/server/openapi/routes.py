"""``GET /openapi.json`` and ``GET /docs``: what this server's routes take and give.

Always true: a document holds the routes that are served here, and no model, key, name or address of
this deployment; the path of its server is the prefix that the application has put these under.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.openapi.catalogue import described
from tokenwire.server.openapi.document import Version, document
from tokenwire.server.openapi.page import PAGE_POLICY, page
from tokenwire.server.routes.support import route
from tokenwire.server.state import State

__all__ = ["WIRES_KEY", "routes"]

#: In a scope: the names of the wires that the application around serves of this server.
WIRES_KEY = "tokenwire.wires"
_PATHS = ("/openapi.json", "/docs")
_VERSIONS = ("3.2", "3.1")
#: One of each version and choice of wires; more would be an application that makes them up.
_MOST_KEPT = 16

#: The routes that are served, by the name of their wire.
Served = Callable[[], Mapping[str, list[BaseRoute]]]


def routes(state: State, served: Served) -> list[BaseRoute]:
    """Both routes, unless they are off."""
    if state.settings.openapi == "off":
        return []
    if state.settings.openapi == "public":
        state.public_paths |= set(_PATHS)
    documents = _Documents(state, served)

    async def openapi(state: State, request: Request, info: RequestInfo) -> Response:
        unknown = set(request.query_params) - {"version"}
        if unknown:
            raise InputError(f"unknown parameter '{min(unknown)[:80]}'", field=min(unknown)[:80])
        version = request.query_params.get("version", _VERSIONS[0])
        if version not in _VERSIONS:
            raise InputError(f"'version' must be one of {', '.join(_VERSIONS)}", field="version")
        value = await asyncio.to_thread(documents.of, request, cast(Version, version))
        return json_response({**value, "servers": [{"url": quote(info.mount) or "/"}]})

    async def docs(state: State, request: Request, info: RequestInfo) -> Response:
        # A tenth of a second of work, during which no stream of this process may stand still.
        html = await asyncio.to_thread(documents.page_of, request, quote(info.mount))
        headers = {"content-security-policy": PAGE_POLICY}
        return Response(html, headers=headers, media_type="text/html")

    return [
        route(state, "/openapi.json", openapi, "GET"),
        route(state, "/docs", docs, "GET"),
    ]


class _Documents:
    """Documents and pages, made once; in any thread."""

    def __init__(self, state: State, served: Served) -> None:
        self._state, self._served = state, served
        self._documents: dict[tuple[Version, tuple[str, ...]], dict[str, Any]] = {}
        self._pages: dict[tuple[tuple[str, ...], str], bytes] = {}

    def of(self, request: Request, version: Version) -> dict[str, Any]:
        """The document of the wires that the request's application serves."""
        names = self._names(request)
        value = self._documents.get((version, names))
        if value is None:
            groups = self._served()
            served = [route for name in names for route in groups[name]]
            value = document(*described(served, self._state.described), version=version)
            if len(self._documents) < _MOST_KEPT:
                self._documents[version, names] = value
        return value

    def page_of(self, request: Request, base: str) -> bytes:
        """The same as a page to read, whose links begin with ``base``."""
        key = (self._names(request), base)
        html = self._pages.get(key)
        if html is None:
            html = page(self.of(request, "3.2"), base=base)
            if len(self._pages) < _MOST_KEPT:
                self._pages[key] = html
        return html

    def _names(self, request: Request) -> tuple[str, ...]:
        return tuple(request.scope.get(WIRES_KEY) or self._served())
