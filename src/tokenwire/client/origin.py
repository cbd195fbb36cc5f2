"""One server's address and credentials, and plain requests to it.

Always true: credentials go to this origin only (a redirect is an error, never followed); what
becomes part of a URL is checked before; a response over its bound is rejected.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from tokenwire.client.reconnect import retry_after
from tokenwire.errors import (
    AccessError,
    BusyError,
    ConfigError,
    ConflictError,
    CursorError,
    ForbiddenError,
    GoneError,
    InputError,
    KeyReusedError,
    LimitError,
    NotAuthenticatedError,
    NotFoundError,
    ProtocolError,
    ProviderError,
    ServerError,
    ServerProtocolError,
    ServerUnavailableError,
    StoreFullError,
    StoreUnavailableError,
    TokenwireError,
    UnknownModelError,
)
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.http.response import Response
from tokenwire.relay.conversation.errors import HistoryConflictError, ThreadBusyError

__all__ = [
    "ApiKey",
    "Origin",
    "is_final",
    "part_of_path",
    "read_some",
    "reason_of",
    "response_error",
    "run_of_path",
    "wait_of",
]

_RUN = re.compile(r"[A-Za-z0-9_-]{16,64}")
_CALL = re.compile(r"[^/\\?#\s\x00-\x1f\x7f]{1,200}")
_KEY = re.compile(r"[\x21-\x7e]{1,4000}")
#: What headers and cookies of the caller may consist of.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,8000}[\x21-\x7e])?")
_COOKIE = re.compile(r"[\x21-\x3a\x3c-\x7e]{0,4000}")
#: Headers that the client writes itself, or that say how a message is sent.
_OWN_HEADERS = {
    *("accept", "accept-encoding", "connection", "content-length", "content-type", "host"),
    *("idempotency-key", "keep-alive", "last-event-id", "te", "trailer", "transfer-encoding"),
    *("expect", "upgrade"),
}
#: Bytes of a whole response (a snapshot holds the run's whole text) and of an error's.
_MOST_RESPONSE, _MOST_ERROR = 64 << 20, 64 << 10
_MOST_TEXT = 500

_BY_CODE: dict[str, type[TokenwireError]] = {
    kind.code: kind
    for kind in (
        AccessError,
        BusyError,
        ConflictError,
        CursorError,
        ForbiddenError,
        GoneError,
        HistoryConflictError,
        InputError,
        KeyReusedError,
        LimitError,
        NotAuthenticatedError,
        NotFoundError,
        StoreFullError,
        StoreUnavailableError,
        ThreadBusyError,
        UnknownModelError,
    )
}
_BY_STATUS: dict[int, type[TokenwireError]] = {
    401: NotAuthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    413: LimitError,
    429: BusyError,
}
#: The retryable ones of 400 to 499.
_RETRYABLE = (408, 425, 429)


#: A key or token, or a function (also a coroutine function) that returns one: it is called before
#: the first request, and again when the server refuses what it returned.
ApiKey = str | Callable[[], str | Awaitable[str]] | None


class Origin:
    """The server's address and the caller's credentials."""

    def __init__(
        self,
        url: str,
        api_key: ApiKey = None,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"a server's URL begins with http:// or https://, not {url[:80]!r}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError("a server's URL has no user, query or fragment; keys go into api_key")
        if re.search(r"[\s\x00-\x1f\x7f]", url):
            raise ConfigError("a server's URL has no spaces or control characters")
        self.url = url.rstrip("/")
        self._key = None if callable(api_key) or api_key is None else _checked_key(api_key)
        self._supplier = api_key if callable(api_key) else None
        self._headers = _checked_headers(headers or {}, cookies or {})
        if api_key is not None and "authorization" in self._headers:
            raise ConfigError("pass either api_key or the header 'authorization'")
        self._asking = asyncio.Lock()
        self._pool = Pool()

    @property
    def socket_url(self) -> str:
        """The address of ``/ws``."""
        return "ws" + self.url.removeprefix("http") + "/ws"

    async def credentials(self) -> dict[str, str]:
        """The headers of a request that say who sends it. Raises `ConfigError` for a key that is
        none."""
        if self._key is None and self._supplier is not None:
            await self.renew({})
        key = {"authorization": f"Bearer {self._key}"} if self._key else {}
        return {**self._headers, **key}

    async def renew(self, refused: dict[str, str]) -> bool:
        """The server refused the credentials ``refused``: get others from the function; whether
        there are any. Of many requests that were refused at once, one calls it."""
        if self._supplier is None:
            return False
        async with self._asking:
            if self._key is None or refused.get("authorization") == f"Bearer {self._key}":
                key = self._supplier()
                self._key = _checked_key(await key if inspect.isawaitable(key) else key)
        return refused.get("authorization") != f"Bearer {self._key}"

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    async def open(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        connect: float = 10.0,
        timeout: float = 30.0,
    ) -> Response:
        """Send a request and read the response's head, whatever its status. A key that was refused
        is renewed once, where the caller gave a function: then nothing has happened yet."""
        request_headers = {"accept": "application/json", "accept-encoding": "identity"}
        key = await self.credentials()
        request_headers |= {**key, **(headers or {})}
        response = await self._send(method, path, request_headers, body, connect, timeout)
        if response.status != 401 or not await self.renew(key):
            return response
        await response.aclose()
        request_headers |= await self.credentials()
        return await self._send(method, path, request_headers, body, connect, timeout)

    async def _send(
        self,
        method: str,
        path: str,
        request_headers: dict[str, str],
        body: bytes,
        connect: float,
        timeout: float,
    ) -> Response:
        try:
            async with asyncio.timeout(timeout):
                return await self._pool.request(
                    method, self.url + path, request_headers, body, connect_timeout=connect
                )
        except TimeoutError as error:
            raise ServerUnavailableError(f"{self.url} does not respond") from error
        except ProviderError as error:
            raise server_error(error) from error
        except OSError as error:
            raise ServerUnavailableError(
                f"cannot connect to {self.url}: {reason_of(error)}"
            ) from error

    async def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        timeout: float = 30.0,
    ) -> Any:
        """One request and its JSON response, if any. Raises the error that the server reports."""
        data, request_headers = b"", dict(headers or {})
        if body is not None:
            data = msgspec.json.encode(body)
            request_headers["content-type"] = "application/json"
        response = await self.open(method, path, request_headers, data, timeout=timeout)
        try:
            async with asyncio.timeout(timeout):
                if response.status >= 300:
                    raise await response_error(response)
                content = await read_all(response, _MOST_RESPONSE)
        except TimeoutError as error:
            raise ServerUnavailableError(
                f"{self.url} stopped in the middle of a response"
            ) from error
        finally:
            await response.aclose()
        if not content:
            return None
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise ServerProtocolError(
                f"{self.url} did not respond as a tokenwire server"
            ) from error


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ConfigError("an API key is 1 to 4000 printable ASCII characters without spaces")
    return key


def _checked_headers(headers: Mapping[str, str], cookies: Mapping[str, str]) -> dict[str, str]:
    """The headers of each request. No error contains a value, which may be a secret."""
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError("a header's name is 1 to 200 letters, digits, '-' or the like")
        lower = name.lower()
        if lower in _OWN_HEADERS or lower.startswith("sec-websocket-"):
            raise ConfigError(f"the header '{name}' is the client's own; leave it out")
        if lower in checked:
            raise ConfigError(f"the header '{name}' is given twice")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ConfigError(
                f"the value of the header '{name}' must be printable ASCII without spaces around it"
            )
        checked[lower] = value
    for name, value in cookies.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError("a cookie's name is 1 to 200 letters, digits, '-' or the like")
        if not isinstance(value, str) or not _COOKIE.fullmatch(value):
            raise ConfigError(
                f"the value of the cookie '{name}' must be printable ASCII without spaces and ';'"
            )
    if cookies and "cookie" in checked:
        raise ConfigError("pass either cookies or the header 'cookie'")
    if cookies:
        checked["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return checked


async def read_all(response: Response, most: int) -> bytes:
    """The whole body. Raises `ServerProtocolError` when it is larger than ``most``."""
    pieces: list[bytes] = []
    size = 0
    while piece := await read_some(response):
        size += len(piece)
        if size > most:
            raise ServerProtocolError(f"the server's response is larger than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def read_some(response: Response) -> bytes:
    """The next bytes; empty at the end. Raises `ServerError` for a lost connection."""
    try:
        return await response.read()
    except ProviderError as error:
        raise server_error(error) from error


def server_error(error: ProviderError) -> ServerError:
    """The client's error for one of the HTTP connection, which reports those of providers."""
    kind = ServerProtocolError if isinstance(error, ProtocolError) else ServerUnavailableError
    return kind(error.message)


