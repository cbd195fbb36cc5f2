"""Facts for observers: small frozen records, one class per kind.

Always true: a fact holds no content (no prompt, no answer, no key), only names, numbers and codes.
"""

from __future__ import annotations

import msgspec

from tokenwire.observe.request_facts import RequestFacts

__all__ = [
    "AnswerEnded",
    "AnswerStarted",
    "BudgetNear",
    "BudgetRefused",
    "ChunksCame",
    "EndDelivered",
    "Fact",
    "FellBack",
    "FirstToken",
    "FollowerGone",
    "FollowerOpened",
    "RequestDone",
    "Retried",
    "RunBilled",
    "RunEnded",
    "RunLeft",
    "RunStarted",
    "StoreAppended",
    "TakenOver",
    "ToolRan",
    "WebhookSent",
]


class Fact(msgspec.Struct, frozen=True):
    """Base of all facts."""


class RunStarted(Fact, frozen=True):
    """A run started. ``thread``: the caller's name of its conversation; ``agent``: the name of the
    agent or preparation that makes it, None for a model's; ``request``: what the model is asked
    with."""

    run: str
    model: str
    thread: str | None = None
    agent: str | None = None
    request: RequestFacts | None = None


class AnswerStarted(Fact, frozen=True):
    """A model's answer inside of an agent's run started, as ``operation`` of the agent."""

    run: str
    operation: int
    model: str
    request: RequestFacts | None = None


class FirstToken(Fact, frozen=True):
    """The first visible event of a model call; seconds since the call. ``operation``: of the
    agent's answer that it is in, None for a run's own. ``address``, ``port``: of the model that
    answers."""

    run: str
    provider: str
    model: str
    first_token_seconds: float
    operation: int | None = None
    address: str | None = None
    port: int | None = None


class ChunksCame(Fact, frozen=True):
    """Chunks of about one second of an answer: the seconds between each and its predecessor. The
    first of a model call has none (see `FirstToken`)."""

    run: str
    model: str
    chunk_gap_seconds: tuple[float, ...]


class _Ended(Fact, frozen=True):
    """An end. ``events``: their number; ``finish_reason``: why the model stopped in the last step;
    ``budget``: the one that ended it in its middle (``principal/day``), None where none did;
    ``response_model``, ``response_id``: the last response, as its provider names it. The counts
    that may be None are parts of the others, where the provider reported them; ``usage_unknown``:
    it did not report all, so that a count of 0 is none."""

    run: str
    model: str
    outcome: str
    code: str | None
    seconds: float
    events: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: str | None = None
    budget: str | None = None
    thread: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    usage_unknown: bool = False


class RunEnded(_Ended, frozen=True):
    """A run ended. ``agent``: as in `RunStarted`; its tokens are those of all of its answers.
    ``trace``: as in `TakenOver`."""

    agent: str | None = None
    trace: dict[str, str] | None = None


class AnswerEnded(_Ended, frozen=True):
    """A model's answer inside of an agent's run ended; ``operation`` as in `AnswerStarted`."""

    operation: int = 0


class RunLeft(Fact, frozen=True):
    """The worker of ``epoch`` works no more at a run that has not ended: ``fenced`` (another has
    taken it over), ``handed_over`` (this process stops), ``erased``, ``store`` (which did not take
    its events)."""

    run: str
    why: str
    epoch: int


class RunBilled(Fact, frozen=True):
    """What a run used of one ``model``, or of a provider's (``openai/gpt-4o``). ``cost``:
    billionths of a dollar of the tokens that have a price; ``unreported_calls``: of which nobody
    knows what they used; ``tokens``: by kind (``input``, ``cached_input``, ``output``,
    ``reasoning``, ...), of which some are parts of others; ``costs``: ``cost`` by kind (``input``:
    without what a cache had or got, ``output``: without reasoning, ``unsplit``: not known), of
    which none is."""

    run: str
    model: str
    cost: int
    unpriced_tokens: int
    unreported_calls: int = 0
    tokens: dict[str, int] = {}
    costs: dict[str, int] = {}


class BudgetRefused(Fact, frozen=True):
    """A start was refused, as a budget (``principal/day``; ``unit``: ``tokens`` or ``dollars``) is
    used up."""

    budget: str
    unit: str


class BudgetNear(Fact, frozen=True):
    """A run started of which a budget has less than a fifth left."""

    budget: str
    unit: str


class Retried(Fact, frozen=True):
    """A model call failed before any visible output; it is retried after ``pause`` seconds."""

    run: str
    provider: str
    model: str
    code: str
    failures: int
    pause: float


class FellBack(Fact, frozen=True):
    """A model failed; the run falls back to the next one of the list."""

    run: str
    provider: str
    model: str
    code: str


class ToolRan(Fact, frozen=True):
    """A tool finished; ``code`` is ``ok`` or the error's. ``operation`` as in `FirstToken`."""

    run: str
    name: str
    code: str
    seconds: float
    operation: int | None = None
    call: str | None = None


class FollowerOpened(Fact, frozen=True):
    """A reader opened a run's log."""

    run: str
    wire: str
    resumed: bool


class FollowerGone(Fact, frozen=True):
    """A reader left: ``end`` (it has everything), ``closed`` (it went, or was cut off), ``slow``
    (it did not read), ``age``, ``drain`` (it was asked to reconnect), ``revoked`` (its key no
    longer counts), ``gone`` (the run was erased), ``store``, ``error``."""

    run: str
    wire: str
    why: str
    records: int
    seconds: float


class StoreAppended(Fact, frozen=True):
    """The store accepted records."""

    records: int
    seconds: float


class TakenOver(Fact, frozen=True):
    """This process took over a run of a lost worker; ``how``: ``go-on``, or how it ends. The rest
    as in `RunStarted`. ``trace``: the ids of the run's trace, as they are stored with it
    (`tokenwire.observe.tracing.Trace`)."""

    run: str
    epoch: int
    how: str
    model: str = ""
    thread: str | None = None
    agent: str | None = None
    request: RequestFacts | None = None
    trace: dict[str, str] | None = None


class RequestDone(Fact, frozen=True):
    """An HTTP response is complete (a stream: has ended). ``route`` is the pattern, not the path;
    ``status`` 0: the reader left before a response."""

    method: str
    route: str
    status: int
    seconds: float


class WebhookSent(Fact, frozen=True):
    """A webhook about a run was sent: ``ok``, ``retry`` or ``failed`` (given up)."""

    run: str
    event: str
    how: str


class EndDelivered(Fact, frozen=True):
    """The application was told the end of a run: ``ok``, ``retry`` or ``failed`` (given up)."""

    run: str
    how: str
