"""Sockets to bytes: the one place that speaks HTTP to providers.

Always true: nothing is asked for that was not in the call: no redirect is followed, no proxy or
cookie is taken from anywhere, no compression is accepted; certificates are checked; a stream that
is closed or aborted before its end closes its connection at once.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Protocol

import aiohttp
from yarl import URL

from tokenwire.errors import DeadlineError, NetworkError, ProtocolError, ProviderError
from tokenwire.providers.base import Call

__all__ = ["ByteStream", "HttpClient"]

#: Longer answers' heads than this are an attack or a mistake.
_MOST_HEADER_BYTES = 64 << 10
_DNS_SECONDS = 60


class ByteStream(Protocol):
    """The body of one answer while it arrives. Users may pass clients that return their own."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """What has arrived, at least one byte; ``b""`` at the end. Raises `NetworkError`."""
        ...

    def abort(self, error: ProviderError) -> None:
        """Close the connection now; a pending or the next `read` raises ``error``."""
        ...

    async def aclose(self) -> None:
        """Let the connection go; before the end of the body this closes it."""
        ...


class HttpClient:
    """A pool of connections to providers, for one event loop."""

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def open(self, call: Call, *, connect_timeout: float) -> ByteStream:
        """Send the call and wait for the head of the answer, whatever its status.

        Raises `DeadlineError` (``connect``), `NetworkError`, or `ProtocolError` when what answers
        does not speak HTTP or compresses although it was told not to.
        """
        session = self._session or self._start()
        try:
            response = await session.request(
                call.method,
                URL(call.url, encoded=True),
                data=call.body or None,
                headers={"accept-encoding": "identity", "user-agent": "tokenwire", **call.headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error, _host(call.url), connect_timeout) from error
        stream = _Stream(response)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", ""):
            await stream.aclose()
            raise ProtocolError(
                f"{_host(call.url)} compressed its answer although only identity was accepted",
                status=response.status,
            )
        return stream

    async def aclose(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _start(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=_DNS_SECONDS,
            ssl=self._ssl if self._ssl is not None else True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_MOST_HEADER_BYTES,
            max_field_size=_MOST_HEADER_BYTES,
        )
        return self._session


class _Stream:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self._error: ProviderError | None = None
        self.status = response.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in response.headers.items()}

    async def read(self) -> bytes:
        if self._error is not None:
            raise self._error
        try:
            data = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if self._error is not None:
                raise self._error from None
            raise NetworkError(
                f"the connection to {self._response.url.host} broke in the middle of the answer",
                status=self.status,
                reason=type(error).__name__,
            ) from error
        if self._error is not None:
            raise self._error
        return data

    def abort(self, error: ProviderError) -> None:
        if self._error is None:
            self._error = error
        self._response.close()

    async def aclose(self) -> None:
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _host(url: str) -> str:
    """The host and port of an address, and nothing of it that could be secret."""
    parsed = URL(url, encoded=True)
    return f"{parsed.host}:{parsed.port}" if parsed.host else "the provider"


def _failure(error: Exception, host: str, connect_timeout: float) -> ProviderError:
    reason = type(error).__name__
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return DeadlineError(
            f"no connection to {host} within {connect_timeout:g} s",
            which="connect",
            seconds=connect_timeout,
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return NetworkError(
            f"{host} has no valid TLS certificate; check the base URL",
            should_retry=False,
            reason=reason,
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NetworkError(f"the host of {host} is not known; check the base URL", reason=reason)
    if isinstance(error, aiohttp.ClientConnectorError):
        return NetworkError(
            f"no connection to {host}: it refuses or does not answer", reason=reason
        )
    if isinstance(error, aiohttp.InvalidURL):
        return NetworkError(
            "the base URL is not a valid address", should_retry=False, reason=reason
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return ProtocolError(f"what answers at {host} does not speak HTTP", reason=reason)
    return NetworkError(f"the connection to {host} broke before an answer began", reason=reason)
