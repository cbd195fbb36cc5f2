"""One server's address and key, and plain requests to it.

Always true: the key goes to this origin and nowhere else (a redirect is an error, never followed);
what becomes part of a URL was checked before; an answer over its bound is not kept.
"""

from __future__ import annotations

import asyncio
import re
import time
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
    NetworkError,
    NotAuthenticatedError,
    NotFoundError,
    ProtocolError,
    StoreFullError,
    StoreUnavailableError,
    TokenwireError,
    UnknownModelError,
)
from tokenwire.providers.http.connection import Pool, Response

__all__ = ["Origin", "is_final", "part_of_path", "refusal", "run_of_path", "wait_of"]

_RUN = re.compile(r"[A-Za-z0-9_-]{16,64}")
_CALL = re.compile(r"[^/\\?#\s\x00-\x1f\x7f]{1,200}")
_KEY = re.compile(r"[\x21-\x7e]{1,1000}")
#: A whole answer (a snapshot holds everything that was said) and a refusal.
_MOST_ANSWER, _MOST_REFUSAL = 64 << 20, 64 << 10
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
        InputError,
        KeyReusedError,
        LimitError,
        NotAuthenticatedError,
        NotFoundError,
        StoreFullError,
        StoreUnavailableError,
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
#: These of 400 to 499 are worth another try.
_PASSING = (408, 425, 429)


class Origin:
    """Where the server is, and who asks."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"a server's URL begins with http:// or https://, not {url[:80]!r}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError("a server's URL has no user, query or fragment; keys go into api_key")
        if re.search(r"[\s\x00-\x1f\x7f]", url):
            raise ConfigError("a server's URL has no spaces or control characters")
        if api_key is not None and not _KEY.fullmatch(api_key):
            raise ConfigError("an API key is 1 to 1000 printable ASCII characters without spaces")
        self.url = url.rstrip("/")
        self._key = api_key
        self._pool = Pool()

    @property
    def socket_url(self) -> str:
        """The address of ``/ws``."""
        return "ws" + self.url.removeprefix("http") + "/ws"

    @property
    def headers(self) -> dict[str, str]:
        """What every request says about who asks."""
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

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
        """Send a request and read the head of its answer, which may be a refusal."""
        sent = {"accept": "application/json", "accept-encoding": "identity"}
        sent |= {**self.headers, **(headers or {})}
        try:
            async with asyncio.timeout(timeout):
                return await self._pool.request(
                    method, self.url + path, sent, body, connect_timeout=connect
                )
        except TimeoutError as error:
            raise NetworkError(f"{self.url} does not answer") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NetworkError(f"{self.url} cannot be reached: {reason}") from error

    async def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        timeout: float = 30.0,
    ) -> Any:
        """One request and its JSON answer, if any. Raises what the server says."""
        data, sent = b"", dict(headers or {})
        if body is not None:
            data = msgspec.json.encode(body)
            sent["content-type"] = "application/json"
        response = await self.open(method, path, sent, data, timeout=timeout)
        try:
            async with asyncio.timeout(timeout):
                if response.status >= 300:
                    raise await refusal(response)
                found = await read_all(response, _MOST_ANSWER)
        except TimeoutError as error:
            raise NetworkError(f"{self.url} breaks off in the middle of an answer") from error
        finally:
            await response.aclose()
        if not found:
            return None
        try:
            return msgspec.json.decode(found)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"{self.url} does not answer as a tokenwire server") from error


async def read_all(response: Response, most: int) -> bytes:
    """The whole body. Raises `ProtocolError` when it is larger than ``most``."""
    pieces: list[bytes] = []
    size = 0
    while piece := await response.read():
        size += len(piece)
        if size > most:
            raise ProtocolError(f"the server's answer is larger than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def refusal(response: Response) -> TokenwireError:
    """The error that an answer which is not 2xx tells."""
    status = response.status
    wait = retry_after(response.headers.get("retry-after"), time.time())
    try:
        told = msgspec.json.decode(await read_all(response, _MOST_REFUSAL))
    except (msgspec.DecodeError, ProtocolError, NetworkError):
        told = None  # a proxy's page: the status says enough
    error = told.get("error") if isinstance(told, dict) else None
    return told_error(error if isinstance(error, dict) else {}, status, wait)


def told_error(error: dict[str, Any], status: int, wait: float | None) -> TokenwireError:
    """The server's ``{"code", "message", ...}`` as one of our errors."""
    code = error.get("code")
    message = str(error.get("message") or f"the server answers {status}")[:_MOST_TEXT]
    details = {k: v for k, v in error.items() if k not in ("code", "message")}
    details["status"] = status
    if wait is not None:
        details["retry_after"] = wait
    if 300 <= status < 400:
        return ProtocolError("the server redirects, which is not followed", status=status)
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    kind = kind or _BY_STATUS.get(status)
    if kind is None:
        if 400 <= status < 500 and status not in _PASSING:
            kind = InputError
        else:
            return NetworkError(message, status=status, retry_after=wait)
    return kind(message, **details)


def is_final(error: TokenwireError) -> bool:
    """Whether coming back cannot help."""
    if isinstance(error, AccessError | NotFoundError | GoneError | CursorError | ProtocolError):
        return True
    status = error.details.get("status") or getattr(error, "status", None) or 0
    return 300 <= status < 500 and status not in _PASSING


def wait_of(error: TokenwireError) -> float | None:
    """The seconds that the server asked to wait."""
    found = getattr(error, "retry_after", None) or error.details.get("retry_after")
    return float(found) if isinstance(found, int | float) else None


def run_of_path(run: str) -> str:
    """``run``, which may become part of a URL. Raises `InputError` for what is no run id."""
    if not _RUN.fullmatch(run):
        raise InputError(f"{run[:80]!r} is no run id", field="run")
    return run


def part_of_path(value: str) -> str:
    """An approval's or a call's id as part of a URL."""
    if not _CALL.fullmatch(value) or value in (".", ".."):
        raise InputError(f"{value[:80]!r} is no id of a call or an approval")
    return quote(value, safe="")
