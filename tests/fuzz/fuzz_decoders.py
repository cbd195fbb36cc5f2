"""Coverage-guided fuzzing of every decoder: any bytes give events or a typed error, never a crash.

    python tests/fuzz/fuzz_decoders.py [-max_total_time=SECONDS] [CORPUS_DIR]

Without a directory the seeds are made in a temporary one, from the project's own cases and, when
it is there, from the shared corpus. The first byte of an input chooses the dialect and the content
type, the second how the rest is cut.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    import atheris

    from tokenwire.providers.registry import DIALECTS as MODULES

    for loaded in [m for m in sys.modules if m.startswith("tokenwire")]:
        del sys.modules[loaded]
    with atheris.instrument_imports(include=["tokenwire"]):
        for module in MODULES.values():
            import_module(module)

from tokenwire.errors import FramingError, ProtocolError  # noqa: E402 - instrumented first
from tokenwire.events.model import Error, Heartbeat, RunStart, StepStart  # noqa: E402
from tokenwire.events.order import Order  # noqa: E402
from tokenwire.framing.sse import encode_frame  # noqa: E402
from tokenwire.providers.registry import DIALECTS, FAMILIES, Registry  # noqa: E402
from tokenwire.providers.summary import facts  # noqa: E402

REGISTRY = Registry(env={})
NAMES = sorted(DIALECTS)
TYPES = (
    None,
    "text/event-stream",
    "application/json",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
)
CUTS = (1 << 30, 1, 2, 3, 7, 16, 61)
#: Of a recording this much makes a seed; longer ones only slow the fuzzer down.
MOST_SEED = 1500


def one_input(data: bytes) -> None:
    """Decode one input whole and cut; check what is always true."""
    if len(data) < 2:
        return
    name = NAMES[data[0] % len(NAMES)]
    content_type = TYPES[data[0] // len(NAMES) % len(TYPES)]
    size, body = CUTS[data[1] % len(CUTS)], data[2:]
    whole = run(name, content_type, [body])
    cut = run(name, content_type, [body[i : i + size] for i in range(0, len(body), size)])
    if whole is not None and cut is not None:
        assert plain(whole) == plain(cut), (name, content_type, size)


def run(name: str, content_type: str | None, pieces: list[bytes]) -> list[Any] | None:
    """All events in order, or None when a typed error was raised."""
    decoder = REGISTRY.dialect(name).decoder(content_type=content_type)
    found: list[Any] = []
    raised = False
    try:
        for piece in pieces:
            found += decoder.feed(piece)
        found += decoder.finish()
    except (FramingError, ProtocolError) as error:
        raised = True
        found += decoder.finish(Error(scope="parse", code=error.code, message=error.message))
    order = Order()
    order.check(RunStart(run="r"))
    order.check(StepStart(step=1))
    for event in found:
        if not isinstance(event, Heartbeat):
            order.check(event)
    facts(found)
    return None if raised else found


def plain(found: list[Any]) -> str:
    """Facts as comparable text; NaN is equal to itself here."""
    return repr(facts(found))


def seeds() -> list[bytes]:
    """Inputs to begin with: every case and the heads of recordings, each for its dialect."""
    made: list[bytes] = []
    cases = json.loads((ROOT / "conformance" / "providers" / "chat.json").read_text())["cases"]
    for case in cases:
        body = case.get("raw", "").encode() or b"".join(
            encode_frame(p if isinstance(p, str) else json.dumps(p))
            for p in case.get("payloads", ())
        )
        made.append(head("openai-chat", 0) + body[:MOST_SEED])
    if CORPUS.exists():
        entries = json.loads((CORPUS / "manifest.json").read_text())["recordings"]
        for number, entry in enumerate(entries):
            kind = 4 if entry["framing"] == "aws-eventstream" else 0
            body = (CORPUS / entry["file"]).read_bytes()
            made.append(head(FAMILIES[entry["family"]], kind, number) + body[:MOST_SEED])
    return made


def head(dialect: str, content_type: int, cut: int = 1) -> bytes:
    """The two bytes that choose."""
    first = NAMES.index(dialect) + content_type * len(NAMES)
    return bytes([first, cut % len(CUTS)])


def main() -> None:
    """Fuzz until told to stop, or until something breaks."""
    arguments = list(sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        if all(a.startswith("-") for a in arguments[1:]):
            for number, seed in enumerate(seeds()):
                Path(folder, f"seed{number:04}").write_bytes(seed)
            arguments.append(folder)
        arguments += ["-max_len=4096", f"-artifact_prefix={tempfile.gettempdir()}/"]
        atheris.Setup(arguments, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
