"""Where each file of the repository stands on the site, and its Markdown with links that fit.

Always true: a link of a staged page leads to a staged file, or is plain text; a link to a file that
does not exist raises `LinkError`. Code blocks are not touched, except for words behind their
language, which are for the tests.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

#: Pages outside of docs/ that the site has.
OTHER_PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "deploy/README.md",
    "examples/app/README.md",
)
_FENCE = re.compile(r"^( *)(`{3,})([\w-]*)[^\n]*\n(.*?)^ *\2`*[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?:(?!\1).)+?\1", re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*([^()\s]+)\s*\)")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


class LinkError(Exception):
    """A page links to what does not exist; the text names both."""


def place_of(source: str) -> str:
    """The site's path of a file, both relative to their roots."""
    if source == "README.md":
        return "index.md"
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    return f"{'project' if source.endswith('.md') else 'files'}/{source}"


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """``text`` with its prose changed and its code blocks as they are, less their notes."""
    out, end = [], 0
    for match in _FENCE.finditer(text):
        out += [change(text[end : match.start()])]
        indent, fence, language, body = match.groups()
        out += [f"{indent}{fence}{language or 'text'}\n{body}{indent}{fence}"]
        end = match.end()
    return "".join([*out, change(text[end:])])


def with_links(text: str, change: Callable[[str, str, str], str]) -> str:
    """``change`` gets image mark, words and target of every link outside code."""

    def prose(part: str) -> str:
        spans: list[str] = []

        def hide(match: re.Match[str]) -> str:
            spans.append(match[0])
            return f"\x00{len(spans) - 1}\x00"

        hidden = _CODE.sub(hide, part)
        linked = _LINK.sub(lambda match: change(match[1], match[2], match[3]), hidden)
        return re.sub(r"\x00(\d+)\x00", lambda match: spans[int(match[1])], linked)

    return outside_code(text, prose)


def is_external(target: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*:", target) is not None


class Stage:
    """The folder that the generator reads."""

    def __init__(self, root: Path, target: Path) -> None:
        self.root = root
        self.target = target
        docs = sorted(path for path in (root / "docs").rglob("*") if path.is_file())
        self.sources = ["README.md", *(path.relative_to(root).as_posix() for path in docs)]
        self.sources += [name for name in OTHER_PAGES if (root / name).is_file()]
        self._files: set[str] = set()

    def pages(self) -> list[str]:
        """The site's paths of all pages."""
        return [place_of(name) for name in self.sources if name.endswith(".md")]

    def write(self) -> None:
        for source in self.sources:
            place = self.target / place_of(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.endswith(".md"):
                text = (self.root / source).read_text(encoding="utf-8")
                place.write_text(self.page(source, text), encoding="utf-8")
            else:
                shutil.copyfile(self.root / source, place)
        for source in sorted(self._files):
            place = self.target / place_of(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / source, place)

    def page(self, source: str, text: str) -> str:
        """The staged Markdown of a page; what it links to is staged as well."""
        text = _COMMENT.sub("", text)
        return with_links(text, lambda *link: self._link(source, *link))

    def _link(self, source: str, image: str, words: str, target: str) -> str:
        path, mark, anchor = target.partition("#")
        if is_external(target) or not path:
            return f"{image}[{words}]({target})"
        aim = os.path.normpath(PurePosixPath(source).parent / path)
        found = self.root / aim
        if not found.exists():
            raise LinkError(f"{source} links to {target}, which does not exist")
        if found.is_dir():
            if f"{aim}/README.md" not in self.sources:
                return words
            aim = f"{aim}/README.md"
        elif aim not in self.sources:
            self._files.add(aim)
            if aim.endswith(".md"):
                raise LinkError(f"{source} links to {target}, a page that the site does not have")
        relative = os.path.relpath(place_of(aim), PurePosixPath(place_of(source)).parent)
        return f"{image}[{words}]({relative}{mark}{anchor})"
