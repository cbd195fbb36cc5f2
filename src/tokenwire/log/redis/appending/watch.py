"""The fence, held by a connection of its own: pushes over it happen while the fence is what it was,
or not at all.

Always true: of one transaction all pushes happen or none; none happens once the fence is another
one, or the server's clock has passed `Watch.lapse`. Redis holds both against what the connection
saw last (`WATCH`), in the step that pushes.
"""

from __future__ import annotations

from typing import Any

from tokenwire.log.redis.connection import Connection, ReplyError, encode

__all__ = ["EXEC", "HELD_SECONDS", "MULTI", "Watch"]

MULTI, EXEC = encode("MULTI"), encode("EXEC")
_UNWATCH, _TIME = encode("UNWATCH"), encode("TIME")

#: Milliseconds that the key lives whose end ends what is watched; seconds after which it is set
#: anew; and seconds after which nothing is sent that counts on it.
HELD_MS = 1500
_AGAIN_SECONDS = 0.5
HELD_SECONDS = 0.9


class Watch:
    """``fence``: the key that changes when a log is taken from its owner; ``word``: one that no
    other process has."""

    def __init__(self, fence: str, word: str) -> None:
        #: The key whose end ends what is watched.
        self.key = f"{fence}:{word}"
        self._set = encode("SET", self.key, "1", "PX", HELD_MS)
        self._look = encode("WATCH", fence, self.key) + encode("MGET", fence, self.key) + _TIME
        self._wire: Connection | None = None
        self._is_set = self._is_held = False
        self._set_at = self._held_at = 0.0
        #: The server's time, in milliseconds, from which on no push happens.
        self.lapse = 0

    def is_held(self, wire: Connection, now: float) -> bool:
        """Whether pushes over ``wire`` may be sent at ``now``, in monotonic seconds."""
        return self._is_held and wire is self._wire and now - self._held_at < HELD_SECONDS

    def commands(self, wire: Connection, now: float) -> tuple[bytes, int]:
        """What watches for the next transaction, and the number of its answers. They go to `see`,
        before ``commands`` is called again."""
        self._is_held = False
        self._is_set = wire is not self._wire or now - self._set_at >= _AGAIN_SECONDS
        self._wire, self._held_at = wire, now
        if not self._is_set:
            return _UNWATCH + self._look, 4
        self._set_at = now
        return _UNWATCH + self._set + self._look, 5

    def see(self, answers: list[Any]) -> bytes:
        """Take the answers to the last `commands`; the fence as it is, b"" where that is not
        known."""
        is_refused = any(isinstance(answer, ReplyError) for answer in answers)
        if is_refused or not all(isinstance(answer, list) for answer in answers[-2:]):
            self._set_at = 0.0  # in a transaction that did not end, each is "QUEUED"
            return b""
        (fence, held), (seconds, microseconds) = answers[-2:]
        if self._is_set:
            self.lapse = int(seconds) * 1000 + int(microseconds) // 1000 + 1 + HELD_MS
        self._is_held = fence is not None and held is not None
        if not self._is_held:
            self._set_at = 0.0
        return fence or b""
