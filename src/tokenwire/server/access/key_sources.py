"""Where the keys of a token issuer come from: a file, or the issuer itself over HTTP.

Always true: nobody is let in without keys; keys that were fetched are used while the issuer is
down, for an hour at most; a token of an unknown key causes one fetch, and at most one in ten
seconds however many such tokens come; a fetch is bounded in time and size, and follows no redirect.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import jiter

from tokenwire.errors import ConfigError, ProviderError, TokenwireError
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import HttpClient
from tokenwire.server.access.file_look import FileLook
from tokenwire.server.access.keys import Key, keys_of, matching
from tokenwire.server.settings import is_loopback

__all__ = ["FetchedKeys", "FileKeys", "IssuerUnavailableError", "KeySource", "check_address"]

#: Seconds for which fetched keys are new; after which they are no longer used; of one fetch;
#: between two fetches for unknown keys, or after one that failed.
_FRESH, _STALE, _FETCH, _PAUSE = 600.0, 3600.0, 5.0, 10.0
_MOST_BYTES = 512 << 10
_DISCOVERY = "/.well-known/openid-configuration"
_log = logging.getLogger("tokenwire.server")


class IssuerUnavailableError(TokenwireError):
    """The keys of the token issuer cannot be had now, so no token can be checked."""

    code = "issuer_unavailable"
    retryable = True
    http_status = 503

    def __init__(self) -> None:
        super().__init__(
            "the token cannot be checked: its issuer does not respond; try again", retry_after=5
        )


class KeySource(Protocol):
    """The keys of one issuer."""

    async def find(self, id: str | None, algorithm: str) -> list[Key]:  # noqa: A002
        """The keys of this ``kid`` and ``alg``. Raises `IssuerUnavailableError`."""
        ...

    async def has(self, thumbprint: bytes) -> bool:
        """Whether the issuer still has this key. Raises `IssuerUnavailableError`."""
        ...

    def start(self) -> None:
        """Have the keys soon; the log tells when they cannot be had."""
        ...

    async def aclose(self) -> None:
        """Stop what is under way."""
        ...


class FileKeys:
    """Keys of a file, which is read again when it changes. Raises `ConfigError` at once when it
    holds none."""

    def __init__(self, path: str | Path, *, look: Callable[[Path], FileLook] = FileLook) -> None:
        self._path = Path(path)
        self._look = look(self._path)  # before it is read: a change in between is seen
        self._keys = self._read()

    async def find(self, id: str | None, algorithm: str) -> list[Key]:  # noqa: A002
        """As `KeySource.find`."""
        self._reread()
        return matching(self._keys, id, algorithm)

    async def has(self, thumbprint: bytes) -> bool:
        """As `KeySource.has`."""
        self._reread()
        return any(key.thumbprint == thumbprint for key in self._keys)

    def start(self) -> None:
        """They have been read."""

    async def aclose(self) -> None:
        """Nothing is under way."""

    def _reread(self) -> None:
        """Read a file that changed. One that cannot be read changes nothing."""
        if not self._look.is_due():
            return
        try:
            self._keys = self._read()
        except ConfigError as error:
            _log.error("%s; the keys that it held before are used", error)

    def _read(self) -> list[Key]:
        try:
            return keys_of(self._path.read_bytes()[:_MOST_BYTES])
        except OSError as error:
            name = self._path.name
            raise ConfigError(f"cannot read the key set file {name}: {error.strerror}") from error
        except ConfigError as error:
            raise ConfigError(
                f"the key set file {self._path.name} is not usable: {error}"
            ) from None


class FetchedKeys:
    """Keys of ``url``, or of the address that the document of ``issuer`` names. ``clock``: seconds
    that never go back."""

    def __init__(
        self,
        issuer: str,
        url: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        stale: float = _STALE,
        pause: float = _PAUSE,
    ) -> None:
        self._issuer, self._url = issuer, url
        self._clock, self._stale, self._pause = clock, stale, pause
        self._keys: list[Key] = []
        self._fetched_at = self._tried_at = float("-inf")
        self._is_failing = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, id: str | None, algorithm: str) -> list[Key]:  # noqa: A002
        """As `KeySource.find`."""
        keys = matching(await self._current(), id, algorithm)
        if keys:
            return keys
        if self._may_try or self._is_fetching:
            await self._fetch()
        if self._is_failing:  # it may be a new key's
            raise IssuerUnavailableError
        return matching(self._keys, id, algorithm)

    async def has(self, thumbprint: bytes) -> bool:
        """As `KeySource.has`."""
        return any(key.thumbprint == thumbprint for key in await self._current())

    def start(self) -> None:
        """Fetch them in the background."""
        self._begin()

    async def aclose(self) -> None:
        """Stop a fetch that is under way."""
        task = self._fetching
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _current(self) -> list[Key]:
        """What is known, fetched when it is too old. Raises `IssuerUnavailableError`."""
        age = self._clock() - self._fetched_at
        if age >= self._stale:
            if self._may_try or self._is_fetching:
                await self._fetch()
            if self._clock() - self._fetched_at >= self._stale:
                raise IssuerUnavailableError
        elif age >= _FRESH and self._may_try:
            self._begin()
        return self._keys

    @property
    def _may_try(self) -> bool:
        # Without any keys everybody waits for the first ones.
        pause = self._pause if self._keys else min(self._pause, 1.0)
        return self._clock() - self._tried_at >= pause

    @property
    def _is_fetching(self) -> bool:
        task = self._fetching
        if task is None or task.done():
            return False
        return task.get_loop() is asyncio.get_running_loop()

    async def _fetch(self) -> None:
        """Have the keys anew, together with all others that wait for them."""
        await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[None]:
        task = self._fetching
        if task is None or not self._is_fetching:
            self._tried_at = self._clock()
            task = self._fetching = asyncio.get_running_loop().create_task(self._fetched())
        return task

    async def _fetched(self) -> None:
        try:
            async with asyncio.timeout(_FETCH):
                keys = await self._download()
        except Exception as error:  # whatever an issuer sends, requests are answered
            if not self._is_failing:
                _log.warning("the keys of %s cannot be fetched: %s; %s", *self._failure(error))
            self._is_failing = True
        else:
            if self._is_failing or not self._keys:
                _log.info("the keys of %s were fetched: %d", self._issuer, len(keys))
            self._keys, self._fetched_at, self._is_failing = keys, self._clock(), False
        finally:
            self._tried_at = self._clock()

    def _failure(self, error: Exception) -> tuple[str, str, str]:
        reason = str(error) if isinstance(error, TokenwireError) else type(error).__name__
        if isinstance(error, TimeoutError):
            reason = "no answer in time"
        then = (
            "those of before are used for up to an hour"
            if self._keys
            else "requests with a token are answered with 503 until they can"
        )
        return self._issuer, reason[:300], then

    async def _download(self) -> list[Key]:
        client = HttpClient()
        try:
            url = self._url or await self._discovered(client)
            data = await _body(client, url)
            try:
                return keys_of(data)
            except ConfigError as error:
                raise ConfigError(f"the key set at {_place(url)} is not usable: {error}") from None
        finally:
            await client.aclose()

    async def _discovered(self, client: HttpClient) -> str:
        """The address of the keys, from the issuer's document."""
        place = self._issuer.rstrip("/") + _DISCOVERY
        try:
            document = jiter.from_json(await _body(client, place), catch_duplicate_keys=True)
        except ValueError:
            raise ConfigError(f"{_place(place)} is not valid JSON") from None
        named = document if isinstance(document, dict) else {}
        if named.get("issuer") != self._issuer:
            raise ConfigError(
                f"{_place(place)} is of another issuer; --jwt-issuer must be exactly its 'issuer'"
            )
        url = named.get("jwks_uri")
        if not isinstance(url, str):
            raise ConfigError(f"{_place(place)} names no jwks_uri")
        check_address(url, f"the jwks_uri of {_place(place)}")
        if self._issuer.startswith("https:") and not url.startswith("https:"):
            raise ConfigError(f"the jwks_uri of {_place(place)} must be https")
        return url


def check_address(url: str, what: str) -> None:
    """Raise `ConfigError` unless keys may come from ``url``: by https, or from this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or not host or parts.scheme not in ("http", "https") or parts.fragment:
        raise ConfigError(f"{what} must be an address such as https://login.example.com")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{what} must not hold a user or password")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(f"{what} must be https: whoever can change an answer can let people in")


def _place(url: str) -> str:
    """An address without its query, for logs."""
    return url.partition("?")[0][:200]


async def _body(client: HttpClient, url: str) -> bytes:
    """The body of a 200. Raises `ConfigError` and `ProviderError`."""
    call = Call(method="GET", url=url, headers={"accept": "application/json"}, body=b"")
    stream = await client.open(call, connect_timeout=_FETCH)
    try:
        if stream.status != 200:
            raise ConfigError(f"{_place(url)} answered with status {stream.status}")
        data = b""
        while piece := await stream.read():
            data += piece
            if len(data) > _MOST_BYTES:
                raise ConfigError(f"{_place(url)} sent more than {_MOST_BYTES >> 10} KiB")
        return data
    except ProviderError as error:
        raise ConfigError(f"{_place(url)} broke off: {error}") from error
    finally:
        await stream.aclose()
