"""For tests: a model that answers from a script, at once, without a socket.

Always true: no delay, no network, no clock; `requests` holds the body of every request.

::

    from tokenwire.testing import ScriptedModel, call, error

    model = ScriptedModel(["Hello", ", ", "world"], [call("clock", {"zone": "UTC"})], ["Noon."])
    async with tokenwire.stream("Hi", model=model) as run:
        assert (await run.result()).text == "Hello, world"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import msgspec

from tokenwire.errors import NetworkError, ProviderError
from tokenwire.providers.base import Call, Dialect, Target
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.wire.conformance import faults
from tokenwire.wire.own import own_wire

__all__ = ["ScriptedModel", "call", "check_wire", "cut", "error"]

_numbers = count(1)


class _Piece(msgspec.Struct, frozen=True):
    kind: str
    name: str = ""
    value: Any = None


def call(name: str, arguments: Mapping[str, Any] | str = "{}", *, call_id: str = "") -> _Piece:
    """A call of the tool ``name`` in an answer; ``arguments``: an object, or a text to test invalid
    ones; ``call_id``: default ``call_1``, ``call_2``, ..."""
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return _Piece("call", name, (call_id, text))


def error(message: str = "the model is tired", *, code: str = "server_error") -> _Piece:
    """An error of the provider in the middle of the answer: its ``message`` and ``code``."""
    return _Piece("error", code, message)


def cut() -> _Piece:
    """A lost connection at this point of the answer."""
    return _Piece("cut")


def check_wire(wire: object) -> None:
    """Check ``wire``, one of your own: an encoder's class, a function that makes encoders, or a
    `tokenwire.server.OwnWire`. Seven runs go through it, with text, reasoning, tools, a step that
    starts again, and every outcome. Raises `AssertionError` that says all that is wrong: what
    raises or is no bytes, a reader that is cut anywhere and resumes but gets other bytes, an end
    that is not told, or a failure that looks like a success. Raises `ConfigError` for what is no
    wire."""
    found = faults(own_wire(wire).encoder)
    assert not found, "\n".join(found)


class ScriptedModel:
    """A model to give to `tokenwire.stream` as ``model``.

    ``scripts``: one for each request, in order; the last one repeats. A script is a list of pieces:
    texts, `call`, `error`, `cut`.
    """

    def __init__(self, *scripts: Iterable[str | _Piece]) -> None:
        self._scripts = [list(script) for script in scripts] or [[]]
        number = next(_numbers)
        self.name = "scripted"
        self._url = f"http://scripted-{number}/v1"
        #: The decoded bodies of the requests so far.
        self.requests: list[dict[str, Any]] = []

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        """The dialect and target; any ``name`` is this model."""
        target = Target(provider="scripted", dialect="openai-chat", model=name, base_url=self._url)
        return DIALECT, target

    async def open(self, call: Call, *, connect_timeout: float = 5.0) -> _Stream:
        """The response to ``call``: the next script. ``connect_timeout`` has no effect."""
        number = min(len(self.requests), len(self._scripts) - 1)
        self.requests.append(msgspec.json.decode(call.body))
        return _Stream(list(_chunks(self._scripts[number])))

    async def aclose(self) -> None:
        """Nothing to close; for use as an HTTP client."""


class _Stream:
    status = 200
    headers: Mapping[str, str] = {"content-type": "text/event-stream"}

    def __init__(self, chunks: list[bytes | None]) -> None:
        self._chunks = chunks
        self._error: ProviderError | None = None

    async def read(self) -> bytes:
        if self._error is not None:
            raise self._error
        if not self._chunks:
            return b""
        chunk = self._chunks.pop(0)
        if chunk is None:
            raise NetworkError("the scripted connection was lost")
        return chunk

    def abort(self, error: ProviderError) -> None:
        self._error = error

    async def aclose(self) -> None:
        self._chunks = []


def _chunks(script: list[str | _Piece]) -> Iterable[bytes | None]:
    calls = 0
    for piece in script:
        if isinstance(piece, str):
            yield _chunk({"content": piece})
        elif piece.kind == "cut":
            yield None
            return
        elif piece.kind == "error":
            failure = {"error": {"message": piece.value, "code": piece.name, "type": piece.name}}
            yield b"data: " + msgspec.json.encode(failure) + b"\n\n"
            return
        else:
            call_id, text = piece.value
            function = {"name": piece.name, "arguments": text}
            number = call_id or f"call_{calls + 1}"
            yield _chunk({"tool_calls": [{"index": calls, "id": number, "function": function}]})
            calls += 1
    yield _chunk({}, "tool_calls" if calls else "stop")
    yield b"data: [DONE]\n\n"


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"
