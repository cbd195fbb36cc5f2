"""A fault behind an accepted WebSocket: the peer is told, and the log says why, once."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.server import site
from tokenwire.server.sockets.ag_ui import AGUISocket
from tokenwire.server.sockets.ai_sdk import UISocket
from tokenwire.server.sockets.base import Socket
from tokenwire.server.sockets.native import NativeSocket

PROMPT = "scenario:slow?rate=5"
AG_UI = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "m", "role": "user", "content": PROMPT}],
    "tools": [],
    "context": [],
    "state": {},
    "forwardedProps": {},
}
UI = {
    "type": "send",
    "requestId": "r1",
    "id": "chat",
    "trigger": "submit-message",
    "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": PROMPT}]}],
}
SOCKETS: dict[str, tuple[type[Socket], Any]] = {
    "/ws": (NativeSocket, {"op": "start", "request": {"prompt": PROMPT}}),
    "/ag-ui": (AGUISocket, AG_UI),
    "/api/chat/ws": (UISocket, UI),
}
#: Where a fault may come from: before the first message, by a message, and in a task beside it.
PLACES = ["admit", "opened", "take", "follow"]


async def fails(*_: Any, **__: Any) -> Any:
    raise KeyError("something that nobody foresaw")


def break_at(place: str, kind: type[Socket], here: Any, patch: pytest.MonkeyPatch) -> None:
    if place == "follow":
        patch.setattr(here.app.state.runs, "follow", fails)
    else:
        patch.setattr(kind, place, fails)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", SOCKETS)
def test_a_fault_behind_an_accepted_socket_is_told(
    path: str, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kind, message = SOCKETS[path]
    caplog.set_level(logging.WARNING)
    with site() as here:
        break_at(place, kind, here, monkeypatch)
        address = here.url.replace("http", "ws", 1) + path
        with connect(address, proxy=None) as socket, pytest.raises(ConnectionClosed) as closed:
            socket.send(json.dumps(message))
            while True:
                socket.recv(timeout=30)
        monkeypatch.undo()
        with connect(address, proxy=None) as socket:  # the server goes on
            socket.send(json.dumps(message))
            assert socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    request = closed.value.rcvd.reason.rpartition(" ")[2]
    assert len(request) == 16
    failures = [entry for entry in caplog.records if entry.exc_info]
    assert [entry.getMessage() for entry in failures] == [f"socket {request} failed"]
    assert failures[0].exc_info is not None
    assert failures[0].exc_info[0] is KeyError


def test_a_fault_while_the_peer_reads_nothing_ends_the_socket_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The close frame waits behind what was not read, and its reader gets both."""
    with site(socket_buffer=4096) as here:
        address = here.url.replace("http", "ws", 1) + "/ws"
        with connect(address, proxy=None, max_size=None, max_queue=1) as socket:
            message = {"op": "start", "request": {"prompt": "scenario:long?rate=20000"}}
            socket.send(json.dumps(message))
            monkeypatch.setattr(NativeSocket, "take", fails)
            socket.send("{}")
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
