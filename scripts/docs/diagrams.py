"""The diagrams of docs/diagrams, from their scenes: who talks to whom, in which order.

    python scripts/docs/diagrams.py            # writes them
    python scripts/docs/diagrams.py --check    # exit code 1 if one differs from its file

Always true: an SVG has its own background and both colour schemes, and needs no font or script.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "diagrams"
LANE, ROW, TOP, SIDE = 190, 36, 74, 92
STYLE = """
svg { --ground: #ffffff; --ink: #1f2328; --soft: #57606a; --line: #c4cad1; --box: #f3f5f7;
  --good: #0b7a6b; --bad: #b42318; }
@media (prefers-color-scheme: dark) { svg { --ground: #16181d; --ink: #e6e9ee; --soft: #a2abb8;
  --line: #454d59; --box: #22262e; --good: #4ecdb9; --bad: #ff8a7a; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.who { font-weight: 600; text-anchor: middle; } .mid { text-anchor: middle; }
.note { fill: var(--soft); font-style: italic; text-anchor: middle; }
.life { stroke: var(--line); stroke-width: 1.5; } .gone { stroke-dasharray: 2 5; }
.arrow { stroke: var(--good); stroke-width: 1.6; fill: none; } .head { fill: var(--good); }
.lost { stroke: var(--bad); } .dead { stroke: var(--bad); stroke-width: 3; fill: none; }
.box { fill: var(--box); stroke: var(--line); } .ground { fill: var(--ground); }
"""


@dataclass
class Scene:
    """A title, the lanes, and the rows below them, each of which is one step of time."""

    name: str
    title: str
    lanes: list[str]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def sends(self, sender: str, receiver: str, words: str) -> None:
        self.rows.append(("arrow", sender, receiver, words))

    def dies(self, lane: str, words: str) -> None:
        self.rows.append(("dies", lane, words))

    def lives(self, lane: str, words: str) -> None:
        self.rows.append(("lives", lane, words))

    def note(self, lane: str, words: str) -> None:
        self.rows.append(("note", lane, words))


def crash() -> Scene:
    scene = Scene(
        "crash",
        "A server dies in the middle of an answer",
        ["page", "server 1", "store", "server 2", "model"],
    )
    scene.sends("page", "server 1", "question")
    scene.sends("server 1", "model", "request")
    scene.sends("model", "server 1", "words")
    scene.sends("server 1", "store", "records 1 to 40")
    scene.sends("server 1", "page", "records 1 to 40")
    scene.dies("server 1", "kill -9")
    scene.sends("server 2", "store", "takes the run over")
    scene.sends("server 2", "model", "the same request again")
    scene.sends("model", "server 2", "words")
    scene.sends("server 2", "store", "41: step-reset, then words")
    scene.sends("page", "server 2", "after record 40?")
    scene.sends("server 2", "page", "41 to the end, each once")
    return scene


def reload() -> Scene:
    scene = Scene("reload", "A page reloads", ["page", "server", "store", "model"])
    scene.sends("model", "server", "words")
    scene.sends("server", "store", "records 1 to 40")
    scene.sends("server", "page", "records 1 to 40")
    scene.dies("page", "reload")
    scene.sends("model", "server", "words: the run goes on")
    scene.sends("server", "store", "records 41 to 90")
    scene.lives("page", "the page is back")
    scene.sends("page", "server", "after record 40?")
    scene.sends("store", "server", "records 41 to 90")
    scene.sends("server", "page", "41 to 90 at once, then live")
    return scene


def slow_reader() -> Scene:
    scene = Scene(
        "slow-reader",
        "One of two readers is slow",
        ["slow reader", "server", "store", "fast reader", "model"],
    )
    scene.sends("model", "server", "words, as fast as they come")
    scene.sends("server", "store", "records 1 to 500")
    scene.sends("server", "fast reader", "each record when it is stored")
    scene.sends("server", "slow reader", "records 1 to 60")
    scene.note("slow reader", "its socket is full")
    scene.note("server", "waits for this reader alone")
    scene.sends("model", "server", "words: nobody else waits")
    scene.sends("store", "server", "its next records")
    scene.sends("server", "slow reader", "61, 62, ... at its pace")
    scene.dies("slow reader", "30 s without reading: cut")
    scene.sends("model", "server", "words")
    scene.lives("slow reader", "it connects again")
    scene.sends("slow reader", "server", "after record 75?")
    scene.sends("server", "slow reader", "76, 77, ...")
    return scene


def draw(scene: Scene) -> str:
    at = {lane: SIDE + number * LANE for number, lane in enumerate(scene.lanes)}
    width = 2 * SIDE + (len(at) - 1) * LANE
    height = TOP + (len(scene.rows) + 1) * ROW + 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(scene.title)}">',
        f"<title>{escape(scene.title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
    ]
    for lane, x in at.items():
        begin = TOP - 12
        for number, row in enumerate(scene.rows):
            y = TOP + (number + 1) * ROW
            if row[0] in {"dies", "lives"} and row[1] == lane:
                style = "life" if row[0] == "dies" else "life gone"
                out.append(f'<path class="{style}" d="M{x} {begin}V{y}"/>')
                begin = y
        dead = [row[0] for row in scene.rows if row[0] in {"dies", "lives"} and row[1] == lane]
        style = "life gone" if dead and dead[-1] == "dies" else "life"
        out.append(f'<path class="{style}" d="M{x} {begin}V{height - 14}"/>')
        out.append(f'<rect class="box" x="{x - 62}" y="22" width="124" height="32" rx="6"/>')
        out.append(f'<text class="who" x="{x}" y="43">{escape(lane)}</text>')
    for number, row in enumerate(scene.rows):
        out += _row(row, at, TOP + (number + 1) * ROW)
    return "\n".join([*out, "</svg>"]) + "\n"


def _label(x: float, y: float, words: str, style: str) -> list[str]:
    """Words on a piece of the ground, so that no line runs through them."""
    half = len(words) * 3.4 + 5
    return [
        f'<rect class="ground" x="{x - half:g}" y="{y - 13}" width="{2 * half:g}" height="17"/>',
        f'<text class="{style}" x="{x:g}" y="{y}">{escape(words)}</text>',
    ]


def _row(row: tuple[str, ...], at: dict[str, int], y: int) -> list[str]:
    kind, *words = row
    if kind == "arrow":
        begin, end = at[words[0]], at[words[1]]
        way = 1 if end > begin else -1
        tip = end - way * 2
        return [
            *_label((begin + end) / 2, y - 6, words[2], "mid"),
            f'<path class="arrow" d="M{begin + way * 2} {y}H{tip - way * 8}"/>',
            f'<path class="head" d="M{tip} {y}l{-way * 10} -5v10z"/>',
        ]
    x = at[words[0]]
    if kind == "dies":
        cross = f'<path class="dead" d="M{x - 8} {y - 8}l16 16m0 -16l-16 16"/>'
        return [cross, *_label(x, y + 22, words[1], "note")]
    return _label(x, y, words[1], "note")


def main() -> int:
    drawn = {f"{scene.name}.svg": draw(scene) for scene in (crash(), reload(), slow_reader())}
    if "--check" in sys.argv:
        changed = [
            name
            for name, text in drawn.items()
            if not (FOLDER / name).is_file() or (FOLDER / name).read_text("utf-8") != text
        ]
        print("\n".join(f"{name} is not what scripts/docs/diagrams.py draws" for name in changed))
        return 1 if changed else 0
    FOLDER.mkdir(exist_ok=True)
    for name, text in drawn.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
