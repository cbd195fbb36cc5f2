"""Subscriptions to Durable Streams as documents of the store, and the tokens of their wakes.

Always true: a subscription changes only by swapping the document that was seen, so that of several
workers one does each thing; a token is good for one subscription and one of its wakes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from tokenwire.durable.rules import Refusal
from tokenwire.durable.store import StreamStore
from tokenwire.durable.subscriptions.config import Glob, Problem
from tokenwire.durable.subscriptions.rules import Subscription, Tail

__all__ = ["SubscriptionStore", "key_of"]

T = TypeVar("T")
Act = Callable[[Subscription, dict[str, Tail | None]], T]

_KIND, _INDEX, _KEY = "ds-subscription", "ds-subscribed", "ds-key"
#: Of one principal.
_MOST_SUBSCRIPTIONS = 1000
#: Of all principals, in a look at all of them.
_MOST_LOOKED_AT = 100_000
#: A token is good for as long as its wake, but no longer than this.
_TOKEN_SECONDS = 7 * 86_400
#: Owners whose index is kept ready, and seconds of matching between two turns of the loop.
_MOST_FOLLOWED, _TURN_SECONDS = 256, 0.005
#: Streams that are looked at together.
_TOGETHER = 64

_encode = msgspec.msgpack.encode

#: Per subscription of a principal: its pattern and the streams that it names.
_Index = dict[str, tuple[str | None, list[str]]]


class _Followed:
    """The index of one owner, ready to be searched: by path, and by a pattern's first segment."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.by_path: dict[str, list[str]] = {}
        self.by_first: dict[str | None, list[tuple[str, Glob]]] = {}
        for name, (pattern, paths) in msgspec.msgpack.decode(data, type=_Index).items():
            for path in paths:
                self.by_path.setdefault(path, []).append(name)
            if pattern is not None:
                glob = Glob(pattern)
                self.by_first.setdefault(glob.first, []).append((name, glob))


