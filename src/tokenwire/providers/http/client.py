"""Sockets to bytes: the one place that speaks HTTP to providers.

Always true: a request holds only what its call says: no redirect is followed, no cookie is used,
no compression is accepted; a proxy comes from the environment alone, and never stands before a
loopback address; certificates are verified; a stream that is closed or aborted before its end
closes its connection at once.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from tokenwire.errors import DeadlineError, NetworkError, ProtocolError, ProviderError
from tokenwire.express import Diversion, Hold, Taken
from tokenwire.providers.base import Call
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.http.proxy import Proxies

__all__ = ["ByteStream", "HttpClient", "PushStream"]

#: Codings of ``content-encoding``. Others, such as the name of a charset, change no byte.
_COMPRESSED = re.compile(r"\b(?:x-)?(?:gzip|compress|deflate|br|zstd)\b|compress", re.IGNORECASE)


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


@runtime_checkable
class PushStream(ByteStream, Protocol):
    """A body that can hand bytes on past the task that waits for them (see `tokenwire.express`)."""

    async def read_express(self, take: Callable[[bytes], Taken] | None) -> bytes | None:
        """`read`, but pieces that arrive during the wait go to ``take`` first (which must not
        raise). ``SETTLE`` makes this return None. With ``take``, the fields of the head are needed
        no more: `headers` may be empty from then on."""
        ...

    def hold(self) -> Hold:
        """Let the event loop no longer read the socket; see `tokenwire.express.Hold`."""
        ...

    def divert(self, lane: Diversion, body: bytes) -> bytes | None:
        """While `read_express` waits, give what the socket brings to ``lane`` first, before it is
        parsed: if the read that is being handed on was ``body`` in whole chunks, and nothing
        else. Returns how this server writes the head of a chunk (a format of its size, with the
        line end); None, and nothing has changed, otherwise."""
        ...

    def delay_acks(self) -> None:
        """Let the system acknowledge two reads of the socket together, where it can, until one
        comes later than it waits for that. Raises nothing."""
        ...

    def settle(self) -> None:
        """End the diversion, and make the `read_express` that waits return None."""
        ...

    def linger(self) -> None:
        """Let the connection go after the last byte that matters: it can be used again if the body
        ends very soon, else it is closed. Nothing is read or raised any more."""
        ...


class HttpClient:
    """A pool of connections to providers, for one event loop. ``env``: where the variables of
    proxies are looked up (the process's environment); an empty one means no proxy."""

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._pool = Pool(ssl_context, proxies=Proxies(os.environ if env is None else env))

    async def open(self, call: Call, *, connect_timeout: float) -> ByteStream:
        """Send the call and wait for the head of the answer, whatever its status.

        Raises `DeadlineError` (``connect``), `NetworkError`, or `ProtocolError` when the
        reply is not HTTP, or is compressed in spite of ``accept-encoding: identity``.
        """
        host = _host(call.url)
        headers = {"accept-encoding": "identity", "user-agent": "tokenwire", **call.headers}
        try:
            stream = await self._pool.request(
                call.method, call.url, headers, call.body or b"", connect_timeout=connect_timeout
            )
        except (OSError, ValueError) as error:
            raise _failure(error, host, connect_timeout) from error
        if stream.status == 407 and stream.proxy is not None:
            await stream.aclose()
            raise NetworkError(
                f"the proxy {stream.proxy.name} does not forward the request to {host}: it wants "
                "a user and password",
                should_retry=False,
                reason="ProxyError",
            )
        if _COMPRESSED.search(stream.headers.get("content-encoding", "")):
            await stream.aclose()
            raise ProtocolError(
                f"{host} sent a compressed response although only identity was accepted",
                status=stream.status,
            )
        return stream

    async def aclose(self) -> None:
        """Close every connection."""
        self._pool.close()
        await asyncio.sleep(0)  # transports tell their end in the next turn of the loop


def _host(url: str) -> str:
    """The host and port of an address, and nothing of it that could be secret. Raises
    `NetworkError` for an invalid HTTP address."""
    try:
        parts = urlsplit(url)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError:
        host, port, scheme = None, None, ""
    if not host or scheme not in ("http", "https"):
        raise NetworkError(
            "the base URL is not a valid address", should_retry=False, reason="InvalidURL"
        )
    return f"{host}:{port or (443 if scheme == 'https' else 80)}"


def _failure(error: Exception, host: str, connect_timeout: float) -> ProviderError:
    reason = type(error).__name__
    if isinstance(error, TimeoutError):
        return DeadlineError(
            f"cannot connect to {host} within {connect_timeout:g} s",
            which="connect",
            seconds=connect_timeout,
        )
    if isinstance(error, ssl.SSLError):
        return NetworkError(
            f"{host} has no valid TLS certificate; check the base URL",
            should_retry=False,
            reason=reason,
        )
    if isinstance(error, socket.gaierror | UnicodeError):
        return NetworkError(f"unknown host in {host}; check the base URL", reason=reason)
    return NetworkError(f"cannot connect to {host}: refused or timed out", reason=reason)
