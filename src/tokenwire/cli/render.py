"""Text of a model to the screen, word by word: drawn as Markdown, or as it comes.

Always true: every character reaches the screen, in order; what is drawn was made inert first; a
block that is finished is drawn once and never again, so that long answers stay cheap.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, Final, Protocol

from tokenwire.cli.terminal import Out

__all__ = ["MarkdownPrinter", "PlainPrinter", "Printer", "printer"]

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
#: Redraws of the open block a second; faster than people read.
_REFRESH: Final = 12


class Printer(Protocol):
    """Takes the text of an answer."""

    def text(self, piece: str) -> None:
        """The next piece of the answer."""
        ...

    def aside(self, line: str) -> None:
        """A line of ours between the text: a tool call, progress."""
        ...

    def reasoning(self, piece: str) -> None:
        """The next piece of reasoning."""
        ...

    def finish(self) -> None:
        """The answer is over; the cursor is left at the begin of a line."""
        ...


def printer(out: Out, *, plain: bool) -> Printer:
    """How text is best shown where standard output goes."""
    return PlainPrinter(out) if plain or not out.is_terminal else MarkdownPrinter(out)


class PlainPrinter:
    """As it comes. Into a pipe goes the answer alone; the rest is told on standard error."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._at_start = True
        self._thinking = False

    def text(self, piece: str) -> None:
        if piece:
            self._end_reasoning()
            self._out.write(piece)
            self._at_start = piece.endswith("\n")

    def aside(self, line: str) -> None:
        self._end_reasoning()
        if self._out.is_terminal and not self._at_start:
            self._out.write("\n")
            self._at_start = True
        print(self._out.clean(line), file=sys.stderr, flush=True)

    def reasoning(self, piece: str) -> None:
        if self._out.is_terminal:
            sys.stderr.write(self._out.clean(piece))
            sys.stderr.flush()
            self._thinking = True

    def finish(self) -> None:
        self._end_reasoning()
        if not self._at_start:
            self._out.write("\n")
            self._at_start = True

    def _end_reasoning(self) -> None:
        if self._thinking:
            sys.stderr.write("\n\n")
            sys.stderr.flush()
            self._thinking = False


class MarkdownPrinter:
    """Draws finished blocks as Markdown for good, and the open one again while it grows."""

    def __init__(self, out: Out) -> None:
        from rich.console import Console
        from rich.live import Live

        self._out = out
        self._console = Console(highlight=False)
        self._make_live = Live
        self._live: Any = None
        self._blocks = Blocks()
        self._thought = ""

    def text(self, piece: str) -> None:
        self._show_thought()
        for block in self._blocks.push(self._out.clean(piece)):
            self._stop_live()
            self._draw(block)
        self._update()

    def aside(self, line: str) -> None:
        self._flush()
        self._console.print(self._out.clean(line), style="dim", markup=False)

    def reasoning(self, piece: str) -> None:
        self._thought += self._out.clean(piece)
        *lines, self._thought = self._thought.split("\n")
        for line in lines:
            self._console.print(line, style="dim italic", markup=False)

    def finish(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self._show_thought()
        self._stop_live()
        for block in self._blocks.finish():
            self._draw(block)

    def _show_thought(self) -> None:
        if self._thought:
            self._console.print(self._thought, style="dim italic", markup=False)
            self._thought = ""

    def _draw(self, block: str) -> None:
        if block.strip():
            self._console.print(_Ragged(_markdown(block)))
            self._console.print()

    def _update(self) -> None:
        if not self._blocks.open.strip():
            return
        if self._live is None:
            self._live = self._make_live(
                console=self._console,
                transient=True,
                refresh_per_second=_REFRESH,
                get_renderable=self._preview,
            )
            self._live.start()

    def _preview(self) -> Any:
        """The open block as far as it fits; called only when it is drawn."""
        from rich.text import Text

        block = self._blocks.open
        room = max(3, self._console.height - 4)
        width = max(20, self._console.width)
        lines = block.split("\n")
        if sum(1 + len(line) // width for line in lines) <= room:
            return _Ragged(_markdown(block))
        return Text("\n".join(lines[-room:])[-room * width // 2 :])

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Ragged:
    """A renderable without the blanks that fill its lines. Terminals differ in how wide an emoji
    is: a line that is filled to the last column wraps in some, and what is drawn over it stays."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.segment import Segment

        for line in console.render_lines(self._inner, options, pad=False):
            while line and not line[-1].text.strip(" ") and not _has_ground(line[-1]):
                line.pop()
            if line and not _has_ground(line[-1]):
                line[-1] = Segment(line[-1].text.rstrip(" "), line[-1].style)
            yield from line
            yield Segment.line()


def _has_ground(segment: Any) -> bool:
    """Whether blanks of it can be seen."""
    return segment.style is not None and segment.style.bgcolor is not None


def _markdown(text: str) -> Any:
    """Markdown in which HTML is text (rich would leave it out), and in which a link's target
    stands beside its words, where it can be read."""
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown

    found = Markdown(text, hyperlinks=False)
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    found.parsed = parser.parse(text)
    return found


class Blocks:
    """Cuts growing Markdown at blank lines outside of code fences. Pure."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._pieces: list[str] = []
        self._fence: str | None = None

    def push(self, piece: str) -> list[str]:
        """The blocks that this piece finished."""
        found: list[str] = []
        *lines, rest = piece.split("\n")
        for line in lines:
            whole = "".join([*self._pieces, line])
            self._pieces.clear()
            self._done.append(whole)
            if self._ends(whole):
                found.append("\n".join(self._done))
                self._done.clear()
        if rest:
            self._pieces.append(rest)
        return found

    @property
    def open(self) -> str:
        """The block that is still growing."""
        return "\n".join([*self._done, "".join(self._pieces)])

    def finish(self) -> list[str]:
        """What is left."""
        left = self.open
        self._done.clear()
        self._pieces.clear()
        self._fence = None
        return [left] if left.strip() else []

    def _ends(self, line: str) -> bool:
        match = _FENCE.match(line)
        if self._fence is not None:
            closing = match and match[1].startswith(self._fence) and not line.strip(" `~")
            if closing:
                self._fence = None
            return bool(closing)
        if match:
            self._fence = match[1]
            return False
        return not line.strip() and len(self._done) > 1
