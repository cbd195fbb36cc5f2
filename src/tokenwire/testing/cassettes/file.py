"""Cassettes as files: JSON that is laid out to be read in a diff.

Always true: what is written is read back the same; a chunk and each event in it have a line of
their own; text is stored as text wherever its bytes are text; a file is replaced as a whole or not
at all.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tokenwire.errors import ConfigError

__all__ = ["FORMAT", "VERSION", "Body", "Chunk", "Exchange", "read_cassette", "write_cassette"]

FORMAT = "tokenwire-cassette"
#: Grows when a file could no longer be read by the versions before.
VERSION = 1
#: How a response ended: ``complete``; ``cut`` and ``reset``: the connection; ``open``: silence.
ENDS = ("complete", "cut", "reset", "open")

_COLUMNS = 100
#: So deep are a request and a response, whose fields have a line each.
_DEEPEST_OPEN = 3
_EVENT = re.compile(r"(?<=\n\n)(?!\n)")
_LINE = re.compile(r"(?<=\n)")
#: Characters that are invisible, or turn the direction of what stands beside them.
_HIDDEN = re.compile(
    "[\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)


class Body(msgspec.Struct, frozen=True):
    """The content of a request. ``kind``: ``json`` (``value`` is data), ``text``, ``base64``
    (``value`` is bytes) or an empty text for none."""

    kind: str = ""
    value: Any = None


class Chunk(NamedTuple):
    """Bytes of a response, and when they arrived: seconds after the request was sent."""

    at: float
    data: bytes


class Exchange(msgspec.Struct):
    """A request, and what the provider sent."""

    method: str
    url: str
    headers: dict[str, str]
    body: Body
    status: int
    response_headers: dict[str, str]
    #: Seconds from the request to the head of the response.
    wait: float
    chunks: list[Chunk]
    #: One of `ENDS`.
    end: str = "complete"

    @property
    def content(self) -> bytes:
        """The whole body of the response."""
        return b"".join(chunk.data for chunk in self.chunks)


def read_cassette(path: Path) -> list[Exchange]:
    """The exchanges of a file. Raises `ConfigError` for one that is no cassette, or is of a later
    version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the cassette {path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError(f'{path} is not a cassette: it has no "format": "{FORMAT}"')
    version = document.get("version")
    if version != VERSION:
        raise ConfigError(
            f"the cassette {path} has version {version!r}; this tokenwire reads version {VERSION}"
        )
    exchanges: list[Exchange] = []
    try:
        for item in document["exchanges"]:
            exchanges.append(_exchange(item))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"exchange {len(exchanges) + 1} of the cassette {path} is not valid: "
            f"{type(error).__name__}: {error}"
        ) from error
    return exchanges


def write_cassette(path: Path, exchanges: list[Exchange]) -> None:
    """Write a file, and the folders that it needs."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "exchanges": [_document(exchange) for exchange in exchanges],
    }
    text = _HIDDEN.sub(_escape, _layout(document, 0)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _document(exchange: Exchange) -> dict[str, Any]:
    request: dict[str, Any] = {"method": exchange.method, "url": exchange.url}
    if exchange.headers:
        request["headers"] = exchange.headers
    if exchange.body.kind == "base64":
        request["base64"] = base64.b64encode(exchange.body.value).decode()
    elif exchange.body.kind:
        request[exchange.body.kind] = exchange.body.value
    response = {
        "status": exchange.status,
        "headers": exchange.response_headers,
        "wait": _seconds(exchange.wait),
        "chunks": [[_seconds(chunk.at), *_packed(chunk.data)] for chunk in exchange.chunks],
        "end": exchange.end,
    }
    return {"request": request, "response": response}


def _exchange(item: Mapping[str, Any]) -> Exchange:
    request, response = item["request"], item["response"]
    if response["end"] not in ENDS:
        raise ValueError(f"end is one of {', '.join(ENDS)}, not {response['end']!r}")
    kinds = [kind for kind in ("json", "text", "base64") if kind in request]
    body = Body(kinds[0], request[kinds[0]]) if kinds else Body()
    if body.kind == "base64":
        body = Body("base64", _decoded(body.value))
    return Exchange(
        method=str(request["method"]),
        url=str(request["url"]),
        headers={str(name): str(value) for name, value in request.get("headers", {}).items()},
        body=body,
        status=int(response["status"]),
        response_headers={str(name): str(value) for name, value in response["headers"].items()},
        wait=float(response["wait"]),
        chunks=[
            Chunk(float(at), b"".join(map(_unpacked, pieces))) for at, *pieces in response["chunks"]
        ],
        end=response["end"],
    )


def _seconds(value: float) -> float:
    return round(max(0.0, value), 3)


def _packed(data: bytes) -> list[Any]:
    """The text of a chunk, event by event; base64 for what is no text."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return [{"base64": base64.b64encode(data).decode()}]
    return [piece for piece in (_EVENT if "\n\n" in text else _LINE).split(text) if piece]


def _unpacked(data: str | Mapping[str, str]) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else _decoded(data["base64"])


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {text[:40]!r}") from error


def _layout(value: Any, indent: int) -> str:
    """JSON: what fits stands on one line."""
    line = json.dumps(value, ensure_ascii=False)
    fits = indent > _DEEPEST_OPEN and len(line) + indent <= _COLUMNS
    if not isinstance(value, dict | list) or not value or fits:
        return line
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], float):
        return line  # a chunk of one event
    space = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_layout(item, indent + 1)}"
            for key, item in value.items()
        ]
        opening, closing = "{", "}"
    else:
        parts = [_layout(item, indent + 1) for item in value]
        opening, closing = "[", "]"
    inside = f",\n{space}".join(parts)
    return f"{opening}\n{space}{inside}\n{' ' * indent}{closing}"
