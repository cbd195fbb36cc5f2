"""The official SDKs' own stream objects to our events: for who has one already.

Always true: what comes out is one whole run, in order, with one end; what the SDK raises while it
is read becomes an ``error`` event; the stream is closed on every exit. Accepted are the streams of
``openai`` (Chat Completions, Responses), ``anthropic`` and ``google-genai``, with or without their
helpers, and any iterable of such payloads as plain dicts.

An SDK hides the last marker of a Chat Completions stream, so there an answer is whole only when
its finish reason was seen.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, cast, overload

import msgspec

from tokenwire.errors import DeadlineError, InputError, NetworkError, ProviderError
from tokenwire.events.fold import Fold
from tokenwire.events.model import (
    Error,
    Event,
    Heartbeat,
    RunOutcome,
    RunStart,
    StepEnd,
    StepStart,
)
from tokenwire.events.order import Order
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.base import Decoder
from tokenwire.providers.failures import error_event, from_object
from tokenwire.providers.registry import Registry

__all__ = ["Answer", "events"]

_SDK_MODULES = (
    "openai",
    "anthropic",
    "google",
    "httpx",
    "httpx2",
    "httpcore",
    "aiohttp",
    "requests",
)
#: Fields that SDKs add to what came.
_ADDED = ("sdk_http_response", "sdkHttpResponse", "automatic_function_calling_history")
_ANTHROPIC = {
    "message_start",
    "message_delta",
    "message_stop",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "ping",
    "error",
}


@overload
def events(stream: AsyncIterable[Any]) -> AsyncIterator[Event]: ...


@overload
def events(stream: Iterable[Any]) -> Iterator[Event]: ...


def events(
    stream: Iterable[Any] | AsyncIterable[Any],
) -> Iterator[Event] | AsyncIterator[Event]:
    """The events of one answer: an async iterator for an async stream, else an iterator.

    Raises `InputError` when the stream's items are of no SDK that is known.
    """
    if hasattr(stream, "__aiter__"):
        return _async_events(cast(AsyncIterable[Any], stream))
    if hasattr(stream, "__iter__"):
        return _sync_events(cast(Iterable[Any], stream))
    raise InputError(f"a {type(stream).__name__} is not a stream of a supported SDK")


async def _async_events(stream: AsyncIterable[Any]) -> AsyncIterator[Event]:
    answer = Answer()
    try:
        try:
            async for item in stream:
                for event in answer.item(item):
                    yield event
                if answer.is_over:
                    break
        except Exception as error:
            last = answer.broken(error)
        else:
            last = answer.end()
        for event in last:
            yield event
    finally:
        close = getattr(stream, "close", None) or getattr(stream, "aclose", None)
        if close is not None:
            waiting = close()
            if hasattr(waiting, "__await__"):
                await waiting


def _sync_events(stream: Iterable[Any]) -> Iterator[Event]:
    answer = Answer()
    try:
        try:
            for item in stream:
                yield from answer.item(item)
                if answer.is_over:
                    break
        except Exception as error:
            last = answer.broken(error)
        else:
            last = answer.end()
        yield from last
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


class Answer:
    """One run made of one answer."""

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self._order = Order()
        self._fold = Fold()

    @property
    def is_over(self) -> bool:
        """Whether the wire's last marker was seen; the connection may stay open after it."""
        return self._decoder is not None and self._decoder.closed

    def item(self, item: Any) -> list[Event]:
        """The events of one object of the SDK."""
        payload = _payload(item)
        if payload is None:
            return []
        begun: list[Event] = []
        if self._decoder is None:
            begun = self._begin(_dialect(payload, type(item).__module__))
        assert self._decoder is not None
        name = payload.get("type") or payload.get("event_type")
        data = msgspec.json.encode(payload)
        frame = encode_frame(data, event=name if isinstance(name, str) else None)
        return begun + self._ordered(self._decoder.feed(frame))

    def end(self) -> list[Event]:
        """The events of a stream that ended by itself."""
        if self._decoder is None:
            return self._begin(None) + self._closed(
                [
                    Error(
                        scope="transport",
                        code="truncated",
                        message="the stream was empty",
                        retryable=True,
                    ),
                    StepEnd(step=1, status="error"),
                ]
            )
        return self._closed(self._decoder.finish())

    def broken(self, error: Exception) -> list[Event]:
        """The events of a stream that raised; what is not an SDK's error is raised again."""
        if isinstance(error, InputError) or not _of_sdk(error):
            raise error
        failure = error_event(_typed(error))
        if self._decoder is None:
            step = StepEnd(step=1, status="error")
            return self._begin(None) + self._closed([failure, step])
        return self._closed(self._decoder.finish(failure))

    def _begin(self, dialect: str | None) -> list[Event]:
        if dialect is not None:
            self._decoder = Registry().dialect(dialect).decoder(content_type="text/event-stream")
        run = RunStart(run=uuid.uuid4().hex, time=int(time.time() * 1000))
        return self._ordered([run, StepStart(step=1, dialect=dialect)])

    def _closed(self, last: list[Event]) -> list[Event]:
        events = self._ordered(last)
        step = next(e for e in reversed(last) if isinstance(e, StepEnd))
        outcome: RunOutcome = step.status
        return events + self._ordered([self._fold.end(outcome)])

    def _ordered(self, events: list[Event]) -> list[Event]:
        logged = [e for e in events if not isinstance(e, Heartbeat)]
        for event in logged:
            self._order.check(event)
            self._fold.apply(event)
        return logged


