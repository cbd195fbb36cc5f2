"""What observers are told: small frozen records, one per kind of thing that happened.

Always true: a fact holds no content (no prompt, no answer, no key), only names, numbers and codes.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "ChunksCame",
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
]


class Fact(msgspec.Struct, frozen=True):
    """Base of all facts."""


class RunStarted(Fact, frozen=True):
    """A run began."""

    run: str
    model: str


class FirstToken(Fact, frozen=True):
    """The first visible event of a run's model call; seconds since the call was made."""

    run: str
    provider: str
    model: str
    first_token_seconds: float


class ChunksCame(Fact, frozen=True):
    """Chunks of an answer, gathered for about a second: the seconds before each of them since the
    one before. The first of a model call has none (see `FirstToken`)."""

    run: str
    model: str
    chunk_gap_seconds: tuple[float, ...]


class RunEnded(Fact, frozen=True):
    """A run came to its end. ``events``: how many it has."""

    run: str
    model: str
    outcome: str
    code: str | None
    seconds: float
    events: int
    input_tokens: int = 0
    output_tokens: int = 0


class Retried(Fact, frozen=True):
    """A model call failed before anything was visible, and is made again after ``pause`` s."""

    run: str
    provider: str
    model: str
    code: str
    failures: int
    pause: float


class FellBack(Fact, frozen=True):
    """A model was given up and the next one of the list is asked."""

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
    """A reader came to a run's log."""

    run: str
    wire: str
    resumed: bool


class FollowerGone(Fact, frozen=True):
    """A reader left: ``end``, ``closed``, ``slow``, ``age``, ``drain``."""

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
    """A run whose worker was lost went on here; ``how``: ``resume``, ``restart``, ``end``."""

    run: str
    epoch: int
    how: str


class RequestDone(Fact, frozen=True):
    """An HTTP request was answered (a stream: has ended). ``route`` is the pattern, not the path;
    ``status`` 0: the reader left before an answer."""

    method: str
    route: str
    status: int
    seconds: float
