"""The trace of a run, for what carries it on: provider requests, tools, agents and other workers.

Always true: without a tracer nothing is imported, made or sent; a tracer that raises is removed and
logged, and the run never notices; nothing here is called for a token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

from tokenwire.events.fold import Fold
from tokenwire.events.request import Request
from tokenwire.observe.facts import RunStarted

__all__ = [
    "Trace",
    "Tracer",
    "above",
    "below",
    "caller_of",
    "capture",
    "capture_result",
    "forget_run",
    "headers_to",
    "open_run",
    "tool_span",
    "use",
]

#: As it is stored with a run: ``traceparent`` and ``tracestate`` of what the run is below, and
#: ``span``, the ``traceparent`` of its own span.
Trace = dict[str, str]

_T = TypeVar("_T")
_HEADERS = ("traceparent", "tracestate", "baggage")
_NOTHING: AbstractContextManager[None] = nullcontext()
_log = logging.getLogger("tokenwire.observe")


class Tracer(Protocol):
    """What makes spans. ``run``: a run with an open span; ``operation``: the agent's operation
    whose answer has a span of its own, else None."""

    @property
    def captures_content(self) -> bool:
        """Whether messages and tool arguments are wanted."""
        ...

    def open_run(self, fact: RunStarted, trace: Trace | None) -> Trace | None:
        """Begin the span of a run before it is stored, below ``trace`` or else what is current;
        what is to be stored with it."""
        ...

    def forget_run(self, run: str) -> None:
        """Drop a span that was begun for a run which is not created."""
        ...

    def above(self) -> Trace | None:
        """The current span, for a run that begins later; empty without one."""
        ...

    def caller_of(self, headers: dict[str, str]) -> AbstractContextManager[None]:
        """Put what follows below the span of who sent ``headers``."""
        ...

    def headers(self, run: str, operation: int | None, provider: str) -> dict[str, str]:
        """The headers with which a provider's request carries the trace; empty unless this
        provider is to get them."""
        ...

    def below(self, run: str, operation: int | None) -> AbstractContextManager[None]:
        """Make the span the current one."""
        ...

    def tool_span(
        self, run: str, operation: int | None, name: str, call: str, arguments: Any
    ) -> AbstractContextManager[None]:
        """Begin a tool's span, which is the current one within; `ToolRan` ends it."""
        ...

    def capture(self, run: str, operation: int | None, request: Request, state: Fold) -> None:
        """Record the messages of an answer that is about to end."""
        ...

    def capture_result(self, run: str, operation: int | None, call: str, content: Any) -> None:
        """Record what a tool returned, before its span ends."""
        ...


_tracer: Tracer | None = None


def use(tracer: Tracer) -> Callable[[], None]:
    """Let ``tracer`` trace from now on, in place of an earlier one. Returns what ends it."""
    global _tracer
    _tracer = tracer
    return lambda: _remove(tracer)


def _remove(tracer: Tracer) -> None:
    global _tracer
    if _tracer is tracer:
        _tracer = None


def _safe(work: Callable[[Tracer], _T], otherwise: _T) -> _T:
    tracer = _tracer
    if tracer is None:
        return otherwise
    try:
        return work(tracer)
    except Exception:
        _remove(tracer)
        _log.exception("a tracer failed and was removed")
        return otherwise


@contextmanager
def _within(enter: Callable[[Tracer], AbstractContextManager[None]]) -> Iterator[None]:
    """What the tracer puts around a piece of work; its own failures stay outside of that."""

    def entered(tracer: Tracer) -> AbstractContextManager[None]:
        manager = enter(tracer)
        manager.__enter__()
        return manager

    manager = _safe(entered, _NOTHING)
    try:
        yield
    except BaseException as error:
        raised = type(error), error, error.__traceback__
        _safe(lambda _: manager.__exit__(*raised), None)
        raise
    _safe(lambda _: manager.__exit__(None, None, None), None)


def open_run(fact: RunStarted, trace: Trace | None) -> Trace | None:
    """See `Tracer.open_run`; ``trace`` itself without a tracer."""
    return _safe(lambda tracer: tracer.open_run(fact, trace), trace)


def forget_run(run: str) -> None:
    """See `Tracer.forget_run`."""
    _safe(lambda tracer: tracer.forget_run(run), None)


def above() -> Trace | None:
    """See `Tracer.above`."""
    return _safe(lambda tracer: tracer.above(), None)


def caller_of(headers: Mapping[bytes, bytes]) -> AbstractContextManager[None]:
    """Put what follows below the span of who sent the request of ``headers``."""
    if _tracer is None or b"traceparent" not in headers:
        return _NOTHING
    values = {name: headers.get(name.encode(), b"").decode("latin-1") for name in _HEADERS}
    return _within(lambda tracer: tracer.caller_of(values))


def headers_to(run: str, operation: int | None, provider: str) -> dict[str, str]:
    """See `Tracer.headers`."""
    return _safe(lambda tracer: tracer.headers(run, operation, provider), {})


def below(run: str, operation: int | None = None) -> AbstractContextManager[None]:
    """See `Tracer.below`."""
    if _tracer is None:
        return _NOTHING
    return _within(lambda tracer: tracer.below(run, operation))


def tool_span(
    run: str, operation: int | None, name: str, call: str, arguments: Any
) -> AbstractContextManager[None]:
    """See `Tracer.tool_span`."""
    if _tracer is None:
        return _NOTHING
    return _within(lambda tracer: tracer.tool_span(run, operation, name, call, arguments))


def capture(run: str, operation: int | None, request: Request, state: Fold) -> None:
    """See `Tracer.capture`; nothing unless content is wanted."""
    if _tracer is not None and _tracer.captures_content:
        _safe(lambda tracer: tracer.capture(run, operation, request, state), None)


def capture_result(run: str, operation: int | None, call: str, content: Any) -> None:
    """See `Tracer.capture_result`; nothing unless content is wanted."""
    if _tracer is not None and _tracer.captures_content:
        _safe(lambda tracer: tracer.capture_result(run, operation, call, content), None)
