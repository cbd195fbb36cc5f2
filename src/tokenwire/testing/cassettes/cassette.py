"""A cassette: what a provider sent, kept in a file, and played to whoever sends the same request.

Always true: without a mode that records, nothing leaves this machine; equal requests get their
recordings in order; the file is written once, at the end, and never with what looks like a secret.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from tokenwire.errors import ConfigError
from tokenwire.testing.cassettes.environment import environment
from tokenwire.testing.cassettes.recordings import Recordings
from tokenwire.testing.cassettes.server import Server, path_of

__all__ = ["Cassette", "Mode"]

Mode = Literal["none", "new", "all"]


class Cassette:
    """Plays, and records, the HTTP exchanges with models: ``with Cassette("chat.json") as c``.

    Clients reach it at `url`, in place of the provider's base URL; it listens on a loopback port.

    ``path``: the file. ``mode``: ``none`` only plays; ``new`` records requests that are not in the
    file; ``all`` records all of them anew, and replaces the file. ``speed``: a factor of the
    recorded one (1: as recorded, 2: twice as fast); default infinite, without pauses.
    ``faults``: a fault plan of the simulator for every response, or a list with one for each.
    ``repeats``: the last recording of a request answers all further equal ones. ``ignore``: paths
    into JSON bodies that do not matter (``messages.*.name``). ``redact``: texts and patterns to
    redact beside keys, cookies and ids of organizations; of a pattern with a group named ``s``,
    only that. ``allow``: texts that look like secrets and are none. ``headers``: further response
    headers to record. ``drain``: seconds for which closing waits for responses that are being
    recorded.

    Raises `ConfigError` for a file that is no cassette, and for settings that mean nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "none",
        speed: float = math.inf,
        faults: str | Sequence[str] = "",
        repeats: bool = False,
        ignore: Iterable[str] = (),
        redact: Iterable[str | re.Pattern[str]] = (),
        allow: Iterable[str] = (),
        headers: Iterable[str] = (),
        drain: float = 10.0,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"unknown mode {mode!r}; choose one of {', '.join(get_args(Mode))}")
        self.path, self.mode = Path(path), mode
        self._recordings = Recordings(
            self.path,
            mode,
            repeats=repeats,
            ignore=ignore,
            redact=redact,
            allow=allow,
            headers=headers,
        )
        self._server = Server(self._recordings, drain=drain)
        self._is_open = False
        self.replay(speed=speed, faults=faults)

    def start(self) -> Cassette:
        """Listen."""
        self._server.start()
        self._is_open = True
        return self

    def close(self) -> None:
        """Stop, and write what was recorded. Raises `AssertionError` where it holds something that
        looks like a secret; the file is then left as it was."""
        if not self._is_open:
            return
        self._is_open = False
        self._server.close()
        self._recordings.write()

    def check(self) -> None:
        """Raise `AssertionError` if a request came to nothing."""
        if text := self._failures():
            raise AssertionError(text)

    def __enter__(self) -> Cassette:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except AssertionError as leak:
            if error is None:
                raise
            error.add_note(str(leak))
        if error is None:
            self.check()
        elif text := self._failures():
            error.add_note(text)

    def url(self, base_url: str) -> str:
        """The base URL to give to a client in place of a provider's ``base_url``."""
        if not self._is_open:
            raise RuntimeError("the cassette is not open; use 'with' or start()")
        try:
            return self._server.url + path_of(base_url)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def env(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment variables that lead the clients of providers to this cassette: their base
        URLs, and for what is in the file a key, where none is set. For the official SDKs, for
        tokenwire, and for processes. ``env``: the environment so far (this process's)."""
        hosts = set() if self.mode != "none" else {_host(one.url) for one in self._recordings.saved}
        return environment(self.url, hosts, os.environ if env is None else env)

    def replay(
        self, *, speed: float | None = None, faults: str | Sequence[str] | None = None
    ) -> None:
        """Play from now on with another ``speed`` or other ``faults``."""
        if speed is not None:
            if not speed > 0:
                raise ConfigError("the speed of a cassette must be above 0")
            self._recordings.speed = float(speed)
        if faults is not None:
            self._recordings.plan(faults)

    @property
    def unused(self) -> list[str]:
        """The recorded requests that nobody has sent so far: method and address."""
        return [f"{one.method} {one.url}" for one in self._recordings.unused]

    def _failures(self) -> str:
        return "\n".join(dict.fromkeys(self._recordings.failures))


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
