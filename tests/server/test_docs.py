"""The HTTP reference lists what the server really has."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.routing import Route

from support.server import make_app
from tokenwire import errors

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "http.md").read_text("utf-8")


def test_every_native_route_is_listed_and_every_listed_route_is_there() -> None:
    native = [each for each in make_app().wires["native"] if isinstance(each, Route)]
    have = {
        (method, route.path.replace(":path}", "}"))
        for route in native
        for method in (route.methods or set()) - {"HEAD"}
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
