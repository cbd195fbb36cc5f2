"""A model's text on the screen while it arrives: rendered as Markdown, or plain.

Always true: every character reaches the screen, in order; control characters are inert; a finished
block is drawn exactly once, so that long answers stay cheap.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, Final, Protocol

from tokenwire.cli.terminal import Out

__all__ = ["MarkdownPrinter", "PlainPrinter", "Printer", "printer"]

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
#: Levels of nesting that are drawn (a list has two): beyond, the parser and the width of a terminal
#: would lose text, so it is printed as it is.
_MOST_LEVELS: Final = 16
#: Redraws of the open block per second.
_REFRESH: Final = 12


class Printer(Protocol):
    """Prints one answer."""

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
        """End the answer; the cursor is at the start of a line."""
        ...


def printer(out: Out, *, plain: bool) -> Printer:
    """The printer for standard output: Markdown on a terminal, else plain."""
    return PlainPrinter(out) if plain or not out.is_terminal else MarkdownPrinter(out)


class PlainPrinter:
    """Plain text. A pipe receives the answer only; the rest goes to standard error."""

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
        print(self._out.clean_aside(line), file=sys.stderr, flush=True)

    def reasoning(self, piece: str) -> None:
        if self._out.is_terminal:
            sys.stderr.write(self._out.clean_aside(piece))
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
    """Draws a finished block as Markdown once, and redraws the open one while it grows."""

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
        """The part of the open block that fits; called only to draw it."""
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
    """A renderable without trailing blanks. Terminals differ in the width of an emoji: a line
    padded to the last column wraps in some of them and is not erased by the next redraw."""

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
    """Whether its blanks are visible."""
    return segment.style is not None and segment.style.bgcolor is not None


def _markdown(text: str) -> Any:
    """Markdown with HTML as text (rich would drop it) and a link's target printed beside its
    words."""
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown
    from rich.text import Text

    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 4 * _MOST_LEVELS})
    tokens = parser.enable(["strikethrough", "table"]).parse(text)
    if any(token.level > _MOST_LEVELS for token in tokens):
        return Text(text)
    rendered = Markdown("", hyperlinks=False)
    rendered.markup, rendered.parsed = text, tokens
    return rendered


class Blocks:
    """Cuts growing Markdown at blank lines outside of code fences. Pure."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._pieces: list[str] = []
        self._fence: str | None = None

    def push(self, piece: str) -> list[str]:
        """The blocks that this piece completes."""
        blocks: list[str] = []
        *lines, rest = piece.split("\n")
        for line in lines:
            whole = "".join([*self._pieces, line])
            self._pieces.clear()
            self._lines.append(whole)
            if self._ends(whole):
                blocks.append("\n".join(self._lines))
                self._lines.clear()
        if rest:
            self._pieces.append(rest)
        return blocks

    @property
    def open(self) -> str:
        """The incomplete block."""
        return "\n".join([*self._lines, "".join(self._pieces)])

    def finish(self) -> list[str]:
        """The block that is still open, if any."""
        remaining = self.open
        self._lines.clear()
        self._pieces.clear()
        self._fence = None
        return [remaining] if remaining.strip() else []

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
        return not line.strip() and len(self._lines) > 1
