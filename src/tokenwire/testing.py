"""For your tests: a model that says what you wrote down, at once, without a socket.

Always true: no delay, no network, no clock; what the model was asked is kept in `requests`.

::

    from tokenwire.testing import ScriptedModel, call, error

    model = ScriptedModel(["Hello", ", ", "world"], [call("clock", {"zone": "UTC"})], ["Noon."])
    async with tokenwire.stream("scripted", "Hi", **model.options) as run:
        assert (await run.result()).text == "Hello, world"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tokenwire.errors import NetworkError, ProviderError
from tokenwire.providers.base import Call, Dialect, Target
from tokenwire.providers.openai.chat import DIALECT

__all__ = ["ScriptedModel", "call", "cut", "error"]


class _Piece(msgspec.Struct, frozen=True):
    kind: str
    name: str = ""
    value: Any = None


def call(name: str, arguments: Mapping[str, Any] | str = "{}", *, call_id: str = "") -> _Piece:
    """A tool call in an answer; ``arguments`` as an object, or as text to test bad ones."""
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return _Piece("call", name, (call_id, text))


def error(message: str = "the model is tired", *, code: str = "server_error") -> _Piece:
    """The provider reports an error in the middle of the answer."""
    return _Piece("error", code, message)


def cut() -> _Piece:
    """The connection breaks here."""
    return _Piece("cut")


class ScriptedModel:
    """Answers the first request with the first script, the second with the second, and so on; the
    last one again and again. A script is pieces: texts, `call`, `error`, `cut`."""

    def __init__(self, *scripts: Iterable[str | _Piece]) -> None:
        self._scripts = [list(script) for script in scripts] or [[]]
        #: The bodies of the requests that came, decoded.
        self.requests: list[dict[str, Any]] = []

    @property
    def options(self) -> dict[str, Any]:
        """What to give `tokenwire.stream` so that it asks this model."""
        return {"registry": self, "http": self}

    # --- the part of a registry that runs use ---------------------------------------------------

    has_demo = True

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        """Any name is this model."""
        target = Target(
            provider="scripted", dialect="openai-chat", model=name, base_url="http://scripted/v1"
        )
        return DIALECT, target

    # --- the part of an HTTP client that runs use -----------------------------------------------

    async def open(self, call: Call, *, connect_timeout: float = 5.0) -> _Stream:
        """A response with the next script."""
        number = min(len(self.requests), len(self._scripts) - 1)
        self.requests.append(msgspec.json.decode(call.body))
        return _Stream(list(_chunks(self._scripts[number])))

    async def aclose(self) -> None:
        """Nothing to close."""


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
            raise NetworkError("the scripted connection broke")
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
