"""Facts for observers: small frozen records, one class per kind.

Always true: a fact holds no content (no prompt, no answer, no key), only names, numbers and codes.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "ChunksCame",
    "EndDelivered",
    "Fact",
    "FellBack",
    "FirstToken",
    "FollowerGone",
    "FollowerOpened",
    "RequestDone",
    "Retried",
    "RunEnded",
    "RunStarted",
    "StoreAppended",
    "TakenOver",
    "ToolRan",
    "WebhookSent",
]


class Fact(msgspec.Struct, frozen=True):
    """Base of all facts."""


class RunStarted(Fact, frozen=True):
    """A run started."""

    run: str
    model: str


class FirstToken(Fact, frozen=True):
    """The first visible event of a model call; seconds since the call."""

    run: str
    provider: str
    model: str
    first_token_seconds: float


class ChunksCame(Fact, frozen=True):
    """Chunks of about one second of an answer: the seconds between each and its predecessor. The
    first of a model call has none (see `FirstToken`)."""

    run: str
    model: str
    chunk_gap_seconds: tuple[float, ...]


class RunEnded(Fact, frozen=True):
    """A run ended. ``events``: their number."""

    run: str
    model: str
    outcome: str
    code: str | None
    seconds: float
    events: int
    input_tokens: int = 0
    output_tokens: int = 0


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
    """A tool finished; ``code`` is ``ok`` or the error's."""

    run: str
    name: str
    code: str
    seconds: float


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
    """This process took over a run of a lost worker; ``how``: ``resume``, ``restart``, ``end``."""

    run: str
    epoch: int
    how: str


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
