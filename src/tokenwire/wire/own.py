"""Wires of others: what an application or an installed package calls one, and a guard around it.

Always true: an encoder that raises, or returns what is no bytes, has failed for good: nothing more
of it is sent, and `OwnEncoder.finish` raises, so that no reader takes what was sent for the whole.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec

from tokenwire.errors import ConfigError, TokenwireError
from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import Reconnect
from tokenwire.wire.base import EncodeJSON, Encoder

__all__ = ["AnyEncoder", "EncoderError", "OwnEncoder", "OwnWire", "label_of", "own_wire"]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w-]+=[\w.-]+)*")
_HEADER = re.compile(r"[A-Za-z0-9-]+")
_METHODS = ("encode", "skip", "reopen", "finish", "heartbeat", "farewell")


class EncoderError(TokenwireError):
    """An encoder of a wire of one's own failed; the server's log has its exception."""

    code = "wire_failed"


class OwnWire(msgspec.Struct, frozen=True, kw_only=True):
    """A wire of one's own. ``name``: 1 to 40 of the characters a-z 0-9 -; ``encoder``: makes a new
    `tokenwire.wire.base.Encoder` for each reader, a class or a function without arguments;
    ``path``: where ``POST`` starts a run and answers in this wire, and ``GET {path}/{run}`` reads
    one; None: no route of its own, as ``GET /v1/runs/{run}/wires/{name}`` reads any run."""

    name: str
    encoder: Callable[[], Encoder]
    path: str | None = None


def label_of(value: object) -> str:
    """What an object is called in a message."""
    named = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def own_wire(value: object) -> OwnWire:
    """The wire that ``value`` is: an `OwnWire`, an encoder's class, or a function that makes an
    encoder. Raises `ConfigError`, which says what is wrong with it."""
    if isinstance(value, OwnWire):
        wire = value
    elif callable(value) and not isinstance(value, type(None)):
        make = cast("Callable[[], Encoder]", value)
        wire = OwnWire(name=_text(_made(make), "name"), encoder=make)
    else:
        raise ConfigError(
            f"{label_of(value)} is not a wire: pass a class of encoders, a function that makes "
            "one, or an OwnWire"
        )
    if not isinstance(wire.name, str) or not _NAME.fullmatch(wire.name):
        raise ConfigError(
            f"the wire {str(wire.name)[:80]!r} needs a name of 1 to 40 of the characters a-z 0-9 -"
        )
    if wire.path is not None and not (isinstance(wire.path, str) and _PATH.fullmatch(wire.path)):
        raise ConfigError(
            f"the wire '{wire.name}' needs a path such as /my-wire, not {str(wire.path)[:80]!r}"
        )
    if not callable(wire.encoder):
        raise ConfigError(f"the encoder of the wire '{wire.name}' is not a class or a function")
    _check_encoder(_made(wire.encoder), wire.name)
    return wire


def _made(make: Callable[[], Encoder]) -> object:
    try:
        return make()
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ConfigError(f"{label_of(make)} made no encoder: {reason}") from error


def _text(encoder: object, name: str) -> str:
    value = getattr(encoder, name, None)
    if not isinstance(value, str):
        raise ConfigError(f"{label_of(encoder)} is no encoder: '{name}' is not a text")
    return value


def _check_encoder(encoder: object, name: str) -> None:
    """Raise `ConfigError` unless the encoder has all that the contract declares."""
    wrong = [method for method in _METHODS if not callable(getattr(encoder, method, None))]
    if wrong:
        raise ConfigError(f"{label_of(encoder)} of the wire '{name}' has no method '{wrong[0]}'")
    if not _MEDIA_TYPE.fullmatch(_text(encoder, "content_type")):
        raise ConfigError(f"the content_type of the wire '{name}' is no media type")
    headers = getattr(encoder, "headers", None)
    if not isinstance(headers, dict) or not all(
        isinstance(n, str) and _HEADER.fullmatch(n) and isinstance(v, str) and v.isprintable()
        for n, v in cast("dict[Any, Any]", headers).items()
    ):
        raise ConfigError(f"the headers of the wire '{name}' are no dictionary of header texts")
    for flag in ("stateless", "ended"):
        if not isinstance(getattr(encoder, flag, None), bool):
            raise ConfigError(f"'{flag}' of {label_of(encoder)} is not True or False")


class OwnEncoder:
    """The encoder ``inner`` of the wire ``name``, guarded."""

    #: It is asked for single events only: what it makes of their JSON could not be checked.
    encode_json: EncodeJSON | None = None

    def __init__(self, inner: Encoder, name: str) -> None:
        self._inner = inner
        self.name = name
        self.content_type = inner.content_type
        self.headers = inner.headers
        self.stateless = inner.stateless
        #: Why it has failed; None while it has not.
        self.failure: Exception | None = None

    @property
    def is_event_stream(self) -> bool:
        """Whether its frames are server-sent events."""
        return self.content_type.startswith("text/event-stream")

    @property
    def ended(self) -> bool:
        """Whether nothing more of it is to be sent."""
        return self.failure is not None or bool(self._inner.ended)

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The bytes of ``event``; none after a failure."""
        return self._bytes("encode", event, cursor)

    def skip(self, event: AnyEvent) -> None:
        """Apply ``event`` without output."""
        if self.failure is None:
            try:
                self._inner.skip(event)
            except Exception as error:
                self.failure = error

    def reopen(self) -> bytes:
        """What a resumed reader receives first; none after a failure."""
        return self._bytes("reopen")

    def finish(self) -> bytes:
        """The wire's end. Raises `EncoderError` after a failure."""
        end = self._bytes("finish")
        if self.failure is not None:
            raise EncoderError(f"the wire '{self.name}' failed") from self.failure
        return end

    def heartbeat(self) -> bytes:
        """What keeps the connection open."""
        return self._bytes("heartbeat")

    def farewell(self, event: Reconnect) -> bytes | None:
        """What asks the reader to come back; None where the wire has no word for it."""
        if self.failure is None:
            try:
                data = self._inner.farewell(event)
            except Exception as error:
                self.failure = error
            else:
                return None if data is None else self._checked("farewell", data)
        return None

    def _bytes(self, method: str, *arguments: Any) -> bytes:
        if self.failure is not None:
            return b""
        try:
            data: object = getattr(self._inner, method)(*arguments)
        except Exception as error:
            self.failure = error
            return b""
        return self._checked(method, data)

    def _checked(self, method: str, data: object) -> bytes:
        if isinstance(data, bytes):
            return data
        self.failure = TypeError(f"{method}() returned {type(data).__name__}, not bytes")
        return b""


#: What a response may encode with.
AnyEncoder = Encoder | OwnEncoder