def _payload(item: Any) -> dict[str, Any] | None:
    """The JSON object that the provider sent, as far as the SDK kept it."""
    if isinstance(item, dict):
        return cast(dict[str, Any], item)
    if getattr(item, "type", None) == "chunk" and hasattr(item, "chunk"):
        item = item.chunk  # openai's helper wraps what came
    module = type(item).__module__
    kind = getattr(item, "type", None)
    if module.startswith("openai.lib") and not hasattr(item, "sequence_number"):
        return None  # derived by openai's helper from what came
    if module.startswith("anthropic") and kind not in _ANTHROPIC:
        return None  # derived by anthropic's helper
    dump = getattr(item, "model_dump", None)
    if dump is None:
        raise InputError(f"a {type(item).__name__} is not an item of a supported SDK's stream")
    if module.startswith("google"):
        fields = dump(mode="python", by_alias=True, exclude_none=True)
    else:
        fields = dump(mode="python", by_alias=True, exclude_unset=True, warnings=False)
    return {k: v for k, v in fields.items() if k not in _ADDED}


def _dialect(payload: dict[str, Any], module: str) -> str:
    kind = payload.get("type")
    if payload.get("object") == "text_completion":
        return "completions"
    if "choices" in payload or payload.get("object") == "chat.completion.chunk":
        return "openai-chat"
    if isinstance(kind, str) and kind.startswith("response."):
        return "openai-responses"
    if isinstance(kind, str) and kind in _ANTHROPIC:
        return "openai-responses" if module.startswith("openai") else "anthropic"
    if "event_type" in payload:
        return "gemini-interactions"
    if module.startswith("google") or {"candidates", "usageMetadata"} & set(payload):
        return "gemini"
    raise InputError("the stream's items belong to no supported provider wire")


def _of_sdk(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in _SDK_MODULES or isinstance(error, OSError)


def _typed(error: Exception) -> ProviderError:
    """An SDK's exception as ours."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    body = getattr(error, "body", None) or getattr(error, "details", None)
    name = type(error).__name__
    if "Timeout" in name:
        return DeadlineError("the SDK waited too long for the provider", which="idle", seconds=0)
    if isinstance(status, int) or isinstance(body, dict):
        response = getattr(error, "response", None)
        headers = getattr(response, "headers", None)
        return from_object(
            body if isinstance(body, dict) else None,
            status=status if isinstance(status, int) else None,
            headers={k.lower(): v for k, v in headers.items()} if headers else None,
        )
    return NetworkError(
        "the connection to the provider broke in the middle of the answer", reason=name
    )
