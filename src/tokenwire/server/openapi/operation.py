"""The words in which a route is described: parameters, body, answers, problems.

Always true: an `Operation` is all that a document says of one method of one path; a type of the
code stands where a schema is meant (a `msgspec.Struct`, an annotation), or a JSON Schema as it is.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "EVENT_STREAM",
    "JSON",
    "LINES",
    "Access",
    "Answer",
    "Body",
    "Form",
    "Operation",
    "Param",
    "Socket",
    "answer",
    "body",
    "header",
    "query",
    "stream",
]

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
LINES = "application/x-ndjson"

#: Whose body an error has.
Form = Literal["native", "openai", "anthropic", "a2a", "rpc", "langgraph"]
#: What a request shows: an API key (or session), nothing, or a token of the route's own.
Access = Literal["key", "none", "token"]


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """A query parameter or a header. ``schema``: its JSON Schema."""

    name: str
    place: Literal["query", "header"]
    text: str
    schema: dict[str, Any]


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A request's body. ``type``: a type of the code, or a JSON Schema; ``content``: its media
    type."""

    type: Any
    content: str = JSON
    required: bool = True


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One success. ``type``: of a JSON body; ``items``: of the events of a stream, with ``content``
    its media type; neither: no body. ``headers``: what its headers say, by name."""

    status: int
    text: str
    type: Any = None
    items: Any = None
    content: str = JSON
    headers: dict[str, str] = {}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. ``problems``: codes of errors beyond those that every route of its
    kind has; ``form``: whose body these have; ``raw``: bodies are not read as JSON first;
    ``costly``: it can be refused to pages of other sites, as all are that change something."""

    summary: str
    tag: str
    text: str = ""
    params: tuple[Param, ...] = ()
    body: Body | None = None
    answers: tuple[Answer, ...] = ()
    problems: tuple[str, ...] = ()
    form: Form = "native"
    access: Access = "key"
    raw: bool = False
    costly: bool = False


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """A WebSocket: what its messages are; OpenAPI has no word for one."""

    summary: str
    text: str


def query(name: str, text: str, **schema: Any) -> Param:
    """A query parameter, a text unless ``schema`` says otherwise."""
    return Param(name=name, place="query", text=text, schema={"type": "string", **schema})


def header(name: str, text: str, **schema: Any) -> Param:
    """A header, a text unless ``schema`` says otherwise."""
    return Param(name=name, place="header", text=text, schema={"type": "string", **schema})


def body(kind: Any, *, content: str = JSON, required: bool = True) -> Body:
    """The body of a request."""
    return Body(type=kind, content=content, required=required)


def answer(status: int, text: str, kind: Any = None, **headers: str) -> Answer:
    """A JSON body of ``kind``, or none; ``headers`` with ``_`` for ``-``."""
    return Answer(status=status, text=text, type=kind, headers=_named(headers))


def stream(text: str, items: Any, content: str = EVENT_STREAM, status: int = 200) -> Answer:
    """A stream of ``items``, one in each event or line."""
    headers = {"Tokenwire-Run": "the run's id"}
    return Answer(status=status, text=text, items=items, content=content, headers=headers)


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): text for name, text in headers.items()}
