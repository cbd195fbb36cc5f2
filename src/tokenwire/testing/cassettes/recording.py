"""One request passed on to the provider, and what comes back kept with its times.

Always true: the client sees the bytes as they arrive, in the form in which they are replayed; a
response whose client has left is read to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tokenwire.errors import NetworkError, ProtocolError
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.http.response import Response
from tokenwire.simulator.http import Exchange as Client
from tokenwire.simulator.http import HttpRequest
from tokenwire.testing.cassettes.file import Body, Chunk, Exchange

__all__ = ["BodyError", "body_of", "has_no_body", "record"]

#: Seconds for a connection to a provider.
_CONNECT = 20.0
#: Headers that belong to one connection, or that the recorder sets itself.
_OWN = frozenset(
    "host content-length connection transfer-encoding accept-encoding keep-alive te trailer upgrade"
    " proxy-authorization proxy-connection expect x-sim-faults".split()
)
_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)


class BodyError(ValueError):
    """Content that cannot be read, so that no secret could be found in it."""


def body_of(request: HttpRequest) -> Body:
    """The content of a request. Raises `BodyError` for a compression that is not known."""
    decoder = _Decoder(request.headers.get("content-encoding", ""))
    data = decoder.feed(request.body)
    if not data:
        return Body()
    kind = request.headers.get("content-type", "")
    boundary = _BOUNDARY.search(kind) if kind.startswith("multipart/") else None
    if boundary is not None:  # another one with each request
        data = data.replace(boundary[1].encode("latin-1"), b"boundary")
    # A fetch that is given a text calls it text/plain.
    is_plain = kind.startswith("text/plain") and data.lstrip()[:1] in (b"{", b"[")
    if "json" in kind or not kind or is_plain:
        with contextlib.suppress(ValueError):
            return Body("json", json.loads(data, parse_constant=_no_constant))
    try:
        return Body("text", data.decode("utf-8"))
    except UnicodeDecodeError:
        return Body("base64", data)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


async def record(
    pool: Pool,
    client: Client,
    url: str,
    into: Exchange,
    keep: Callable[[Mapping[str, str]], dict[str, str]],
) -> None:
    """Ask the provider, and write its response to the client and to ``into``. ``keep``: the headers
    of the response that are recorded. Raises `OSError`, `NetworkError`, `ProtocolError` or
    `BodyError` where there is no response, or none that can be recorded."""
    request, loop = client.request, asyncio.get_running_loop()
    headers = {name: value for name, value in request.headers.items() if name not in _OWN}
    headers["accept-encoding"] = "identity"
    start_time = loop.time()
    response = await pool.request(
        request.method, url, headers, request.body, connect_timeout=_CONNECT
    )
    try:
        decoder = _Decoder(response.headers.get("content-encoding", ""))
        into.wait, into.status = loop.time() - start_time, response.status
        into.response_headers = keep(response.headers)
        if has_no_body(request.method, response.status):
            client.answer(into.status, into.response_headers, b"")
            into.end = "complete"
            return
        client.begin(into.status, into.response_headers)
        into.end = "open"  # what it stays if nothing more comes
        into.end = await _copy(response, client, decoder, into.chunks, start_time)
    finally:
        await response.aclose()
    _end(client, into.end)


def has_no_body(method: str, status: int) -> bool:
    """Whether HTTP has no body there, whatever the headers say."""
    return method == "HEAD" or status in (204, 304)


async def _copy(
    response: Response, client: Client, decoder: _Decoder, chunks: list[Chunk], start_time: float
) -> str:
    """Copy the body, and return how it ended."""
    loop = asyncio.get_running_loop()
    try:
        while data := await response.read():
            if plain := decoder.feed(data):
                chunks.append(Chunk(loop.time() - start_time, plain))
                client.write(plain)
    except NetworkError as error:
        return "reset" if isinstance(error.__cause__, ConnectionResetError) else "cut"
    except ProtocolError:
        return "cut"
    return "complete"


def _end(client: Client, end: str) -> None:
    if end == "complete":
        client.finish()
    else:
        client.cut(reset=end == "reset")


class _Decoder:
    """Takes the compression off a body, as far as its bytes have arrived."""

    def __init__(self, coding: str) -> None:
        coding = coding.strip().lower()
        self._inflate: Any = None
        if coding in ("gzip", "x-gzip"):
            self._inflate = zlib.decompressobj(31)
        elif coding == "deflate":
            self._inflate = zlib.decompressobj(15)
        elif coding not in ("", "identity"):
            raise BodyError(f"the content is compressed with {coding}, which cannot be recorded")

    def feed(self, data: bytes) -> bytes:
        """What the bytes so far make plain. Raises `BodyError`."""
        if self._inflate is None:
            return data
        try:
            return self._inflate.decompress(data)
        except zlib.error as error:
            raise BodyError(f"the compressed content is damaged: {error}") from error