async def response_error(response: Response) -> TokenwireError:
    """The error that a response other than 2xx reports."""
    status = response.status
    wait = retry_after(response.headers.get("retry-after"), time.time())
    try:
        body = msgspec.json.decode(await read_all(response, _MOST_ERROR))
    except (msgspec.DecodeError, ServerProtocolError, ServerUnavailableError):
        body = None  # a proxy's page: the status is enough
    error = body.get("error") if isinstance(body, dict) else None
    return error_of_body(error if isinstance(error, dict) else {}, status, wait)


def error_of_body(error: dict[str, Any], status: int, wait: float | None) -> TokenwireError:
    """The server's ``{"code", "message", ...}`` as an error of `tokenwire.errors`."""
    code = error.get("code")
    message = str(error.get("message") or f"the server responded {status}")[:_MOST_TEXT]
    details = {k: v for k, v in error.items() if k not in ("code", "message")}
    details["status"] = status
    if wait is not None:
        details["retry_after"] = wait
    if 300 <= status < 400:
        return ServerProtocolError(
            "the server redirects; redirects are not followed", status=status
        )
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    kind = kind or _BY_STATUS.get(status)
    if kind is None:
        if 400 <= status < 500 and status not in _RETRYABLE:
            kind = InputError
        else:
            kind = ServerUnavailableError
    return kind(message, **details)


def reason_of(error: OSError) -> str:
    """The system's message for a failed connection; asyncio wraps it in a sentence of its own."""
    code = error.errno or 0
    return os.strerror(code).lower() if code > 0 else error.strerror or type(error).__name__


def is_final(error: TokenwireError) -> bool:
    """Whether a retry cannot help."""
    if isinstance(
        error, AccessError | NotFoundError | GoneError | CursorError | ServerProtocolError
    ):
        return True
    status = error.details.get("status") or 0
    return 300 <= status < 500 and status not in _RETRYABLE


def wait_of(error: TokenwireError) -> float | None:
    """The seconds of the server's ``Retry-After``."""
    seconds = error.details.get("retry_after")
    return float(seconds) if isinstance(seconds, int | float) else None


def run_of_path(run: str) -> str:
    """``run``, checked to be safe in a URL. Raises `InputError` if it is not a run id."""
    if not _RUN.fullmatch(run):
        raise InputError(f"{run[:80]!r} is not a run id", field="run")
    return run


def part_of_path(value: str) -> str:
    """An approval's or a call's id as part of a URL."""
    if not _CALL.fullmatch(value) or value in (".", ".."):
        raise InputError(f"{value[:80]!r} is not the id of a call or an approval")
    return quote(value, safe="")
