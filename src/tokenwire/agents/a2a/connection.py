"""Requests to a remote agent on both bindings, and their answers as JSON values.

Always true: no redirect is followed; a body and an event have a bound; an answer that is not the
protocol's (HTML, another request's, a version of its own) is an error and never a result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from tokenwire.agents.a2a.address import Address
from tokenwire.agents.a2a.card import Peer, peer_of
from tokenwire.agents.a2a.failures import error_of, protocol_error
from tokenwire.errors import DeadlineError, FramingError, NetworkError, ProviderError
from tokenwire.framing.sse import SSEDecoder
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import ByteStream, HttpClient
from tokenwire.run.call.deadlines import Deadlines

__all__ = ["Connection", "find_peer", "was_not_sent"]

#: Bytes of a card, of the body of an error, of any other body, and of one event.
_MOST_CARD, _MOST_ERROR, _MOST_BODY, _MOST_EVENT = 1 << 20, 1 << 16, 32 << 20, 16 << 20
_VERSION = {"a2a-version": "1.0"}

#: The operations: their method and path on REST. ``{id}`` is the task.
_REST = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "ListTasks": ("GET", "/tasks"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
    "SubscribeToTask": ("POST", "/tasks/{id}:subscribe"),
}


def was_not_sent(error: ProviderError) -> bool:
    """Whether the request cannot have reached the agent: there was no connection."""
    if isinstance(error, DeadlineError):
        return error.which == "connect"
    return isinstance(error, NetworkError) and isinstance(error.__cause__, OSError | ValueError)


async def find_peer(http: HttpClient, address: Address, deadlines: Deadlines) -> Peer:
    """Fetch the agent card and read it. Raises `ProviderError`."""
    headers = {**address.headers, **_VERSION, "accept": "application/json"}
    call = Call(url=address.card, headers=headers, body=b"", method="GET")
    stream = await _open(http, call, deadlines, deadlines.first_event)
    try:
        if stream.status != 200:
            raise error_of(stream.status, await _body(stream, _MOST_ERROR, deadlines), address.host)
        return peer_of(_json(await _body(stream, _MOST_CARD, deadlines), address.host), address)
    finally:
        await stream.aclose()


class Connection:
    """One remote agent, as ``peer`` describes it."""

    def __init__(
        self, http: HttpClient, address: Address, peer: Peer, deadlines: Deadlines
    ) -> None:
        self._http, self._address, self._deadlines = http, address, deadlines
        self.peer = peer
        self._count = 0

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of an operation. Raises `ProviderError`."""
        head_seconds = None if method == "SendMessage" else self._deadlines.first_event
        call, rpc_id = self._request(method, params, "application/json")
        stream = await _open(self._http, call, self._deadlines, head_seconds)
        try:
            return await self._result(stream, rpc_id)
        finally:
            await stream.aclose()

    async def stream(
        self, method: str, params: dict[str, Any], last_id: str = ""
    ) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        """The responses of a stream, each with the id of its event. Raises `ProviderError`; a cut
        is no error, as it cannot be told from an end here."""
        call, rpc_id = self._request(method, params, "text/event-stream", last_id)
        stream = await _open(self._http, call, self._deadlines, self._deadlines.first_event)
        try:
            media_type = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
            if stream.status != 200 or media_type != "text/event-stream":
                yield "", await self._result(stream, rpc_id)
                return
            decoder = SSEDecoder(max_line=_MOST_EVENT, max_event=_MOST_EVENT)
            while data := await _read(stream, self._deadlines.idle):
                for frame in decoder.feed(data):
                    yield (
                        decoder.last_event_id,
                        self._response(_json(frame.data, self.host), rpc_id),
                    )
        except FramingError as error:
            raise protocol_error(f"{self.host} sent an event that is too long") from error
        finally:
            await stream.aclose()

    @property
    def host(self) -> str:
        """Host and port of the agent, for people."""
        return self._address.host

    async def _result(self, stream: ByteStream, rpc_id: str | None) -> dict[str, Any]:
        if stream.status != 200:
            data = await _body(stream, _MOST_ERROR, self._deadlines)
            raise error_of(stream.status, data, self.host)
        data = await _body(stream, _MOST_BODY, self._deadlines)
        return self._response(_json(data, self.host), rpc_id)

    def _response(self, value: Any, rpc_id: str | None) -> dict[str, Any]:
        """What a JSON-RPC response or a value of REST holds."""
        if rpc_id is None:
            if isinstance(value, dict) and isinstance(value.get("error"), dict):
                raise error_of(200, msgspec.json.encode(value), self.host)
        else:
            if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
                raise protocol_error(f"{self.host} did not answer with JSON-RPC 2.0")
            if isinstance(value.get("error"), dict):
                raise error_of(200, msgspec.json.encode(value), self.host)
            if value.get("id") != rpc_id:
                raise protocol_error(f"{self.host} sent the response to another request")
            value = value.get("result")
        if not isinstance(value, dict):
            raise protocol_error(f"{self.host} answered without a result")
        return value

    def _request(
        self, method: str, params: dict[str, Any], accept: str, last_id: str = ""
    ) -> tuple[Call, str | None]:
        """The request, and the id of its JSON-RPC call."""
        peer = self.peer
        headers = {**self._address.headers, **_VERSION, "accept": accept}
        if last_id:
            headers["last-event-id"] = last_id
        if peer.is_rpc:
            self._count += 1
            rpc_id = str(self._count)
            if peer.tenant:
                params = {**params, "tenant": peer.tenant}
            body = {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}
            headers["content-type"] = "application/json"
            return Call(url=peer.url, headers=headers, body=msgspec.json.encode(body)), rpc_id
        verb, path = _REST[method]
        tenant = f"/{quote(peer.tenant, safe='')}" if peer.tenant else ""
        url = f"{peer.url}{tenant}{path.replace('{id}', quote(str(params.get('id', '')), safe=''))}"
        rest = {name: value for name, value in params.items() if name != "id"}
        if verb == "GET":
            query = urlencode(rest)
            return Call(
                url=f"{url}?{query}" if query else url, headers=headers, body=b"", method=verb
            ), None
        headers["content-type"] = "application/a2a+json" if rest else "application/json"
        return Call(url=url, headers=headers, body=msgspec.json.encode(rest)), None


async def _open(
    http: HttpClient, call: Call, deadlines: Deadlines, seconds: float | None
) -> ByteStream:
    try:
        async with asyncio.timeout(seconds):
            return await http.open(call, connect_timeout=deadlines.connect)
    except TimeoutError as error:
        raise DeadlineError(
            f"no response from the remote agent within {seconds:g} s",
            which="first_event",
            seconds=seconds or 0.0,
        ) from error


async def _read(stream: ByteStream, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await stream.read()
    except TimeoutError as error:
        raise DeadlineError(
            f"no data from the remote agent for {seconds:g} s", which="idle", seconds=seconds
        ) from error


async def _body(stream: ByteStream, most: int, deadlines: Deadlines) -> bytes:
    """A whole body of at most so many bytes. Raises `ProtocolError`."""
    pieces: list[bytes] = []
    size = 0
    while data := await _read(stream, deadlines.idle):
        size += len(data)
        if size > most:
            raise protocol_error(f"the answer of the remote agent is longer than {most} bytes")
        pieces.append(data)
    return b"".join(pieces)


def _json(data: bytes, host: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "HTML" if data.lstrip()[:1] == b"<" else "no valid JSON"
        raise protocol_error(f"{host} sent {what} where JSON was expected") from error
