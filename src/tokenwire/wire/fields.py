"""Reading the JSON of other people's requests: typed, with errors that name the field.

Always true: nothing of a request reaches a URL, a header or a key of a provider: the fields that
other gateways take for that are refused, also on wires that otherwise tolerate unknown fields.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import FilePart, Part, TextPart

__all__ = [
    "ClientToolResult",
    "Decision",
    "Fields",
    "media_part",
    "one_name",
    "refuse_routing",
    "text_of",
]

_ROUTING = (
    "base_url baseUrl baseURL api_base apiBase api_key apiKey headers extra_headers extra_body "
    "extraBody extraHeaders api_version organization"
).split()
_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,128}")
_MEDIA_TYPE = re.compile(r"[\w.+*-]+/[\w.+*-]+")
_URL_SAFE = str.maketrans("-_", "+/")


class Decision(msgspec.Struct, frozen=True):
    """A decision on the approval ``name``. ``arguments``: replace those of the tool call."""

    name: str
    approved: bool
    reason: str | None = None
    arguments: dict[str, Any] | None = None


class ClientToolResult(msgspec.Struct, frozen=True):
    """The result of the client tool's call ``name``: any JSON value."""

    name: str
    content: Any = None


class Fields:
    """A JSON object at ``path``. Null counts as absent."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise InputError(f"{_label(path)} must be a JSON object", field=path)
        self.value = cast(dict[str, Any], value)
        self.path = path

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def fail(self, name: str, what: str) -> InputError:
        """The error that says what is wrong with a field."""
        path = self.at(name)
        return InputError(f"{_label(path)} {what}", field=path)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.value.get(name) is not None

    def raw(self, name: str) -> Any:
        """The value as it came, or None."""
        return self.value.get(name)

    def text(self, name: str, *, required: bool = False) -> str | None:
        """A text."""
        value = self.value.get(name)
        if value is None and not required:
            return None
        if not isinstance(value, str):
            raise self.fail(name, "must be a string" if value is not None else "is missing")
        return value

    def need(self, name: str) -> str:
        """A text that must be there and not be empty."""
        value = self.text(name, required=True)
        if not value:
            raise self.fail(name, "must not be empty")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.value.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(name, "must be true or false")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number within bounds."""
        value = self.value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(name, "must be a number")
        if not low <= value <= high:
            raise self.fail(name, f"must be between {low:g} and {high:g}")
        return value

    def whole(self, name: str, low: int = 1, high: int = 1 << 53) -> int | None:
        """A whole number within bounds."""
        value = self.number(name, low, high)
        if value is None:
            return None
        if value != int(value):
            raise self.fail(name, "must be an integer")
        return int(value)

    def items(self, name: str, *, required: bool = False, most: int = 10_000) -> list[Any]:
        """A list; an absent one is empty unless it is required."""
        entries = self.value.get(name)
        if entries is None and not required:
            return []
        if not isinstance(entries, list):
            raise self.fail(name, "must be a list" if entries is not None else "is missing")
        if len(cast(list[Any], entries)) > most:
            raise self.fail(name, f"may have at most {most} entries")
        return cast(list[Any], entries)

    def objects(self, name: str, *, required: bool = False) -> list[Fields]:
        """A list of objects."""
        entries = self.items(name, required=required)
        return [Fields(item, f"{self.at(name)}[{n}]") for n, item in enumerate(entries)]

    def object(self, name: str) -> Fields | None:
        """An object."""
        return Fields(self.value[name], self.at(name)) if self.has(name) else None

    def only(self, names: Iterable[str]) -> None:
        """Reject fields other than ``names``."""
        unknown = sorted(set(self.value) - set(names))
        if unknown:
            raise InputError(f"unknown field '{self.at(unknown[0])[:80]}'", field=unknown[0][:80])


def refuse_routing(fields: Fields) -> None:
    """Reject fields that would choose where a request goes and with which key."""
    for name in _ROUTING:
        if fields.has(name):
            raise InputError(f"unknown field '{name}'", field=name)


def one_name(fields: Fields, name: str) -> str:
    """An id: 1 to 128 letters, digits and ``_ . : @ -``."""
    value = fields.need(name)
    if not _NAME.fullmatch(value):
        raise fields.fail(name, "must have 1 to 128 letters, digits or _ . : @ -")
    return value


def text_of(fields: Fields, name: str, kinds: tuple[str, ...] = ("text",)) -> str:
    """A text, or a list of text parts, as one text."""
    value = fields.raw(name)
    if value is None or isinstance(value, str):
        return value or ""
    texts: list[str] = []
    for part in fields.objects(name):
        if part.raw("type") not in kinds:
            raise part.fail("type", "must be a text part")
        texts.append(part.text("text", required=True) or "")
    return "".join(texts)


def media_part(url: str, media_type: str | None = None, name: str | None = None) -> Part:
    """A file by its address, which is passed on and never fetched by us, or by its data."""
    if url[:5].lower() != "data:":
        return FilePart(media_type=media_type or "image/*", url=url, name=name)
    head, comma, written = url[5:].partition(",")
    try:
        if not comma:
            raise ValueError("a data URL has a comma")
        kind, data = _inline(head.split(";"), written.partition("#")[0])
    except ValueError:
        # One file that cannot be read must not make every later question fail.
        return TextPart(text=f"[The file{f' {name}' if name else ''} could not be read.]")
    kind = media_type or kind or "application/octet-stream"
    return FilePart(media_type=kind, data=data, name=name)


def _inline(head: list[str], written: str) -> tuple[str | None, str]:
    """The media type and the base64 of a data URL (RFC 2397). Raises `ValueError`."""
    match = _MEDIA_TYPE.fullmatch(head[0].strip())
    kind = match[0].lower() if match else None
    if len(head) < 2 or head[-1].strip().lower() != "base64":
        data = unquote_to_bytes(written)
        return kind or "text/plain", base64.b64encode(data).decode()
    plain_text = "".join(unquote(written).split()).rstrip("=").translate(_URL_SAFE)
    padded = plain_text + "=" * (-len(plain_text) % 4)
    base64.b64decode(padded, validate=True)
    return kind, padded


def plain(parts: list[Part]) -> str | list[Part]:
    """Parts as a message's content; one plain text part as its text."""
    if len(parts) == 1:
        part = parts[0]
        if isinstance(part, TextPart) and not (part.meta or part.signature or part.citations):
            return part.text
    return parts


def _label(path: str) -> str:
    return f"'{path}'" if path else "the body"
