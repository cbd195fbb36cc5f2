"""Requests of principals and workers to subscriptions of Durable Streams.

Always true: a subscription belongs to who made it, and others hear what they would hear of one
that is not there; only the token of the wake under way moves its cursors.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

from tokenwire.durable.store import StreamStore
from tokenwire.durable.subscriptions import rules
from tokenwire.durable.subscriptions.config import MOST_LINKS, Config, Problem, invalid
from tokenwire.durable.subscriptions.rules import Subscription, Tail
from tokenwire.durable.subscriptions.signer import Signer
from tokenwire.durable.subscriptions.store import SubscriptionStore, key_of
from tokenwire.durable.subscriptions.waker import Waker
from tokenwire.relay.webhooks.post import Targets

__all__ = ["Subscriptions"]

_Tails = dict[str, Tail | None]


class Subscriptions:
    """The subscriptions of one store. ``signer`` is there when webhooks may be called."""

    def __init__(self, streams: StreamStore, targets: Targets, signer: Signer | None) -> None:
        self.signer = signer
        self._streams, self._targets = streams, targets
        self._store = SubscriptionStore(streams)
        self._waker = Waker(streams, self._store, targets, signer)

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
            subscription = await self._store.get(key)
            if subscription is not None:
                if subscription.config.digest != config.digest:
                    message = "a subscription with this id and another configuration exists"
                    raise Problem(409, "SUBSCRIPTION_ALREADY_EXISTS", message)
                await self._store.enlist(subscription)
                return subscription, False
            if config.type == "webhook":
                self._check_target(config.url or "")
            subscription = Subscription(
                id=name,
                owner=owner,
                config=config,
                birth=secrets.token_hex(8),
                created=time.time(),
                base=base,
            )
            await self._store.enlist(subscription, config.streams)
            await self._link_existing(subscription)
            if await self._store.add(key, subscription):
                break
        # What was appended between the look at the streams and now is found here.
        await self._waker.scan(key)
        return await self.get(owner, name), True

    def _check_target(self, url: str) -> None:
        reason = self._targets.check(url)
        if self.signer is None:
            reason = "webhooks are off; allow hosts with --durable-streams-webhooks"
        if reason is not None:
            raise Problem(400, "WEBHOOK_URL_REJECTED", f"'webhook.url': {reason}")

    async def _link_existing(self, subscription: Subscription) -> None:
        """A new subscription follows from the present on."""
        paths = dict.fromkeys(subscription.config.streams, True)
        for entry in await self._streams.entries(subscription.owner):
            if rules.follows(subscription, entry.path):
                paths.setdefault(entry.path, False)
        for path, tail in (await self._store.tails(subscription.owner, paths)).items():
            _add_link(subscription, path, tail, explicit=paths[path])

    async def get(self, owner: str, name: str) -> Subscription:
        """The subscription. Raises `Problem` (404)."""
        subscription = await self._store.get(key_of(owner, name))
        if subscription is None:
            raise Problem(404, "SUBSCRIPTION_NOT_FOUND", "no such subscription")
        return subscription

    async def delete(self, owner: str, name: str) -> None:
        """Gone, if it was there; what is under way for it counts no more."""
        await self._store.remove(key_of(owner, name))
        await self._store.delist(owner, name)

    async def add_streams(self, owner: str, name: str, paths: list[str]) -> None:
        """Follow streams by name, from their present end on."""
        subscription = await self.get(owner, name)
        if subscription.config.wake_stream in paths:
            raise invalid("the wake stream cannot be followed as well")
        await self._store.enlist(subscription, paths)

        def act(current: Subscription, tails: _Tails) -> None:
            for path in paths:
                _add_link(current, path, tails.get(path), explicit=True)

        await self._store.change(key_of(owner, name), act, lambda _: paths)
        for path in paths:  # what came between the list and the link
            await self._waker.tend(key_of(owner, name), path)

    async def remove_stream(self, owner: str, name: str, path: str) -> None:
        """Take back what `add_streams` did; what the pattern matches stays."""
        subscription, _ = await self._store.change(
            key_of(owner, name), lambda current, _: rules.remove_link(current, path)
        )
        await self._store.enlist(subscription)

    async def claim(self, owner: str, name: str, worker: str) -> dict[str, Any]:
        """A worker takes the wake of a pull-wake subscription. Raises `Problem`."""
        now = time.time()

        def act(subscription: Subscription, tails: _Tails) -> str:
            _check_kind(subscription, "pull-wake")
            rules.expire(subscription, now)
            rules.look(subscription, tails, now)
            return rules.claim(subscription, worker, now).id

        subscription, wake = await self._store.change(key_of(owner, name), act, _pending)
        return {
            "wake_id": wake,
            "generation": subscription.generation,
            "token": self._store.token(subscription),
            "streams": rules.stream_infos(subscription),
            "lease_ttl_ms": subscription.config.lease_ms,
        }

    # --- by who was woken ----------------------------------------------------------------------

    async def ack(self, kind: str, name: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """A worker or webhook moves cursors, asks for more time, or is done. Raises `Problem`."""
        key, birth, generation = self._store.read_token(token, name)
        acks = rules.positions_of(body)
        now = time.time()

        def act(subscription: Subscription, tails: _Tails) -> bool:
            _check_birth(subscription, birth)
            _check_kind(subscription, kind)
            rules.expire(subscription, now)
            rules.fence(subscription, generation, body)
            rules.acknowledge(subscription, acks, tails, now)
            if body.get("done") is not True:
                return False
            subscription.wake = None
            return rules.begin_wake(subscription, tails, now)

        _, more = await self._store.change(
            key, act, lambda subscription: [*subscription.pending, *acks]
        )
        return {"ok": True, "next_wake": more}

    async def release(self, name: str, token: str, body: dict[str, Any]) -> None:
        """A worker gives its wake back without acking. Raises `Problem`."""
        key, birth, generation = self._store.read_token(token, name)
        now = time.time()

        def act(subscription: Subscription, tails: _Tails) -> None:
            _check_birth(subscription, birth)
            _check_kind(subscription, "pull-wake")
            rules.expire(subscription, now)
            rules.fence(subscription, generation, body)
            subscription.wake = None
            rules.begin_wake(subscription, tails, now)

        await self._store.change(key, act, _pending)


def _add_link(subscription: Subscription, path: str, tail: Tail | None, *, explicit: bool) -> None:
    if not rules.add_link(subscription, path, tail, explicit=explicit):
        raise invalid(f"at most {MOST_LINKS} streams can be followed; these are more")


def _pending(subscription: Subscription) -> Iterable[str]:
    return list(subscription.pending)


def _check_kind(subscription: Subscription, kind: str) -> None:
    if subscription.config.type != kind:
        raise invalid(f"this is not a {kind} subscription")


def _check_birth(subscription: Subscription, birth: str) -> None:
    if subscription.birth != birth:
        raise Problem(401, "TOKEN_INVALID", "this token is for an earlier subscription of this id")
