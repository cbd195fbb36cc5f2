"""Subscriptions to Durable Streams: what one is, and every rule about waking its workers.

Always true: ``generation`` grows with every wake; only the wake that is under way can be acked,
by who has its token; a stream's cursor never goes back and never passes its tail; a stream with
something behind its cursor is in ``pending``.

A subscription is one document. Pure: time and what the streams look like are arguments, and
`ds_wake` keeps it, wakes and listens.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from tokenwire.backoff import backoff
from tokenwire.durable.subscriptions.config import MOST_LINKS, Config, Problem, invalid, matches
from tokenwire.errors import InputError
from tokenwire.wire.durable import offset_text, position_of

__all__ = ["Link", "Subscription", "Tail", "Wake"]

#: Failed attempts at one wake; then the next append begins anew.
MOST_ATTEMPTS = 100
#: Streams without news that a wake lists beside those with news.
_MOST_LISTED = 256
_RETRY_SECONDS = (1.0, 60.0)
#: A wake that no worker claims is told again, ever more rarely.
_TELL_SECONDS = (60.0, 3600.0)

#: A stream as it is now: its id and its tail.
Tail = tuple[str, int]


class Link(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The cursor in one stream. It counts only in the stream of that id: what is made anew at the
    same path is read from its beginning."""

    stream: str = ""
    acked: int = 0
    explicit: bool = False
    matched: bool = False

    def cursor(self, tail: Tail | None) -> int:
        """The position that was acked in the stream as it is now."""
        return self.acked if tail is not None and tail[0] == self.stream else 0


