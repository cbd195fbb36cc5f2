"""What does it cost to say one event on each wire? CPU microseconds per text delta, medians.

python benchmarks/encode.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from tokenwire.events import codec
from tokenwire.events import model as m
from tokenwire.relay.record import Chain, cursor_of, json_of
from tokenwire.server.edge.encoding.batches import BatchEncoder
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.anthropic.encoder import AnthropicEncoder
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.openai.chat import OpenAIChatEncoder
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder
from tokenwire.wire.token_sse import TokenEncoder

COUNT, ROUNDS = 20_000, 5
HEAD = [
    m.RunStart(run="r" * 22, seq=1, time=1_700_000_000_000, model="demo"),
    m.StepStart(step=1, seq=2),
    m.TextStart(part=0, step=1, seq=3),
]
DELTAS = [m.TextDelta(part=0, text=f" word{n}", seq=n + 4, t=n) for n in range(COUNT)]


def per_event(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        times.append((time.process_time() - begin) / COUNT * 1e6)
    return statistics.median(times)


def wire(make: Callable[[], object]) -> Callable[[], object]:
    def work() -> None:
        encoder = make()
        for event in HEAD:
            encoder.encode(event, "1-0123456789abcdef")  # type: ignore[attr-defined]
        encode = encoder.encode  # type: ignore[attr-defined]
        for event in DELTAS:
            encode(event, "17-0123456789abcdef")

    return work


def reader(make: Callable[[], object]) -> Callable[[], object]:
    """Records to bytes, one by one, as they come while a run is written."""
    records = Chain("r").seal_all([*HEAD, *DELTAS])

    def work() -> None:
        one = BatchEncoder(make(), 0, None).encode_one  # type: ignore[arg-type]
        for offset, record in enumerate(records, 1):
            one(offset, record)

    return work


def main() -> None:
    records = [Chain("r").seal(event) for event in DELTAS]
    rows: list[tuple[str, Callable[[], object]]] = [
        ("event to JSON", lambda: [codec.encode(e) for e in DELTAS]),
        ("event to chained record", lambda: [Chain("r").seal(e) for e in DELTAS]),
        ("record to cursor and JSON", lambda: [(cursor_of(1, r), json_of(r)) for r in records]),
        ("JSON to event", lambda: [codec.decode(json_of(r)) for r in records]),
        ("native", wire(NativeEncoder)),
        ("token/done", wire(lambda: TokenEncoder("r" * 22))),
        ("AI SDK UI messages", wire(UIMessageEncoder)),
        ("AG-UI", wire(AGUIEncoder)),
        ("OpenAI chat chunks", wire(OpenAIChatEncoder)),
        *(
            (f"record to {name}", reader(make))
            for name, make in {
                "native": NativeEncoder,
                "token/done": lambda: TokenEncoder("r" * 22),
                "AI SDK": UIMessageEncoder,
                "AG-UI": AGUIEncoder,
                "OpenAI chat": OpenAIChatEncoder,
                "OpenAI Responses": OpenAIResponsesEncoder,
                "Anthropic": AnthropicEncoder,
            }.items()
        ),
    ]
    for name, work in rows:
        print(f"{name:28s} {per_event(work):6.2f} us")


if __name__ == "__main__":
    main()
