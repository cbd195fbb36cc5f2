"""uvicorn's HTTP protocol, whose requests take turns when many come in one turn of the event loop.

Always true: nothing passes what waits, neither further bytes nor the end of the connection; a
request that was received is parsed, unless the connection is aborted; a body that is being received
waits for nothing.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tokenwire.turns import turns

__all__ = ["ArrivingProtocol"]

#: Bytes that wait to be parsed, at most.
_MOST = 64 << 10


class ArrivingProtocol(HttpToolsProtocol):
    """One connection. Its bytes are `received` when it is their turn."""

    __slots__ = ("unparsed",)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nothing waits yet."""
        self.unparsed = b""
        super().connection_made(transport)

    def begins_request(self) -> bool:
        """Whether the next bytes are of a request whose head is not complete."""
        raise NotImplementedError

    def received(self, data: bytes) -> None:
        """Bytes of requests, in the order in which they came."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Bytes of requests: where many come in one turn, some wait for the next ones."""
        if self.unparsed:
            self.unparsed += data
            if len(self.unparsed) > _MOST:
                self.parse()
        elif not self.begins_request() or turns().admit_request():
            self.received(data)
        else:
            self._unset_keepalive_if_required()
            self.unparsed = data
            turns().wait_unparsed(self.parse)

    def parse(self) -> None:
        """Parse what waits."""
        data, self.unparsed = self.unparsed, b""
        if data:
            self.received(data)

    def eof_received(self) -> None:
        """The peer sends no more: what it has sent counts."""
        self.parse()

    def shutdown(self) -> None:
        """The server stops: what it has received is answered."""
        self.parse()
        super().shutdown()