class Wake(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A wake under way. ``snapshot``: where its streams ended when it was told."""

    id: str
    snapshot: dict[str, Tail] = {}
    holder: str | None = None
    #: When the worker's time is over; None: nobody has been reached or has claimed it yet.
    lease_until: float | None = None
    #: When it is told (again); None: it was told.
    tell_at: float | None = None
    #: Until when somebody is telling it.
    telling_until: float = 0.0
    attempts: int = 0


class Subscription(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One subscription. ``birth`` tells it from an earlier one of the same id."""

    id: str
    owner: str
    config: Config
    birth: str
    created: float
    #: The address of the root of streams, as its maker called it.
    base: str
    links: dict[str, Link] = {}
    #: Streams with something behind their cursor.
    pending: dict[str, bool] = {}
    generation: int = 0
    wake: Wake | None = None
    #: Failed attempts since a worker was last heard of.
    failures: int = 0
    #: Gave up; the next append begins anew.
    resting: bool = False
    last_error: str | None = None

    @property
    def url(self) -> str:
        """Its own address."""
        return f"{self.base}/__ds/subscriptions/{quote(self.id, safe='')}"


# --- streams -----------------------------------------------------------------------------------


def follows(subscription: Subscription, path: str) -> bool:
    """Whether a stream that is not linked yet belongs to it by its pattern."""
    config = subscription.config
    return (
        config.pattern is not None and path != config.wake_stream and matches(config.pattern, path)
    )


def add_link(subscription: Subscription, path: str, tail: Tail | None, *, explicit: bool) -> bool:
    """Follow a stream from ``seen`` on (None: from its beginning). False: there are too many."""
    link = subscription.links.get(path)
    if link is None:
        if len(subscription.links) >= MOST_LINKS:
            return False
        link = subscription.links[path] = Link()
        if tail is not None:
            link.stream, link.acked = tail
    link.explicit = link.explicit or explicit
    link.matched = link.matched or follows(subscription, path)
    return True


def remove_link(subscription: Subscription, path: str) -> None:
    """Take back an explicit link; what the pattern matches stays."""
    link = subscription.links.get(path)
    if link is None:
        return
    link.explicit = False
    if not link.matched:
        _forget(subscription, path)


def _forget(subscription: Subscription, path: str) -> None:
    subscription.links.pop(path, None)
    subscription.pending.pop(path, None)


def mark(subscription: Subscription, path: str, tail: Tail | None) -> None:
    """Compare a linked stream with its cursor. One that is no more is not followed, unless it was
    asked for by name: then from its beginning when it comes again."""
    link = subscription.links.get(path)
    if link is None:
        return
    if tail is None:
        if not link.explicit:
            _forget(subscription, path)
            return
        link.stream, link.acked = "", 0
    news = tail is not None and tail[1] > link.cursor(tail)
    if news and path not in subscription.pending:
        subscription.pending[path] = True
    elif not news:
        subscription.pending.pop(path, None)


def differs(subscription: Subscription, path: str, tail: Tail | None) -> bool:
    """Whether `mark` would change something."""
    link = subscription.links[path]
    if tail is None:
        return not link.explicit or bool(link.stream)
    return (tail[1] > link.cursor(tail)) != (path in subscription.pending)


# --- wakes -------------------------------------------------------------------------------------


def begin_wake(subscription: Subscription, tails: Mapping[str, Tail | None], now: float) -> bool:
    """A new wake, when there is something pending and nothing under way. ``seen`` has the pending
    streams as they are now."""
    if subscription.wake is not None or subscription.resting:
        return False
    _refresh_pending(subscription, tails)
    if not subscription.pending:
        return False
    subscription.generation += 1
    subscription.wake = Wake(id=f"w_{secrets.token_hex(12)}", tell_at=now)
    if subscription.failures:
        subscription.wake.attempts = subscription.failures
        subscription.wake.tell_at = now + retry_after(subscription.failures)
    _snapshot(subscription, tails)
    return True


def _refresh_pending(subscription: Subscription, tails: Mapping[str, Tail | None]) -> None:
    for path in list(subscription.pending):
        if path in tails:
            mark(subscription, path, tails[path])


def _snapshot(subscription: Subscription, tails: Mapping[str, Tail | None]) -> None:
    if subscription.wake is not None:
        snapshot = {path: tails.get(path) for path in subscription.pending}
        subscription.wake.snapshot = {path: s for path, s in snapshot.items() if s is not None}


def begin_delivery(
    subscription: Subscription, tails: Mapping[str, Tail | None], now: float, seconds: float
) -> bool:
    """Take it on to tell the wake, when that is due and nobody is at it."""
    wake = subscription.wake
    if wake is None or wake.tell_at is None or now < max(wake.tell_at, wake.telling_until):
        return False
    _refresh_pending(subscription, tails)
    if not subscription.pending:  # its streams were deleted
        subscription.wake = None
        return False
    _snapshot(subscription, tails)
    wake.telling_until = now + seconds
    return True


def record_delivery(subscription: Subscription, wake_id: str, now: float) -> None:
    """The wake reached the webhook, or stands in the wake stream."""
    wake = subscription.wake
    if wake is None or wake.id != wake_id:
        return
    wake.telling_until = 0.0
    subscription.last_error = None
    if subscription.config.type == "webhook":
        wake.tell_at = None
        if wake.lease_until is None:
            wake.lease_until = now + subscription.config.lease_ms / 1000
    elif wake.holder is None:
        if subscription.failures:
            subscription.failures = wake.attempts = 0
        shortest, longest = _TELL_SECONDS
        wake.tell_at = now + backoff(wake.attempts + 1, first=shortest, longest=longest)
        wake.attempts += 1


def attempt_failed(subscription: Subscription, wake_id: str, error: str, now: float) -> None:
    """The wake did not get through: again later, or not before the next append."""
    wake = subscription.wake
    if wake is None or wake.id != wake_id:
        return
    wake.telling_until = 0.0
    wake.attempts += 1
    subscription.last_error = error
    subscription.failures = wake.attempts
    if wake.attempts >= MOST_ATTEMPTS:
        subscription.wake, subscription.resting = None, True
        return
    # With a lease the webhook was heard of all the same: it works, and its lease decides.
    wake.tell_at = now + retry_after(wake.attempts) if wake.lease_until is None else None


def retry_after(attempts: int) -> float:
    """Seconds until the next attempt: doubling, with a fifth of jitter."""
    shortest, longest = _RETRY_SECONDS
    chance = secrets.randbelow(1000) / 1000
    return backoff(attempts, first=shortest, longest=longest, spread=(0.8, 1.2), chance=chance)


def expire(subscription: Subscription, now: float) -> bool:
    """End a wake whose worker's time is over. A webhook that was reached but never acked counts
    as a failed attempt, so that it is not called at the pace of the lease for ever."""
    wake = subscription.wake
    if wake is None or wake.lease_until is None or now < max(wake.lease_until, wake.telling_until):
        return False
    subscription.wake = None
    if subscription.config.type == "webhook":
        subscription.failures = max(subscription.failures, wake.attempts) + 1
        subscription.last_error = "the webhook answered but did not ack before its lease ended"
        subscription.resting = subscription.failures >= MOST_ATTEMPTS
    return True


def wake_up(subscription: Subscription) -> None:
    """An append: one that had given up tries again."""
    if subscription.resting:
        subscription.resting, subscription.failures = False, 0


def look(subscription: Subscription, tails: Mapping[str, Tail | None], now: float) -> None:
    """Before a claim: what there is to do, as the streams are now."""
    wake = subscription.wake
    if wake is not None and wake.holder is not None:
        return
    wake_up(subscription)
    begin_wake(subscription, tails, now)
    if not subscription.pending:
        subscription.wake = None
    _snapshot(subscription, tails)


def claim(subscription: Subscription, worker: str, now: float) -> Wake:
    """Give the wake under way to a worker. Raises `Problem` (409)."""
    wake = subscription.wake
    if wake is not None and wake.holder is not None:
        raise Problem(
            409,
            "ALREADY_CLAIMED",
            "another worker holds the lease",
            current_holder=wake.holder,
            generation=subscription.generation,
        )
    if wake is None:
        raise Problem(409, "NO_PENDING_WORK", "no pending work")
    wake.holder, wake.tell_at = worker, None
    wake.lease_until = now + subscription.config.lease_ms / 1000
    return wake


def fence(subscription: Subscription, generation: int, body: Mapping[str, Any]) -> Wake:
    """The wake under way, if token and request are of it. Raises `Problem` (409)."""
    wake = subscription.wake
    if (
        wake is None
        or generation != subscription.generation
        or body.get("generation") != subscription.generation
        or body.get("wake_id") != wake.id
    ):
        raise Problem(409, "FENCED", "this wake has ended; a newer one replaced it")
    return wake


def positions_of(body: Mapping[str, Any]) -> dict[str, int]:
    """The acked positions of a request, by path. Raises `Problem`."""
    acks = body.get("acks")
    if acks is None:
        return {}
    if not isinstance(acks, list) or len(acks) > MOST_LINKS:
        raise invalid("'acks' must be a list of streams and offsets")
    positions: dict[str, int] = {}
    for ack in acks:
        if not isinstance(ack, dict):
            raise invalid("'acks' must be a list of streams and offsets")
        path, offset = ack.get("stream", ack.get("path")), ack.get("offset")
        if not isinstance(path, str) or not isinstance(offset, str):
            raise invalid("an ack needs 'stream' and 'offset'")
        try:
            position = position_of(offset)
        except InputError as error:
            raise Problem(409, "INVALID_OFFSET", error.message) from error
        positions[path.strip("/")] = position
    return positions


def acknowledge(
    subscription: Subscription,
    acks: Mapping[str, int],
    tails: Mapping[str, Tail | None],
    now: float,
) -> None:
    """Move cursors, all or none, and give the worker more time. Raises `Problem` (409)."""
    for path, position in acks.items():
        link, stream = subscription.links.get(path), tails.get(path)
        if link is None or stream is None:
            raise Problem(409, "INVALID_OFFSET", "an acked stream is not of this subscription")
        if position < link.cursor(stream):
            raise Problem(409, "INVALID_OFFSET", "an acked offset is behind the cursor")
        if position > stream[1]:
            raise Problem(409, "INVALID_OFFSET", "an acked offset is beyond the stream's end")
    for path, position in acks.items():
        link, stream = subscription.links[path], tails.get(path)
        if stream is not None:
            link.stream, link.acked = stream[0], position
            mark(subscription, path, stream)
    subscription.failures, subscription.last_error = 0, None
    if subscription.wake is not None:
        subscription.wake.attempts, subscription.wake.tell_at = 0, None
        subscription.wake.lease_until = now + subscription.config.lease_ms / 1000


def ack_snapshot(
    subscription: Subscription, wake_id: str, tails: Mapping[str, Tail | None]
) -> None:
    """A webhook said that it is done: what the wake told of is acked, and the wake over."""
    wake = subscription.wake
    if wake is None or wake.id != wake_id:
        return
    for path, (stream, tail) in wake.snapshot.items():
        link, current = subscription.links.get(path), tails.get(path)
        if link is not None and current is not None and current[0] == stream:
            link.stream, link.acked = stream, max(link.cursor(current), tail)
            mark(subscription, path, current)
    subscription.wake = None
    subscription.failures, subscription.last_error = 0, None


def next_due(subscription: Subscription) -> float | None:
    """When something is to be done for it next, if nobody asks before."""
    wake = subscription.wake
    if wake is None:
        return 0.0 if subscription.pending and not subscription.resting else None
    due = [
        max(moment, wake.telling_until)
        for moment in (wake.tell_at, wake.lease_until)
        if moment is not None
    ]
    return min(due, default=None)


# --- telling -----------------------------------------------------------------------------------


def stream_infos(subscription: Subscription) -> list[dict[str, Any]]:
    """The streams of the wake under way, for who is woken; those without news while they are
    few."""
    snapshot = subscription.wake.snapshot if subscription.wake is not None else {}
    infos: list[dict[str, Any]] = []
    quiet = 0
    for path, link in subscription.links.items():
        tail = snapshot.get(path)
        if tail is None:
            quiet += 1
            if quiet > _MOST_LISTED:
                continue
        acked = link.cursor(tail) if tail is not None else link.acked
        end = tail[1] if tail is not None else acked
        info = {**_info(path, link, acked), "tail_offset": offset_text(end)}
        infos.append({**info, "has_pending": end > acked})
    return infos


def _info(path: str, link: Link, acked: int) -> dict[str, Any]:
    kind = "explicit" if link.explicit else "glob"
    return {"path": path, "link_type": kind, "acked_offset": offset_text(acked)}


def serialize(subscription: Subscription, signing: dict[str, str] | None) -> dict[str, Any]:
    """What a ``GET`` shows."""
    config = subscription.config
    created = datetime.fromtimestamp(subscription.created, UTC)
    description: dict[str, Any] = {
        "id": subscription.id,
        "subscription_id": subscription.id,
        "type": config.type,
        "pattern": config.pattern,
        "streams": [_info(p, link, link.acked) for p, link in subscription.links.items()],
        "wake_stream": config.wake_stream,
        "lease_ttl_ms": config.lease_ms,
        "created_at": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "status": "failed" if subscription.last_error is not None else "active",
        "description": config.description,
    }
    if config.url is not None:
        description["webhook"] = {"url": config.url, **({"signing": signing} if signing else {})}
    if subscription.last_error is not None:
        description["last_error"] = subscription.last_error
        wake = subscription.wake
        if wake is not None and wake.tell_at is not None:
            description["next_attempt_at"] = int(wake.tell_at * 1000)
    return description
