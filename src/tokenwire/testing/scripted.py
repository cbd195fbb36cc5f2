"""A model that answers from a script, at once, without a socket.

Always true: no delay, no network, no clock; `requests` holds the body of every request. With
`Steps` it waits after each text until a reader has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import msgspec

from tokenwire.errors import NetworkError, ProviderError
from tokenwire.providers.base import Call, Dialect, Target
from tokenwire.providers.openai.chat import DIALECT

__all__ = ["ScriptedModel", "Steps", "call", "cut", "error"]

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


class Steps:
    """What holds a model back after each of its texts, until `advance` was called for that one.
    For a model and a reader in different threads."""

    def __init__(self) -> None:
        #: The texts so far, and how many of them were received.
        self.texts: list[str] = []
        self.received = 0

    def restart(self) -> None:
        """Begin anew, for another run."""
        self.texts, self.received = [], 0

    @property
    def holds(self) -> str | None:
        """The text that nobody has received so far; None where the model may go on."""
        texts, received = self.texts, self.received
        return texts[received] if received < len(texts) else None

    def advance(self) -> None:
        """The text of `holds` was received."""
        self.received += 1


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
        self._first = 0
        #: Set by `tokenwire.testing.cut_everywhere`.
        self.steps: Steps | None = None
        #: The decoded bodies of the requests so far.
        self.requests: list[dict[str, Any]] = []

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        """The dialect and target; any ``name`` is this model."""
        target = Target(provider="scripted", dialect="openai-chat", model=name, base_url=self._url)
        return DIALECT, target

    async def open(self, call: Call, *, connect_timeout: float = 5.0) -> _Stream:
        """The response to ``call``: the next script. ``connect_timeout`` has no effect."""
        number = min(len(self.requests) - self._first, len(self._scripts) - 1)
        self.requests.append(msgspec.json.decode(call.body))
        return _Stream(list(_chunks(self._scripts[number])), self.steps)

    def rewind(self) -> None:
        """The next request gets the first script again."""
        self._first = len(self.requests)

    async def aclose(self) -> None:
        """Nothing to close; for use as an HTTP client."""


class _Stream:
    status = 200
    headers: Mapping[str, str] = {"content-type": "text/event-stream"}

    def __init__(self, chunks: list[tuple[bytes | None, str]], steps: Steps | None) -> None:
        self._chunks, self._steps = chunks, steps
        self._error: ProviderError | None = None

    async def read(self) -> bytes:
        steps = self._steps
        while steps is not None and steps.holds is not None and self._error is None:  # noqa: ASYNC110
            await asyncio.sleep(0.003)  # what it waits for happens in another thread
        if self._error is not None:
            raise self._error
        if not self._chunks:
            return b""
        chunk, text = self._chunks.pop(0)
        if steps is not None and text:
            steps.texts.append(text)
        if chunk is None:
            raise NetworkError("the scripted connection was lost")
        return chunk

    def abort(self, error: ProviderError) -> None:
        self._error = error

    async def aclose(self) -> None:
        self._chunks = []


def _chunks(script: list[str | _Piece]) -> Iterable[tuple[bytes | None, str]]:
    """The bytes, None for a lost connection, and the text that is in them."""
    calls = 0
    for piece in script:
        if isinstance(piece, str):
            yield _chunk({"content": piece}), piece
        elif piece.kind == "cut":
            yield None, ""
            return
        elif piece.kind == "error":
            failure = {"error": {"message": piece.value, "code": piece.name, "type": piece.name}}
            yield b"data: " + msgspec.json.encode(failure) + b"\n\n", ""
            return
        else:
            call_id, text = piece.value
            function = {"name": piece.name, "arguments": text}
            number = call_id or f"call_{calls + 1}"
            yield _chunk({"tool_calls": [{"index": calls, "id": number, "function": function}]}), ""
            calls += 1
    yield _chunk({}, "tool_calls" if calls else "stop"), ""
    yield b"data: [DONE]\n\n", ""


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"
