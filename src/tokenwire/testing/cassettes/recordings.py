"""What a cassette holds: finds the recording of a request, and takes new ones.

Always true: equal requests get their recordings in order, each once; what is recorded is redacted
before it is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from tokenwire.errors import ConfigError
from tokenwire.simulator.faults import FaultPlan
from tokenwire.testing.cassettes.file import Exchange, read_cassette, write_cassette
from tokenwire.testing.cassettes.matching import Meaning, differences, meaning
from tokenwire.testing.cassettes.playing import keeps_all
from tokenwire.testing.cassettes.redaction import (
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    Redactor,
    credentials_of,
    kept_headers,
)

__all__ = ["Playing", "Recordings"]

#: Differences shown of the nearest recording.
_SHOWN = 8


class Playing(msgspec.Struct):
    """A recorded exchange that is to be played."""

    exchange: Exchange
    plan: FaultPlan
    speed: float


class Recordings:
    """The exchanges of the file ``path`` (none of them with ``mode`` ``all``), and those to come.
    The other arguments are those of `tokenwire.testing.Cassette`."""

    speed: float

    def __init__(
        self,
        path: Path,
        mode: str,
        *,
        repeats: bool,
        ignore: Iterable[str],
        redact: Iterable[str | re.Pattern[str]],
        allow: Iterable[str],
        headers: Iterable[str],
    ) -> None:
        self._path, self._mode = path, mode
        self._repeats, self._ignore = repeats, tuple(ignore)
        self._redactor = Redactor(tuple(redact), allow=allow, env=os.environ)
        self._headers = {*RESPONSE_HEADERS, *(name.lower() for name in headers)}
        #: The exchanges of the file.
        self.saved = [] if mode == "all" or not path.exists() else read_cassette(path)
        self._meanings = [self._meaning(exchange) for exchange in self.saved]
        self._is_used = [False] * len(self.saved)
        #: What was to be recorded, in the order of the requests, and which of it has a response.
        self._pending: list[Exchange] = []
        self._with_response: set[int] = set()
        self._leaks: list[tuple[int, str]] = []
        self._faults: FaultPlan | None = None
        self._next_faults: list[FaultPlan] = []
        #: Texts about requests that came to nothing.
        self.failures: list[str] = []

    def plan(self, faults: str | Sequence[str]) -> None:
        """Play with these faults from now on. Raises `ConfigError` for a plan that is none."""
        plans = [faults] if isinstance(faults, str) else faults
        try:
            parsed = [FaultPlan.parse(plan) for plan in plans]
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self._faults = parsed[0] if isinstance(faults, str) else None
        self._next_faults = [] if isinstance(faults, str) else parsed

    @property
    def unused(self) -> list[Exchange]:
        """The exchanges of the file that were not played so far."""
        pairs = zip(self.saved, self._is_used, strict=True)
        return [exchange for exchange, is_used in pairs if not is_used]

    def write(self) -> None:
        """Write the file, if there is anything new. Raises `AssertionError` where it would hold
        what looks like a secret."""
        if self._leaks:
            lines = "".join(f"\n  {leak}" for _, leak in sorted(self._leaks))
            raise AssertionError(
                f"the cassette {self._path} was not written; it would hold:{lines}\n"
                "redact it (redact=[...]), or say that it is no secret (allow=[...])"
            )
        new = [exchange for exchange in self._pending if id(exchange) in self._with_response]
        if new:
            write_cassette(self._path, [*self.saved, *new])

    def find(self, request: Exchange, faults: str) -> Playing | None:
        """The recorded exchange for a request; None: record it. Raises `LookupError`."""
        target = self._meaning(request)
        equal = [at for at, one in enumerate(self._meanings) if not differences(target, one)]
        unused = [at for at in equal if not self._is_used[at]]
        if not unused and not (equal and self._repeats):
            if self._mode == "none":
                raise LookupError(self._unknown(request, target, len(equal)))
            self._pending.append(request)
            return None
        place = unused[0] if unused else equal[-1]
        try:
            plan = FaultPlan.parse(",".join(filter(None, (faults, self._plan().text))))
        except ValueError as error:
            raise LookupError(f"x-sim-faults: {error}") from error
        # A response that a fault takes away is played again to the client that comes back.
        self._is_used[place] = keeps_all(plan)
        return Playing(self.saved[place], plan, self.speed)

    def keep(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of a response that are recorded."""
        return kept_headers(headers, self._headers, limits=True)

    def recorded(self, exchange: Exchange, headers: Mapping[str, str], url: str) -> None:
        """An exchange is whole, or as whole as it will be."""
        exchange.headers = kept_headers(headers, REQUEST_HEADERS)
        leaks = self._redactor.redact(exchange, credentials_of(headers, url))
        number = next(at for at, one in enumerate(self._pending, 1) if one is exchange)
        place = f"request {number} ({exchange.method} {exchange.url})"
        self._leaks += [(number, f"{place}: {leak}") for leak in leaks]
        self._with_response.add(id(exchange))

    def failed(self, text: str) -> None:
        """A request came to nothing."""
        self.failures.append(text)

    # --- the rest ------------------------------------------------------------------------------

    def _meaning(self, exchange: Exchange) -> Meaning:
        return meaning(exchange.method, exchange.url, exchange.body, self._ignore)

    def _plan(self) -> FaultPlan:
        if self._faults is not None:
            return self._faults
        return self._next_faults.pop(0) if self._next_faults else FaultPlan()

    def _unknown(self, request: Exchange, target: Meaning, equal: int) -> str:
        """What was asked, what there is, and what to do."""
        lines = [f"{request.method} {target.address} is not in the cassette {self._path}"]
        if equal:
            times = "once" if equal == 1 else f"{equal} times"
            lines[0] = (
                f"{request.method} {target.address} is in the cassette {self._path} {times}, and "
                "was sent once more"
            )
            lines.append("  repeats=True answers further ones with the last recording")
        elif not self.saved:
            missing = "" if self._path.exists() else ": there is no such file"
            lines.append(f"  the cassette has no recordings{missing}")
        else:
            lines += self._nearest(target)
            lines.append("  a field that does not matter: ignore=['the.path']")
        lines.append("  to record it: pytest --tokenwire-record (or mode='new')")
        return "\n".join(lines)

    def _nearest(self, target: Meaning) -> list[str]:
        results = [differences(target, one) for one in self._meanings]

        def distance(at: int) -> tuple[int, int]:
            places = [one.path for one in results[at]]
            return sum(place in ("method", "address") for place in places), len(places)

        nearest = min(range(len(results)), key=distance)
        lines = [f"  the nearest of {len(results)} recordings is exchange {nearest + 1}:"]
        for one in results[nearest][:_SHOWN]:
            lines.append(f"    {one.path}: requested {one.requested}")
            lines.append(f"    {' ' * len(one.path)}  recorded  {one.recorded}")
        if len(results[nearest]) > _SHOWN:
            lines.append(f"    and {len(results[nearest]) - _SHOWN} differences more")
        return lines