class SubscriptionStore:
    """The documents of all subscriptions of a store. ``changed`` hears of every look at one, with
    the streams that it took out of what is pending: those are to be looked at once more. An append
    that found its stream pending has changed nothing, and may be newer than the look."""

    def __init__(self, streams: StreamStore) -> None:
        self._streams, self._store = streams, streams.store
        self._secret = b""
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self.changed: Callable[[str, Subscription, set[str]], None] = (
            lambda key, subscription, cleared: None
        )

    async def open(self) -> None:
        """Get the secret that tokens are signed with; all processes of one store have the same."""
        while not self._secret:
            secret = await self._store.document(_KEY, "token")
            new = secret or os.urandom(32)
            if await self._store.swap_document(_KEY, "token", secret, new):
                self._secret = new

    # --- documents -----------------------------------------------------------------------------

    async def get(self, key: str) -> Subscription | None:
        """The subscription as it is."""
        data = await self._store.document(_KIND, key)
        return _decode(data) if data is not None else None

    async def all(self) -> dict[str, Subscription]:
        """Every subscription, by key."""
        documents = await self._store.documents(_KIND, most=_MOST_LOOKED_AT)
        return {key: _decode(data) for key, data in documents.items()}

    async def add(self, key: str, subscription: Subscription) -> bool:
        """Keep a new one; whether none was there."""
        return await self._store.swap_document(_KIND, key, None, _encode(subscription))

    async def remove(self, key: str) -> None:
        """Gone, if it was there."""
        while True:
            data = await self._store.document(_KIND, key)
            if data is None or await self._store.swap_document(_KIND, key, data, None):
                return

    async def change(
        self,
        key: str,
        act: Act[T],
        paths: Callable[[Subscription], Iterable[str]] = lambda _: (),
    ) -> tuple[Subscription, T]:
        """Apply ``act`` to a subscription as it is, given the tails of the streams in ``paths``;
        retried when another process changed it first. Raises what ``act`` raises, and `Problem`
        (404)."""
        while True:
            data = await self._store.document(_KIND, key)
            if data is None:
                raise Problem(404, "SUBSCRIPTION_NOT_FOUND", "no such subscription")
            subscription = _decode(data)
            tails = await self.tails(subscription.owner, paths(subscription))
            before = set(subscription.pending)
            result = act(subscription, tails)
            new = _encode(subscription)
            if new == data or await self._store.swap_document(_KIND, key, data, new):
                self.changed(key, subscription, before - set(subscription.pending))
                return subscription, result

    async def tails(self, owner: str, paths: Iterable[str]) -> dict[str, Tail | None]:
        """Streams as they are now; None for one that is not there."""

        async def one(path: str) -> Tail | None:
            try:
                stream = await self._streams.find(owner, path, time.time())
            except Refusal:
                return None
            return stream.id, stream.tail

        names = list(dict.fromkeys(paths))
        tails_by_path: dict[str, Tail | None] = {}
        for start in range(0, len(names), _TOGETHER):
            part = names[start : start + _TOGETHER]
            answers = await asyncio.gather(*(one(path) for path in part))
            tails_by_path.update(zip(part, answers, strict=True))
        return tails_by_path

    # --- who follows what ----------------------------------------------------------------------

    async def followers(self, owner: str, path: str) -> list[str]:
        """The keys of the subscriptions that a stream may concern. With many patterns the event
        loop gets its turns in between."""
        data = await self._store.document(_INDEX, owner)
        if data is None:
            self._followed.pop(owner, None)
            return []
        followed = self._followed.get(owner)
        if followed is None or followed.data != data:
            followed = self._followed[owner] = _Followed(data)
        self._followed.move_to_end(owner)
        if len(self._followed) > _MOST_FOLLOWED:
            self._followed.popitem(last=False)
        names = dict.fromkeys(followed.by_path.get(path, ()))
        first = path.partition("/")[0]
        turn = time.monotonic()
        for group in (followed.by_first.get(first, ()), followed.by_first.get(None, ())):
            for name, glob in group:
                if glob.matches(path):
                    names[name] = None
                if time.monotonic() - turn > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
        return [key_of(owner, name) for name in names]

    async def enlist(self, subscription: Subscription, more: Iterable[str] = ()) -> None:
        """Note which streams concern a subscription: before it is kept, so that nothing which is
        appended once it is there passes it by. Raises `Problem` (429) when there are too many."""
        paths = [path for path, link in subscription.links.items() if link.explicit]
        entry = (subscription.config.pattern, list(dict.fromkeys([*paths, *more])))
        await self._index(subscription.owner, subscription.id, entry)

    async def delist(self, owner: str, name: str) -> None:
        """Nothing concerns it any more."""
        await self._index(owner, name, None)

    async def _index(
        self, owner: str, name: str, entry: tuple[str | None, list[str]] | None
    ) -> None:
        while True:
            data = await self._store.document(_INDEX, owner)
            index = msgspec.msgpack.decode(data, type=_Index) if data is not None else {}
            if entry is None:
                index.pop(name, None)
            elif name not in index and len(index) >= _MOST_SUBSCRIPTIONS:
                message = f"there can be at most {_MOST_SUBSCRIPTIONS} subscriptions"
                raise Problem(429, "LIMIT_EXCEEDED", message)
            else:
                index[name] = entry
            new = _encode(index) if index else None
            if new == data or await self._store.swap_document(_INDEX, owner, data, new):
                return

    # --- tokens --------------------------------------------------------------------------------

    def token(self, subscription: Subscription) -> str:
        """What a worker shows to ack the wake under way."""
        end = math.ceil(time.time()) + _TOKEN_SECONDS
        body = _encode(
            (subscription.owner, subscription.id, subscription.birth, subscription.generation, end)
        )
        mac = hmac.new(self._secret, body, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()

    def read_token(self, token: str, name: str) -> tuple[str, str, int]:
        """``(key, birth, generation)`` of a token for a subscription ``name``. Raises `Problem`
        (401)."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        except ValueError:
            raw = b""
        mac, body = raw[:32], raw[32:]
        expected = hmac.new(self._secret, body, hashlib.sha256).digest()
        if not hmac.compare_digest(mac, expected):
            raise Problem(401, "TOKEN_INVALID", "invalid token")
        owner, subscription_id, birth, generation, end = msgspec.msgpack.decode(
            body, type=tuple[str, str, str, int, int]
        )
        if subscription_id != name:
            raise Problem(401, "TOKEN_INVALID", "this token is for another subscription")
        if time.time() > end:
            raise Problem(401, "TOKEN_EXPIRED", "token expired; claim again")
        return key_of(owner, name), birth, generation


def key_of(owner: str, name: str) -> str:
    """Where the subscription ``name`` of an owner is kept."""
    return f"{owner}/{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _decode(data: bytes) -> Subscription:
    return msgspec.msgpack.decode(data, type=Subscription)
