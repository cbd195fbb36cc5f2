"""Retry a model call, or fall back to another model, while no reader has seen anything.

Always true: after an answer has begun there is no retry; a request is never repeated when its
failure rules that out, as a timeout of an accepted one does, and then only another model that was
configured for it is called; all retries of a target share one budget, so that a
failing provider is not stormed and a healthy one keeps its retries.

Numbers: 2 retries, 0.5 s doubling up to 8 s, times 0.75 to 1 (as the official SDKs do);
``Retry-After`` up to 60 s is honoured, a longer one ends the retries at this provider.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from tokenwire.backoff import backoff
from tokenwire.errors import (
    AuthenticationError,
    CancelledRunError,
    DeadlineError,
    FramingError,
    ProtocolError,
    ProviderError,
    TokenwireError,
)
from tokenwire.events.request import Request
from tokenwire.observe import tracing
from tokenwire.observe.facts import FellBack, Retried
from tokenwire.observe.hooks import report
from tokenwire.providers.base import Call, Dialect, Target
from tokenwire.providers.routing.passing import with_passed
from tokenwire.run.call.attempt import Answer, attempt
from tokenwire.run.call.authorise import authorised, is_rejected, renewed, signed
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.reading import Express
from tokenwire.run.call.unseen import Again, AgainReason, Failed, Unseen
from tokenwire.run.inbox import Inbox

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient

__all__ = ["RetryBudget", "RetryBudgets", "RetryPolicy", "pause_after", "recover"]

LONGEST_RETRY_AFTER = 60.0


class RetryPolicy(msgspec.Struct, kw_only=True, frozen=True):
    """``retries`` per model; ``first`` and ``longest`` pause between them, in seconds."""

    retries: int = 2
    first: float = 0.5
    longest: float = 8.0


class RetryBudget:
    """At most ``share`` of the requests of the last ``window`` seconds may be retries (and always
    a few, so that a quiet target can be retried at all)."""

    def __init__(self, share: float = 0.1, window: float = 10.0, always: int = 5) -> None:
        self._share, self._window, self._always = share, window, always
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()

    def request(self, now: float) -> None:
        """Count a first attempt."""
        self._forget(now)
        self._requests.append(now)

    def allow(self, now: float) -> bool:
        """Whether one more retry is allowed; counts it if so."""
        self._forget(now)
        most = max(self._always, int(len(self._requests) * self._share))
        if len(self._retries) >= most:
            return False
        self._retries.append(now)
        return True

    def idle(self, now: float) -> bool:
        """Whether the window is empty: a new budget would be the same."""
        self._forget(now)
        return not self._requests and not self._retries

    def _forget(self, now: float) -> None:
        for times in (self._requests, self._retries):
            while times and times[0] <= now - self._window:
                times.popleft()


class RetryBudgets:
    """One budget per target, so that a failing provider does not use up the retries of others."""

    #: Beyond so many targets, idle ones are forgotten.
    _MANY = 256

    def __init__(self) -> None:
        self._by_target: dict[tuple[str, str], RetryBudget] = {}

    def of(self, target: Target, now: float) -> RetryBudget:
        """The budget of a provider at an address, whichever of its models is called."""
        key = target.provider, target.base_url
        budget = self._by_target.get(key)
        if budget is None:
            if len(self._by_target) >= self._MANY:
                self._by_target = {k: b for k, b in self._by_target.items() if not b.idle(now)}
            budget = self._by_target[key] = RetryBudget()
        return budget

    def __len__(self) -> int:
        return len(self._by_target)


#: The process's budgets.
BUDGETS = RetryBudgets()


def pause_after(
    error: Exception, failures: int, policy: RetryPolicy, chance: Callable[[], float]
) -> float | None:
    """Seconds to wait before the next attempt at the same model; None rules a retry out.
    ``failures``: failed attempts so far; ``chance``: returns a random number from 0 to 1."""
    if not isinstance(error, ProviderError) or failures > policy.retries:
        return None
    may = error.retryable if error.should_retry is None else error.should_retry
    if not may:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= LONGEST_RETRY_AFTER else None
    return backoff(
        failures, first=policy.first, longest=policy.longest, spread=(0.75, 1.0), chance=chance()
    )


async def recover(
    http: HttpClient,
    candidates: list[tuple[Dialect, Target]],
    request: Request,
    *,
    deadlines: Deadlines,
    inbox: Inbox,
    step: int,
    first_part: int,
    policy: RetryPolicy,
    run: str = "",
    operation: int | None = None,
    calls: Callable[[Target], None] | None = None,
    first_call: Callable[[Target], Call | None] | None = None,
    express: Express | None = None,
) -> AsyncGenerator[Answer | Failed | Again, None]:
    """The answer of the first model that has one, which is the last that this yields, and is to be
    closed; before it, of each attempt that was billed and failed, what is known of that, and which
    attempt begins in its place. Raises the last model's error, and `CancelledRunError` where no
    further attempt may begin.

    ``first_call``: the call that is made once before the others, to re-attach to a response that
    the first model's provider keeps; when that fails the request is made anew. ``express``: see
    `run.call.reading`. ``run``, ``operation``: whose trace the requests carry on; ``calls``: told
    which model is called.
    """
    begin = partial(attempt, http, inbox=inbox, step=step, first_part=first_part, express=express)
    reason: AgainReason | None = None
    for number, (dialect, configured) in enumerate(candidates):
        failures, is_renewed = 0, False
        try:
            target = await authorised(configured, inbox)
        except AuthenticationError as error:
            if number + 1 == len(candidates):
                raise
            report(FellBack(run, configured.provider, configured.model, error.code))
            reason = reason or "refused"
            continue
        target = _traced(target, run, operation, calls)
        call = _call(dialect, request, target)
        resuming = first_call(target) if number == 0 and first_call is not None else None
        budget = BUDGETS.of(target, time.monotonic())
        budget.request(time.monotonic())
        while True:
            if reason is not None:
                yield Again(reason, dialect, target)
                if inbox.ends_calls:
                    raise CancelledRunError("the run was cancelled")
            reason, unseen = None, Unseen()
            own, clocks = signed(resuming or call, target), deadlines.over(target.clocks)
            try:
                answer = await begin(dialect, target, own, deadlines=clocks, unseen=unseen)
            except TokenwireError as error:
                if bill := unseen.bill(error):
                    yield Failed(bill)
                    reason = "retry"
                if not isinstance(error, ProviderError | FramingError):
                    raise
                if not is_renewed and is_rejected(target, error):
                    is_renewed = True  # it accepted nothing, so that nothing is billed twice
                    target, failure = await renewed(target, inbox)
                    if failure is None:
                        call = _call(dialect, request, target)
                        resuming = first_call(target) if resuming and first_call else None
                        continue
                    error = failure
                if resuming is not None:
                    resuming = None
                    if not _may_be_at_work(error):
                        continue
                failures += 1
                if await _pause(error, failures, policy, budget, inbox, (run, target)):
                    continue
                if number + 1 == len(candidates) or not _may_fall_back(error):
                    raise error
                report(FellBack(run, target.provider, target.model, error.code))
                reason = "refused" if reason is None else "fallback"
                break
            yield answer
            return


async def _pause(
    error: TokenwireError,
    failures: int,
    policy: RetryPolicy,
    budget: RetryBudget,
    inbox: Inbox,
    called: tuple[str, Target],
) -> bool:
    """Wait before the next attempt at the same model; False where there is none."""
    pause = pause_after(error, failures, policy, random.random)
    if pause is None or not budget.allow(time.monotonic()):
        return False
    run, target = called
    report(Retried(run, target.provider, target.model, error.code, failures, pause))
    await inbox.sleep(pause)
    return True


def _call(dialect: Dialect, request: Request, target: Target) -> Call:
    return with_passed(dialect.build(request, target), dialect.name, request.passed)


def _traced(
    target: Target, run: str, operation: int | None, calls: Callable[[Target], None] | None
) -> Target:
    """``target`` whose requests say which trace they belong to, where it is to know; ``calls`` is
    told that it is the one."""
    if calls is not None:
        calls(target)
    headers = tracing.headers_to(run, operation, target.provider)
    if not headers:
        return target
    return msgspec.structs.replace(target, headers={**headers, **target.headers})


def _may_be_at_work(error: Exception) -> bool:
    """Whether a timeout left the provider with a request that it accepted, and bills."""
    return isinstance(error, DeadlineError) and error.should_retry is False


def _may_fall_back(error: Exception) -> bool:
    """Whether another model may succeed: not for a request that is invalid in itself."""
    if isinstance(error, FramingError | ProtocolError):
        return True
    return getattr(error, "code", "") not in ("provider_bad_request", "content_filter")
