"""The HTTP reference lists what the server really has."""

from __future__ import annotations

import re
from pathlib import Path

from support.server import make_app
from tokenwire import errors
from tokenwire.server.routes import chat as routes_chat
from tokenwire.server.routes import meta as routes_meta
from tokenwire.server.routes import runs as routes_runs
from tokenwire.server.routes import threads as routes_threads
from tokenwire.server.routes.producers import routes as routes_producers

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "http.md").read_text("utf-8")


def test_every_native_route_is_listed_and_every_listed_route_is_there() -> None:
    state = make_app().state
    native = [
        *routes_runs.routes(state),
        *routes_threads.routes(state),
        *routes_chat.routes(state),
        *routes_meta.routes(state),
        *routes_producers.routes(state),
    ]
    have = {
        (method, route.path.replace(":path}", "}"))  # type: ignore[attr-defined]
        for route in native
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    listed = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[^\s`?]*)", PAGE.split("## Access")[0]))
    have |= {("GET", path) for path in ("/ws", "/", "/openapi.json", "/docs")}
    assert have == listed


def test_every_code_of_the_server_is_listed() -> None:
    table = PAGE.split("## Errors")[1]
    own = {
        getattr(errors, name).code
        for name in (
            "InputError",
            "UnknownModelError",
            "LimitError",
            "KeyReusedError",
            "NotAuthenticatedError",
            "ForbiddenError",
            "NotFoundError",
            "GoneError",
            "CursorError",
            "ConflictError",
            "BusyError",
            "StoreFullError",
            "StoreUnavailableError",
        )
    }
    assert {code for code in own if f"`{code}`" not in table} == set()
