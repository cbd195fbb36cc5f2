"""A provider's side of a connection with a socket, which ticks may read past the transport."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from support.both_ways import Socket


class Ticks:
    """The ticks of fast streams, which a test calls for."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], bool]] = []

    def join(self, call: Callable[[], bool]) -> None:
        self.waiting.append(call)

    def fire(self) -> None:
        waiting, self.waiting = self.waiting, []
        self.waiting += [call for call in waiting if call()]


def held_socket(ticks: Ticks) -> type[Socket]:
    """The class of such sockets, whose ticks are ``ticks``."""

    class TCPTransport(Socket):
        #: Reads past the transport.
        pulls = 0

        def __init__(self) -> None:
            super().__init__()
            self.here, self.peer = socket.socketpair()
            self.here.setblocking(False)

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            if name != "socket":
                return default
            return SimpleNamespace(fileno=self.here.fileno, setsockopt=lambda *arguments: None)

        @property
        def waits(self) -> bool:
            assert self.connection is not None
            return self.paused and self.connection._pulled < 0

        def resume_reading(self) -> None:
            super().resume_reading()
            asyncio.get_running_loop().call_soon(self.read)

        def read(self) -> None:
            """As an event loop does."""
            while not self.paused and not self.closed:
                try:
                    data = self.here.recv(1 << 16)
                except BlockingIOError:
                    return
                super().bring(data)

        def bring(self, data: bytes) -> None:
            self.peer.sendall(data)
            if self.paused:
                type(self).pulls += 1
                ticks.fire()
            self.read()

        def abort(self) -> None:
            super().abort()
            self.here.close()
            self.peer.close()

        close = abort

    return TCPTransport
