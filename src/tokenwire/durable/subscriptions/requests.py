"""What people and workers ask of subscriptions to Durable Streams.

Always true: a subscription belongs to who made it, and others hear what they would hear of one
that is not there; only the token of the wake under way moves its cursors.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

from tokenwire.durable.store import KeptStreams
from tokenwire.durable.subscriptions import rules
from tokenwire.durable.subscriptions.config import MOST_LINKS, Config, Problem, invalid
from tokenwire.durable.subscriptions.rules import Seen, Subscription
from tokenwire.durable.subscriptions.store import SubscriptionStore, key_of
from tokenwire.durable.subscriptions.waker import Waker
from tokenwire.durable.subscriptions.webhook import Signer, Targets

__all__ = ["Subscriptions"]

_SeenNow = dict[str, Seen | None]


class Subscriptions:
    """The subscriptions of one log. ``signer`` is there when webhooks may be called."""

    def __init__(self, kept: KeptStreams, targets: Targets, signer: Signer | None) -> None:
        self.signer = signer
        self._kept, self._targets = kept, targets
        self._store = SubscriptionStore(kept)
        self._waker = Waker(kept, self._store, targets, signer)

    async def start(self) -> None:
        """Begin to look after what is there."""
        await self._store.open()
        self._waker.start()

    async def stop(self) -> None:
        """Let calls under way finish, or leave them to whoever comes next."""
        await self._waker.stop()

    # --- by principals -------------------------------------------------------------------------

    async def put(
        self, owner: str, name: str, config: Config, base: str
    ) -> tuple[Subscription, bool]:
        """Create, or confirm what is there; the subscription and whether it is new. Raises
        `Problem`."""
        key = key_of(owner, name)
        while True:
            known = await self._store.get(key)
            if known is not None:
                if known.config.digest != config.digest:
                    message = "there is a subscription of this id with another configuration"
                    raise Problem(409, "SUBSCRIPTION_ALREADY_EXISTS", message)
                await self._store.enlist(known)
                return known, False
            if config.type == "webhook":
                self._check_target(config.url or "")
            made = Subscription(
                id=name,
                owner=owner,
                config=config,
                birth=secrets.token_hex(8),
                created=time.time(),
                base=base,
            )
            await self._store.enlist(made, config.streams)
            await self._link_what_is_there(made)
            if await self._store.add(key, made):
                break
        # What was appended between the look at the streams and now is found here.
        await self._waker.scan(key)
        return await self.get(owner, name), True

    def _check_target(self, url: str) -> None:
        reason = self._targets.check(url)
        if self.signer is None:
            reason = "this server calls no webhooks; --durable-streams-webhooks allows some"
        if reason is not None:
            raise Problem(400, "WEBHOOK_URL_REJECTED", f"'webhook.url': {reason}")

    async def _link_what_is_there(self, made: Subscription) -> None:
        """A new subscription follows from the present on."""
        paths = dict.fromkeys(made.config.streams, True)
        for entry in await self._kept.entries(made.owner):
            if rules.follows(made, entry.path):
                paths.setdefault(entry.path, False)
        for path, seen in (await self._store.seen(made.owner, paths)).items():
            _link(made, path, seen, explicit=paths[path])

    async def get(self, owner: str, name: str) -> Subscription:
        """The subscription. Raises `Problem` (404)."""
        found = await self._store.get(key_of(owner, name))
        if found is None:
            raise Problem(404, "SUBSCRIPTION_NOT_FOUND", "there is no such subscription")
        return found

    async def delete(self, owner: str, name: str) -> None:
        """Gone, if it was there; what is under way for it counts no more."""
        await self._store.remove(key_of(owner, name))
        await self._store.delist(owner, name)

    async def add_streams(self, owner: str, name: str, paths: list[str]) -> None:
        """Follow streams by name, from their present end on."""
        known = await self.get(owner, name)
        if known.config.wake_stream in paths:
            raise invalid("the wake stream cannot be followed as well")
        await self._store.enlist(known, paths)

        def act(now_known: Subscription, seen: _SeenNow) -> None:
            for path in paths:
                _link(now_known, path, seen.get(path), explicit=True)

        await self._store.change(key_of(owner, name), act, lambda _: paths)
        for path in paths:  # what came between the list and the link
            await self._waker.tend(key_of(owner, name), path)

    async def remove_stream(self, owner: str, name: str, path: str) -> None:
        """Take back what `add_streams` did; what the pattern matches stays."""
        known, _ = await self._store.change(
            key_of(owner, name), lambda now_known, _: rules.unlink(now_known, path)
        )
        await self._store.enlist(known)

    async def claim(self, owner: str, name: str, worker: str) -> dict[str, Any]:
        """A worker takes the wake of a pull-wake subscription. Raises `Problem`."""
        now = time.time()

        def act(known: Subscription, seen: _SeenNow) -> str:
            _need(known, "pull-wake")
            rules.expire(known, now)
            rules.look(known, seen, now)
            return rules.claim(known, worker, now).id

        taken, wake = await self._store.change(key_of(owner, name), act, _pending)
        return {
            "wake_id": wake,
            "generation": taken.generation,
            "token": self._store.token(taken),
            "streams": rules.stream_infos(taken),
            "lease_ttl_ms": taken.config.lease_ms,
        }

    # --- by who was woken ----------------------------------------------------------------------

    async def ack(self, kind: str, name: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """A worker or webhook moves cursors, asks for more time, or is done. Raises `Problem`."""
        key, birth, generation = self._store.read_token(token, name)
        acks = rules.positions_of(body)
        now = time.time()

        def act(known: Subscription, seen: _SeenNow) -> bool:
            _born(known, birth)
            _need(known, kind)
            rules.expire(known, now)
            rules.fence(known, generation, body)
            rules.acknowledge(known, acks, seen, now)
            if body.get("done") is not True:
                return False
            known.wake = None
            return rules.begin_wake(known, seen, now)

        _, more = await self._store.change(key, act, lambda known: [*known.pending, *acks])
        return {"ok": True, "next_wake": more}

    async def release(self, name: str, token: str, body: dict[str, Any]) -> None:
        """A worker gives its wake back without acking. Raises `Problem`."""
        key, birth, generation = self._store.read_token(token, name)
        now = time.time()

        def act(known: Subscription, seen: _SeenNow) -> None:
            _born(known, birth)
            _need(known, "pull-wake")
            rules.expire(known, now)
            rules.fence(known, generation, body)
            known.wake = None
            rules.begin_wake(known, seen, now)

        await self._store.change(key, act, _pending)


def _link(known: Subscription, path: str, seen: Seen | None, *, explicit: bool) -> None:
    if not rules.link(known, path, seen, explicit=explicit):
        raise invalid(f"at most {MOST_LINKS} streams can be followed; these are more")


def _pending(known: Subscription) -> Iterable[str]:
    return list(known.pending)


def _need(known: Subscription, kind: str) -> None:
    if known.config.type != kind:
        raise invalid(f"this is not a {kind} subscription")


def _born(known: Subscription, birth: str) -> None:
    if known.birth != birth:
        raise Problem(401, "TOKEN_INVALID", "this token is for an earlier subscription of this id")
