"""Ports that are still free when the server which is to have them takes them."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

__all__ = ["free_port"]

_taken: set[int] = set()
#: Not the module's own numbers: property tests begin them anew at each example, so that two workers
#: would draw the same ports at the same moment.
_random = random.SystemRandom()


def _first_of_the_kernel() -> int:
    """Where the ports begin that the kernel gives to connections and to whoever asks for any."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return 32_768


def free_port(also: int = 0) -> int:
    """A port below those: else any connection of a test beside this one may get it first. With
    ``also`` the port that many above is free as well (a Redis cluster's)."""
    highest = _first_of_the_kernel() - 1 - also
    while True:
        port = _random.randrange(10_000, highest)
        if port in _taken:
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for number in {port, port + also}:
                probe = probes.enter_context(socket.socket())
                probe.bind(("127.0.0.1", number))
            _taken.add(port)
            return port
