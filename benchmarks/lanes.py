"""The share of chunks that take the lane, by service: recordings, each block as a read of its own.

The decoder, the lane and what it proves are the real ones; the connection, the run and the clock
are not (a chunk comes every 20 ms). Of a service's chunks all count, its first and last as well.
``--lost`` prints, for each service, the chunks that gave one delta and did not take the lane.

    python benchmarks/lanes.py                     # the recordings beside the project, if any
    python benchmarks/lanes.py FOLDER              # another folder with a manifest.json
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import corpus
from tokenwire.events.model import PartDelta
from tokenwire.express import YES, Taken
from tokenwire.providers.base import SteadyDecoder
from tokenwire.providers.registry import DIALECTS, FAMILIES
from tokenwire.run.call import lane as lane_module
from tokenwire.run.call.lane import Lane, Seat
from tokenwire.run.call.pacing import Pacer

GAP = 0.02
STREAM_ENDS = {"sse": b"\n\n", "jsonl": b"\n\n", "ndjson": b"\n"}


class Run:
    """Connection, run, sink, clock and account of one lane."""

    ready = True

    def __init__(self, decoder: SteadyDecoder) -> None:
        self.now = 1000.0
        self.seq = 0
        self.lane: Lane | None = None
        self.watch: Any = SimpleNamespace(last_event=0.0)
        self.pacer = Pacer()
        self._lane = Lane(self, decoder, self, self.pacer, self)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def seat(self, make_up: Callable[[], None]) -> Seat:
        return Seat(self.seq, 1, 999.0, self)

    def catch_up(self, delta: PartDelta, times: list[float]) -> None:
        self.seq = delta.seq

    def take_json(self, data: bytes) -> Taken:
        return YES

    def divert(self, lane: Lane, body: bytes) -> bytes | None:
        self.lane = lane
        return b"%x\r\n"

    def settle(self) -> None:
        self.leave()

    def leave(self) -> None:
        if self.lane is not None:
            lane, self.lane = self.lane, None
            lane.leave()

    def missed(self, size: int) -> None:
        pass

    def failed(self, error: Exception) -> None:
        raise error

    def took(self, block: bytes) -> bool:
        self.now += GAP
        if self.lane is not None:
            if self.lane.received(b"%x\r\n%b\r\n" % (len(block), block)):
                return True
            self.leave()
        return False

    def offer(self, block: bytes, delta: PartDelta) -> None:
        self.seq = delta.seq = self.seq + 1
        delta.t = self.seq
        self.pacer.read(self.now, len(block), 1)
        if not self._lane.is_hopeless:
            self._lane.offer(block, delta, 1 << 26)


def measure(recording: corpus.Recording, lost: Counter[bytes]) -> tuple[int, int, int]:
    """Chunks of a recording, those that gave one delta alone, and of these those on the lane."""
    end = STREAM_ENDS.get(recording.framing)
    if end is None:
        return 0, 0, 0
    dialect = importlib.import_module(DIALECTS[FAMILIES[recording.family]]).DIALECT
    decoder = dialect.decoder(content_type=recording.content_type)
    run = Run(decoder)
    lane_module.time = run  # type: ignore[assignment]
    data = recording.wire
    if end == b"\n\n" and b"\r\n" in data:
        end, data = b"\r\n\r\n", data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    blocks = [b + end for b in data.split(end) if b.strip()]
    deltas = taken = 0
    for block in blocks:
        if run.took(block):
            taken, deltas = taken + 1, deltas + 1
            continue
        events = decoder.feed(block)
        delta = events[0] if len(events) == 1 else None
        if isinstance(delta, PartDelta):
            deltas += 1
            lost[block[:300]] += 1
            if isinstance(decoder, SteadyDecoder):
                run.offer(block, delta)
    run.leave()
    return len(blocks), deltas, taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=corpus.CORPUS)
    parser.add_argument("--lost", type=int, default=0, help="so many chunks of each service")
    options = parser.parse_args()
    corpus.CORPUS = options.folder
    services: dict[str, list[int]] = {}
    missing: dict[str, Counter[bytes]] = {}
    for recording in corpus.recordings():
        service = recording.file.partition("/")[0]
        lost = missing.setdefault(service, Counter())
        counts = measure(recording, lost)
        services[service] = [
            a + b for a, b in zip(services.get(service, [0, 0, 0]), counts, strict=True)
        ]
    print(f"{'service':28s} {'chunks':>7s} {'deltas':>7s} {'on the lane':>12s}  of all  of deltas")
    total = [0, 0, 0]
    for service, (chunks, deltas, taken) in sorted(services.items()):
        total = [a + b for a, b in zip(total, (chunks, deltas, taken), strict=True)]
        if chunks:
            share = f"{taken / chunks:8.2f} {taken / max(1, deltas):10.2f}"
            print(f"{service:28s} {chunks:7,d} {deltas:7,d} {taken:12,d}{share}")
        for block, count in missing[service].most_common(options.lost):
            print(f"    {count} {block!r}")
    chunks, deltas, taken = total
    share = f"{taken / max(1, chunks):8.2f} {taken / max(1, deltas):10.2f}"
    print(f"{'all':28s} {chunks:7,d} {deltas:7,d} {taken:12,d}{share}")


if __name__ == "__main__":
    main()
