"""What writes to a reader's socket in one call: the same bytes as `transport.write`, in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.run.call.lane import twin
from tokenwire.run.call.native import writer_of

uvloop = pytest.importorskip("uvloop")
pytestmark = pytest.mark.skipif(
    twin.received is None or sys.platform == "win32", reason=f"speedups: {twin.reason}"
)
LOOPS: list[Callable[[], Any]] = [uvloop.new_event_loop, asyncio.new_event_loop]
loops = pytest.mark.parametrize("make_loop", LOOPS, ids=["uvloop", "asyncio"])


def on(make_loop: Callable[[], Any], main: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main())


class Server(asyncio.Protocol):
    """The server's side of a connection, and how often it was to pause."""

    def __init__(self) -> None:
        self.pauses, self.ended = 0, asyncio.get_running_loop().create_future()

    def pause_writing(self) -> None:
        self.pauses += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


async def connected(buffer: int = 0) -> tuple[Any, Server, socket.socket]:
    """A transport, its protocol, and the peer's socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    if buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    peer = socket.socket()
    if buffer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    peer.connect(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(Server, ours)
    peer.settimeout(20)
    return transport, protocol, peer


async def rest_of(peer: socket.socket) -> bytes:
    def read() -> bytes:
        found = b""
        while data := peer.recv(1 << 16):
            found += data
        return found

    return await asyncio.get_running_loop().run_in_executor(None, read)


#: Who writes (the sender, the transport, or nobody: a turn of the loop passes), and how much.
WRITES = st.lists(
    st.tuples(st.sampled_from(["sender", "write", "turn"]), st.sampled_from([1, 90, 4000, 70_000])),
    max_size=40,
)


@loops
@settings(max_examples=40, deadline=None)
@given(writes=WRITES)
def test_bytes_arrive_once_and_in_order_whoever_writes(make_loop, writes):
    async def main() -> None:
        transport, _, peer = await connected(4096)
        send = writer_of(transport)
        assert type(send).__name__ == "Sender"
        expected = b""
        for number, (who, size) in enumerate(writes):
            data = os.urandom(4).hex().encode()[: size or 1] + bytes([number]) * size
            if who == "turn":
                await asyncio.sleep(0)
                continue
            expected += data
            (send if who == "sender" else transport.write)(data)
        reading = asyncio.ensure_future(rest_of(peer))
        transport.close()
        assert await reading == expected
        peer.close()

    on(make_loop, main)


@loops
def test_a_peer_that_does_not_read_pauses_the_protocol(make_loop):
    async def main() -> None:
        transport, protocol, peer = await connected(4096)
        send = writer_of(transport)
        sent = 0
        while not protocol.pauses:
            assert send(b"x" * 1000) is None
            sent += 1000
            assert sent < 10 << 20
        assert transport.get_write_buffer_size() > 0
        transport.close()
        assert len(await rest_of(peer)) == sent
        peer.close()

    on(make_loop, main)


@loops
@pytest.mark.parametrize("end", ["abort", "close", "peer"])
def test_a_closed_transport_writes_to_nobody_who_has_its_number(make_loop, end):
    """The number of a closed socket is soon that of another."""

    async def main() -> None:
        transport, protocol, peer = await connected()
        send = writer_of(transport)
        number = transport.get_extra_info("socket").fileno()
        send(b"before")
        if end == "peer":
            peer.close()
        else:
            getattr(transport, end)()
            send(b"closing")
        await protocol.ended
        await asyncio.sleep(0.01)
        pairs = []
        while all(one.fileno() != number for pair in pairs for one in pair):
            pairs.append(socket.socketpair())
            assert len(pairs) < 100
        for _ in range(3):
            with contextlib.suppress(RuntimeError):  # as uvloop's `write` has it
                send(b"a stranger's")
        strangers = [one for pair in pairs for one in pair]
        for one in strangers:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(100)
        for one in [*strangers, peer]:
            one.close()

    on(make_loop, main)


@loops
def test_a_broken_connection_is_the_transports_to_tell(make_loop):
    async def main() -> None:
        transport, protocol, peer = await connected()
        send = writer_of(transport)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()  # a reset
        for _ in range(100):
            send(b"x")
        await asyncio.wait_for(protocol.ended, 20)

    on(make_loop, main)


@loops
def test_what_is_no_bytes_is_what_it_is_to_the_transport(make_loop):
    async def main() -> None:
        transport, _, peer = await connected()
        send = writer_of(transport)
        for data in (b"", bytearray(b"a"), memoryview(b"b"), b"c"):
            send(data)
        with pytest.raises(TypeError):
            send("text")  # type: ignore[arg-type]
        for arguments, names in (((), {}), ((b"", b""), {}), ((), {"data": b""})):
            with pytest.raises(TypeError):
                send(*arguments, **names)
        transport.close()
        assert await rest_of(peer) == b"abc"
        peer.close()

    on(make_loop, main)


def test_other_transports_write_for_themselves():
    class Other(asyncio.Transport):
        def write(self, data: Any) -> None:
            pass

    other = Other()
    assert writer_of(other) == other.write
