"""Words that the lane writes to a socket past its transport: what every reader gets is the run."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from support.server import Reading, site
from tokenwire import express
from tokenwire.run.call.lane import Lane, received_in_python

#: To close is to break off.
RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the Python wrote past transports; the native twin does the same unseen."""
    found: list[int] = []
    write = express.write

    def counted(fd: int, data: bytes) -> int:
        found.append(write(fd, data))
        return found[-1]

    monkeypatch.setattr(express, "write", counted)
    monkeypatch.setattr(Lane, "received", received_in_python)
    return found


def body_of(data: bytes) -> bytes:
    """The body of a chunked response, whatever its chunks."""
    rest, found = data.partition(b"\r\n\r\n")[2], []
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        found.append(rest[:size])
        rest = rest[size + 2 :]
    return b"".join(found)


def test_words_go_past_the_transport_and_readers_of_all_wires_get_the_run(sizes):
    with site() as here:
        run = here.start("scenario:slow")
        path = f"/v1/runs/{run}/events"
        others = ("ui", "ag-ui", "openai-responses", "openai-chat", "anthropic")
        paths = [path, path, *(f"/v1/runs/{run}/wires/{wire}" for wire in others)]
        readers = [Reading.get(here.port, each) for each in paths]
        live = [body_of(reader.rest()) for reader in readers]
        stored = [body_of(Reading.get(here.port, each).rest()) for each in paths]
        assert len(sizes) > 3 * len(paths)
    assert live == stored


def test_a_reader_gets_nothing_of_one_whose_socket_had_its_number(sizes):
    """Each that breaks off leaves the number of its socket to one that comes."""
    with site() as here:
        theirs, ours = here.start("scenario:slow"), here.start("scenario:tool")
        path = f"/v1/runs/{ours}/events"
        stored = body_of(Reading.get(here.port, path).rest())
        for _ in range(3):
            written = len(sizes)
            leaving = [Reading.get(here.port, f"/v1/runs/{theirs}/events") for _ in range(8)]
            while len(sizes) < written + len(leaving):
                time.sleep(0.01)
            coming = []
            for reader in leaving:
                reader.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                reader.close()
                coming.append(Reading.get(here.port, path))
            for reader in coming:
                assert body_of(reader.rest()) == stored
            theirs = here.start("scenario:slow")
