"""Asks a server through whatever stands before it, and prints each finding when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tokenwire.cli.finding import Finding, exit_code, print_finding
from tokenwire.cli.path.assess import (
    MARK,
    assess_burst,
    assess_first,
    assess_long,
    assess_socket,
)
from tokenwire.cli.path.measure import open_socket, read_stream
from tokenwire.client.origin import Origin

__all__ = ["path_findings", "run_path_doctor"]

_BURST = 1000
#: Seconds that an answer may take beside the stream's own time.
_PATIENCE = 20.0


def run_path_doctor(url: str, *, api_key: str | None, seconds: float, as_json: bool) -> int:
    """Look at the way to a server. Returns 1 if something is broken. Raises `ConfigError`."""

    async def look() -> list[Finding]:
        findings: list[Finding] = []
        async for finding in path_findings(url, api_key, seconds=seconds):
            findings.append(finding)
            if not as_json:
                print_finding(finding)
        return findings

    return exit_code(asyncio.run(look()), as_json=as_json)


async def path_findings(
    url: str, api_key: str | None, *, seconds: float, ticking: float = 3.0
) -> AsyncIterator[Finding]:
    """The findings about the way to ``url``. ``seconds``: of the stream without events, and
    ``ticking`` of the one with them. Raises `ConfigError` for an impossible URL or key."""
    origin = Origin(url, api_key)
    try:
        headers = {"last-event-id": MARK}
        packed = {**headers, "accept-encoding": "gzip, br, zstd"}
        ticks = {"seconds": ticking, "interval": ticking / 15}
        first = await read_stream(origin, ticks, packed, patience=_PATIENCE)
        if first.headers.get("content-encoding", "identity") != "identity":
            # What is packed cannot be looked into; the rest is asked for as it is.
            plain = await read_stream(origin, ticks, headers, patience=_PATIENCE)
            plain.headers["content-encoding"] = first.headers["content-encoding"]
            first = plain
        is_broken = False
        for finding in assess_first(first, has_key=api_key is not None):
            is_broken = is_broken or (finding.what == "server" and finding.state == "broken")
            yield finding
        if is_broken:
            return
        burst = {"seconds": 0.1, "interval": 0.1, "burst": _BURST}
        yield assess_burst(await read_stream(origin, burst, headers, patience=_PATIENCE), _BURST)
        yield assess_socket(await open_socket(origin, patience=_PATIENCE), first)
        if seconds <= 0:
            return
        arrival = first.of("seen") or {}
        heartbeat = min(max(float(arrival.get("heartbeat") or 15.0), 0.05), 300.0)
        silent = {"seconds": seconds, "interval": heartbeat, "silent": "true"}
        long = await read_stream(origin, silent, headers, patience=seconds + _PATIENCE)
        for finding in assess_long(long, seconds=seconds, heartbeat=heartbeat):
            yield finding
    finally:
        origin.close()
