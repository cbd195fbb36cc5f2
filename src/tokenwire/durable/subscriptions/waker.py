"""Waking who subscribed to Durable Streams: over their wake stream, or by calling their webhook.

Always true: a wake is written down before it is told, and told again when whoever was at it is
gone; what an append missed, because a process died in between, the next scan finds; a failure
here never undoes an append.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable

import msgspec

from tokenwire.durable.rules import Append, Refusal
from tokenwire.durable.store import StreamStore
from tokenwire.durable.subscriptions import rules
from tokenwire.durable.subscriptions.config import Problem
from tokenwire.durable.subscriptions.rules import Subscription, Tail
from tokenwire.durable.subscriptions.signer import Signer
from tokenwire.durable.subscriptions.store import SubscriptionStore, key_of
from tokenwire.errors import ProviderError, TokenwireError
from tokenwire.relay.webhooks.post import CALL_SECONDS, Targets, post

__all__ = ["Waker"]

#: Webhooks that one process calls at once.
_MOST_CALLS = 32
#: Announcer a wake takes at most this long; then somebody else may.
_DELIVERY_SECONDS = CALL_SECONDS + 10.0
#: Between two looks for what other processes left, and at all streams of all subscriptions.
_LOOK_SECONDS, _SCAN_SECONDS = 30.0, 600.0
#: Until what failed is tried again, and how long a stop waits for calls under way.
_AGAIN_SECONDS, _STOP_SECONDS = 1.0, 2.0

_log = logging.getLogger("tokenwire.server")


class Waker:
    """`StreamStore.watcher`. ``signer`` is there when webhooks may be called."""

    def __init__(
        self,
        streams: StreamStore,
        store: SubscriptionStore,
        targets: Targets,
        signer: Signer | None,
    ) -> None:
        self._streams, self._store, self._targets, self._signer = streams, store, targets, signer
        self._due: dict[str, float] = {}
        self._recheck: dict[str, set[str]] = {}
        self._news = asyncio.Event()
        self._deliveries: dict[asyncio.Task[None], Subscription] = {}
        self._calls = asyncio.Semaphore(_MOST_CALLS)
        self._main: asyncio.Task[None] | None = None
        store.changed = self._changed

    def start(self) -> None:
        """Begin to look after what is there."""
        self._streams.watcher = self
        self._main = asyncio.create_task(self._look_after())

    async def stop(self) -> None:
        """Let calls under way finish, or leave them to whoever comes next."""
        self._streams.watcher = None
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        if self._deliveries:
            await asyncio.wait(list(self._deliveries), timeout=_STOP_SECONDS)
        unfinished = dict(self._deliveries)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(list(unfinished))
        for subscription in unfinished.values():
            await self._give_back(subscription)

    async def stream_grew(self, owner: str, path: str) -> None:
        """Something was put into a stream: wake who follows it."""
        try:
            for key in await self._store.followers(owner, path):
                await self.tend(key, path)
        except TokenwireError as error:
            _log.warning("subscriptions did not hear of an append: %s", error)

    async def tend(self, key: str, path: str | None = None, *, appended: bool = True) -> None:
        """Do what is due for a subscription, after a look at the stream ``path``; one that gave up
        begins anew when something was ``appended``."""
        now = time.time()

        def paths(subscription: Subscription) -> list[str]:
            due = rules.next_due(subscription)
            looks = [path] if path is not None else []
            if subscription.wake is None or (due is not None and due <= now):
                looks += subscription.pending
            return looks

        def act(subscription: Subscription, tails: dict[str, Tail | None]) -> bool:
            rules.expire(subscription, now)
            if path is not None:
                new = path not in subscription.links and rules.follows(subscription, path)
                if new and not rules.add_link(subscription, path, None, explicit=False):
                    _log.warning("subscription %s follows too many streams", subscription.id)
                rules.mark(subscription, path, tails.get(path))
                if appended:
                    rules.wake_up(subscription)
            rules.begin_wake(subscription, tails, now)
            return rules.begin_delivery(subscription, tails, now, _DELIVERY_SECONDS)

        try:
            subscription, is_due = await self._store.change(key, act, paths)
        except Problem:
            return  # deleted meanwhile
        if is_due:
            task = asyncio.create_task(self._deliver(key, subscription))
            self._deliveries[task] = subscription
            task.add_done_callback(lambda finished: self._deliveries.pop(finished, None))

    async def scan(self, key: str) -> None:
        """Look at every stream of a subscription: those that it should follow and does not (they
        were made after it, so from their beginning), and what is behind its cursors."""
        subscription = await self._store.get(key)
        if subscription is None:
            return
        paths = [entry.path for entry in await self._streams.entries(subscription.owner)]
        new = [p for p in paths if p not in subscription.links and rules.follows(subscription, p)]
        tails = await self._store.tails(subscription.owner, subscription.links)
        for path in [
            *new,
            *(p for p in subscription.links if rules.differs(subscription, p, tails[p])),
        ]:
            await self.tend(key, path)
        await self.tend(key)

    # --- telling -------------------------------------------------------------------------------

    async def _deliver(self, key: str, subscription: Subscription) -> None:
        """Tell a wake, and write down what came of it."""
        wake = subscription.wake
        if wake is None:
            return
        acknowledged, error = False, None
        try:
            if subscription.config.type == "webhook":
                acknowledged = await self._call(subscription)
            else:
                await self._announce(subscription)
        except (ProviderError, Refusal) as failure:
            error = failure.message
        except TokenwireError as failure:
            _log.warning("cannot deliver a wake: %s", failure)
            error = "the server could not tell the wake"

        def act(current: Subscription, tails: dict[str, Tail | None]) -> None:
            now = time.time()
            if error is not None:
                rules.attempt_failed(current, wake.id, error, now)
                return
            rules.record_delivery(current, wake.id, now)
            if acknowledged:
                rules.ack_snapshot(current, wake.id, tails)
            rules.begin_wake(current, tails, now)

        def paths(current: Subscription) -> list[str]:
            snapshot = current.wake.snapshot if current.wake is not None else {}
            return [*current.pending, *snapshot]

        try:
            await self._store.change(key, act, paths)
        except Problem:
            pass  # deleted meanwhile
        except TokenwireError as failure:
            _log.warning("what came of a wake could not be written down: %s", failure)
            self._due[key] = time.time() + _DELIVERY_SECONDS

    async def _call(self, subscription: Subscription) -> bool:
        """Call the webhook; whether it says that it is done."""
        wake, url, signer = subscription.wake, subscription.config.url, self._signer
        if wake is None or url is None or signer is None:
            raise ProviderError("webhooks are off")
        body = msgspec.json.encode(
            {
                "subscription_id": subscription.id,
                "wake_id": wake.id,
                "generation": subscription.generation,
                "streams": rules.stream_infos(subscription),
                "callback_url": f"{subscription.url}/callback",
                "callback_token": self._store.token(subscription),
            }
        )
        async with self._calls:
            headers = {"webhook-signature": signer.sign(body, time.time())}
            status, answer = await post(self._targets, url, body, headers)
        if not 200 <= status < 300:
            raise ProviderError(f"the webhook answered {status}")
        try:
            reply = msgspec.json.decode(answer or b"null")
        except msgspec.DecodeError:
            return False
        return isinstance(reply, dict) and reply.get("done") is True

    async def _announce(self, subscription: Subscription) -> None:
        """Write the wake into the wake stream."""
        wake, path = subscription.wake, subscription.config.wake_stream
        if wake is None or path is None:
            return
        now = time.time()
        event = {
            "type": "wake",
            "subscription_id": subscription.id,
            "stream": next(iter(wake.snapshot), ""),
            "generation": subscription.generation,
            "ts": int(now * 1000),
        }
        wake_event = Append(content_type="application/json", body=msgspec.json.encode(event))
        try:
            await self._streams.append(subscription.owner, path, wake_event, now)
        except Refusal as refusal:
            raise ProviderError(f"the wake stream: {refusal.message}") from refusal

    async def _give_back(self, subscription: Subscription) -> None:
        """A wake that this process cannot finish telling: the next may begin at once."""
        wake = subscription.wake

        def act(current: Subscription, _: dict[str, Tail | None]) -> None:
            if wake is not None and current.wake is not None and current.wake.id == wake.id:
                current.wake.telling_until = 0.0

        try:
            await self._store.change(key_of(subscription.owner, subscription.id), act)
        except TokenwireError as error:
            _log.warning("a wake could not be given back: %s", error)

    # --- looking after -------------------------------------------------------------------------

    def _changed(self, key: str, subscription: Subscription, recheck: Iterable[str] = ()) -> None:
        for path in recheck:
            self._recheck.setdefault(key, set()).add(path)
            self._news.set()
        # Several look at a subscription at once, and may come here in any order: what an older
        # look says never puts off what is due. A look too many finds that no pending work.
        due = rules.next_due(subscription)
        if due is not None and due < self._due.get(key, math.inf):
            self._due[key] = due
            self._news.set()

    async def _look_after(self) -> None:
        next_look = next_scan = 0.0
        while True:
            now = time.time()
            self._news.clear()
            try:
                if now >= next_look:
                    next_look = now + _LOOK_SECONDS
                    scan, next_scan = now >= next_scan, max(next_scan, now)
                    if scan:
                        next_scan = now + _SCAN_SECONDS
                    await self._look(scan)
                while self._recheck:
                    key, paths = self._recheck.popitem()
                    for path in paths:
                        await self.tend(key, path, appended=False)
                for key in [key for key, due in self._due.items() if due <= now]:
                    del self._due[key]
                    try:
                        await self.tend(key)
                    except TokenwireError:
                        self._due.setdefault(key, now + _AGAIN_SECONDS)
                        raise
            except TokenwireError as error:
                _log.warning("looking after subscriptions: %s", error)
            except Exception:
                _log.exception("looking after subscriptions failed; it goes on")
            until = min([next_look, *self._due.values()]) if not self._recheck else 0.0
            try:
                async with asyncio.timeout(max(0.01, until - time.time())):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _look(self, scan: bool) -> None:
        """What other processes left, or this one before it was started."""
        for key, subscription in (await self._store.all()).items():
            if scan:
                await self.scan(key)
            else:
                self._changed(key, subscription)
