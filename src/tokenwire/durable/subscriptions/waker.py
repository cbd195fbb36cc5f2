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
from tokenwire.durable.store import KeptStreams
from tokenwire.durable.subscriptions import rules
from tokenwire.durable.subscriptions.config import Problem
from tokenwire.durable.subscriptions.rules import Seen, Subscription
from tokenwire.durable.subscriptions.store import SubscriptionStore, key_of
from tokenwire.durable.subscriptions.webhook import CALL_SECONDS, Signer, Targets, post
from tokenwire.errors import ProviderError, TokenwireError

__all__ = ["Waker"]

#: Webhooks that one process calls at once.
_MOST_CALLS = 32
#: Telling a wake takes at most this long; then somebody else may.
_TELLING_SECONDS = CALL_SECONDS + 10.0
#: Between two looks for what other processes left, and at all streams of all subscriptions.
_LOOK_SECONDS, _SCAN_SECONDS = 30.0, 600.0
#: Until what failed is tried again, and how long a stop waits for calls under way.
_AGAIN_SECONDS, _STOP_SECONDS = 1.0, 2.0

_log = logging.getLogger("tokenwire.server")


class Waker:
    """`KeptStreams.watcher`. ``signer`` is there when webhooks may be called."""

    def __init__(
        self, kept: KeptStreams, store: SubscriptionStore, targets: Targets, signer: Signer | None
    ) -> None:
        self._kept, self._store, self._targets, self._signer = kept, store, targets, signer
        self._due: dict[str, float] = {}
        self._again: dict[str, set[str]] = {}
        self._news = asyncio.Event()
        self._telling: dict[asyncio.Task[None], Subscription] = {}
        self._calls = asyncio.Semaphore(_MOST_CALLS)
        self._main: asyncio.Task[None] | None = None
        store.changed = self._changed

    def start(self) -> None:
        """Begin to look after what is there."""
        self._kept.watcher = self
        self._main = asyncio.create_task(self._look_after())

    async def stop(self) -> None:
        """Let calls under way finish, or leave them to whoever comes next."""
        self._kept.watcher = None
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        if self._telling:
            await asyncio.wait(list(self._telling), timeout=_STOP_SECONDS)
        left = dict(self._telling)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(list(left))
        for known in left.values():
            await self._give_back(known)

    async def grown(self, owner: str, path: str) -> None:
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

        def wanted(known: Subscription) -> list[str]:
            due = rules.next_due(known)
            looks = [path] if path is not None else []
            if known.wake is None or (due is not None and due <= now):
                looks += known.pending
            return looks

        def act(known: Subscription, seen: dict[str, Seen | None]) -> bool:
            rules.expire(known, now)
            if path is not None:
                new = path not in known.links and rules.follows(known, path)
                if new and not rules.link(known, path, None, explicit=False):
                    _log.warning("subscription %s follows too many streams", known.id)
                rules.mark(known, path, seen.get(path))
                if appended:
                    rules.wake_up(known)
            rules.begin_wake(known, seen, now)
            return rules.begin_telling(known, seen, now, _TELLING_SECONDS)

        try:
            known, telling = await self._store.change(key, act, wanted)
        except Problem:
            return  # deleted meanwhile
        if telling:
            task = asyncio.create_task(self._tell(key, known))
            self._telling[task] = known
            task.add_done_callback(lambda done: self._telling.pop(done, None))

    async def scan(self, key: str) -> None:
        """Look at every stream of a subscription: those that it should follow and does not (they
        were made after it, so from their beginning), and what is behind its cursors."""
        known = await self._store.get(key)
        if known is None:
            return
        paths = [entry.path for entry in await self._kept.entries(known.owner)]
        new = [p for p in paths if p not in known.links and rules.follows(known, p)]
        seen = await self._store.seen(known.owner, known.links)
        for path in [*new, *(p for p in known.links if rules.differs(known, p, seen[p]))]:
            await self.tend(key, path)
        await self.tend(key)

    # --- telling -------------------------------------------------------------------------------

    async def _tell(self, key: str, known: Subscription) -> None:
        """Tell a wake, and write down what came of it."""
        wake = known.wake
        if wake is None:
            return
        done, error = False, None
        try:
            if known.config.type == "webhook":
                done = await self._call(known)
            else:
                await self._announce(known)
        except (ProviderError, Refusal) as failure:
            error = failure.message
        except TokenwireError as failure:
            _log.warning("a wake could not be told: %s", failure)
            error = "the server could not tell the wake"

        def act(now_known: Subscription, seen: dict[str, Seen | None]) -> None:
            now = time.time()
            if error is not None:
                rules.attempt_failed(now_known, wake.id, error, now)
                return
            rules.told(now_known, wake.id, now)
            if done:
                rules.ack_snapshot(now_known, wake.id, seen)
            rules.begin_wake(now_known, seen, now)

        def wanted(now_known: Subscription) -> list[str]:
            snapshot = now_known.wake.snapshot if now_known.wake is not None else {}
            return [*now_known.pending, *snapshot]

        try:
            await self._store.change(key, act, wanted)
        except Problem:
            pass  # deleted meanwhile
        except TokenwireError as failure:
            _log.warning("what came of a wake could not be written down: %s", failure)
            self._due[key] = time.time() + _TELLING_SECONDS

    async def _call(self, known: Subscription) -> bool:
        """Call the webhook; whether it says that it is done."""
        wake, url, signer = known.wake, known.config.url, self._signer
        if wake is None or url is None or signer is None:
            raise ProviderError("this server calls no webhooks any more")
        body = msgspec.json.encode(
            {
                "subscription_id": known.id,
                "wake_id": wake.id,
                "generation": known.generation,
                "streams": rules.stream_infos(known),
                "callback_url": f"{known.url}/callback",
                "callback_token": self._store.token(known),
            }
        )
        async with self._calls:
            headers = {"webhook-signature": signer.sign(body, time.time())}
            status, answer = await post(self._targets, url, body, headers)
        if not 200 <= status < 300:
            raise ProviderError(f"the webhook answered {status}")
        try:
            said = msgspec.json.decode(answer or b"null")
        except msgspec.DecodeError:
            return False
        return isinstance(said, dict) and said.get("done") is True

    async def _announce(self, known: Subscription) -> None:
        """Write the wake into the wake stream."""
        wake, path = known.wake, known.config.wake_stream
        if wake is None or path is None:
            return
        now = time.time()
        event = {
            "type": "wake",
            "subscription_id": known.id,
            "stream": next(iter(wake.snapshot), ""),
            "generation": known.generation,
            "ts": int(now * 1000),
        }
        wanted = Append(content_type="application/json", body=msgspec.json.encode(event))
        try:
            await self._kept.append(known.owner, path, wanted, now)
        except Refusal as refusal:
            raise ProviderError(f"the wake stream: {refusal.message}") from refusal

    async def _give_back(self, known: Subscription) -> None:
        """A wake that this process cannot finish telling: the next may begin at once."""
        wake = known.wake

        def act(now_known: Subscription, _: dict[str, Seen | None]) -> None:
            if wake is not None and now_known.wake is not None and now_known.wake.id == wake.id:
                now_known.wake.telling_until = 0.0

        try:
            await self._store.change(key_of(known.owner, known.id), act)
        except TokenwireError as error:
            _log.warning("a wake could not be given back: %s", error)

    # --- looking after -------------------------------------------------------------------------

    def _changed(self, key: str, known: Subscription, again: Iterable[str] = ()) -> None:
        for path in again:
            self._again.setdefault(key, set()).add(path)
            self._news.set()
        # Several look at a subscription at once, and may come here in any order: what an older
        # look says never puts off what is due. A look too many finds that there is nothing to do.
        due = rules.next_due(known)
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
                while self._again:
                    key, paths = self._again.popitem()
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
            until = min([next_look, *self._due.values()]) if not self._again else 0.0
            try:
                async with asyncio.timeout(max(0.01, until - time.time())):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _look(self, scan: bool) -> None:
        """What other processes left, or this one before it was started."""
        for key, known in (await self._store.all()).items():
            if scan:
                await self.scan(key)
            else:
                self._changed(key, known)
