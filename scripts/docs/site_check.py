"""What a built site must be: every link and anchor leads somewhere, nothing comes from elsewhere.

Always true: it reads files only; the list of what is wrong is complete and not the first of many.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from site_pages import with_links

#: Attributes that make a browser fetch something, by tag.
_FETCHED = {
    "audio": ["src"],
    "embed": ["src"],
    "iframe": ["src"],
    "image": ["href", "xlink:href"],
    "img": ["src", "srcset"],
    "input": ["src"],
    "link": ["href"],
    "object": ["data"],
    "script": ["src"],
    "source": ["src", "srcset"],
    "track": ["src"],
    "use": ["href", "xlink:href"],
    "video": ["src", "poster"],
}
#: Relations of `link` that name something and fetch nothing.
_NAMES_ONLY = {"canonical", "next", "prev", "alternate", "edit"}
_IN_STYLE = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        for name in ("id", "name"):
            if values.get(name) and (name == "id" or tag == "a"):
                self.anchors.add(values[name])
        if tag in {"a", "area"} and "href" in values:
            self.links.append(values["href"])
        self._style = tag == "style"
        if "style" in values:
            self._styles(values["style"])
        if tag == "link" and set(values.get("rel", "").split()) <= _NAMES_ONLY:
            return
        for name in _FETCHED.get(tag, ()):
            if name == "srcset" and name in values:
                self.fetched += [
                    part.split()[0] for part in values[name].split(",") if part.split()
                ]
            elif name in values:
                self.fetched.append(values[name])

    def handle_data(self, data: str) -> None:
        if self._style:
            self._styles(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._style = False

    def _styles(self, text: str) -> None:
        self.fetched += [a or b for a, b in _IN_STYLE.findall(text)]


def read(path: Path) -> _Reader:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in {"", "data"}


def headings(text: str) -> set[str]:
    """The anchors of a Markdown page, as the sites that show Markdown make them."""
    names: set[str] = set()
    for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)
        names.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return names


def problems(site: Path) -> list[str]:
    """One line for everything that is wrong with the site in this folder."""
    found: list[str] = []
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    for page, reader in pages.items():
        name = page.relative_to(site)
        for address in reader.fetched:
            if is_elsewhere(address):
                found.append(f"{name}: fetches {address}")
            elif urlsplit(address).path and not _aim(site, page, address).is_file():
                found.append(f"{name}: fetches {address}, which does not exist")
        for link in reader.links:
            if urlsplit(link).scheme or urlsplit(link).netloc:
                continue
            aim = _aim(site, page, link)
            anchor = unquote(urlsplit(link).fragment)
            if not aim.is_file():
                found.append(f"{name}: links to {link}, which does not exist")
            elif anchor and aim.suffix == ".html" and anchor not in pages[aim].anchors:
                found.append(f"{name}: links to {link}, which has no such anchor")
    for style in sorted(site.rglob("*.css")):
        for a, b in _IN_STYLE.findall(style.read_text(encoding="utf-8")):
            if is_elsewhere(a or b):
                found.append(f"{style.relative_to(site)}: fetches {a or b}")
    return found + _twins(site)


def _aim(site: Path, page: Path, link: str) -> Path:
    path = unquote(urlsplit(link).path)
    if not path:
        return page
    base = site if path.startswith("/") else page.parent
    aim = Path(os.path.normpath(base / path.lstrip("/")))
    return aim / "index.html" if aim.is_dir() else aim


def _twins(site: Path) -> list[str]:
    found: list[str] = []
    for twin in [*sorted(site.rglob("*.md")), site / "llms.txt"]:
        name = twin.relative_to(site)
        if not twin.is_file():
            found.append(f"{name}: does not exist")
            continue

        def link(image: str, words: str, target: str, twin: Path = twin, name: Path = name) -> str:
            if urlsplit(target).scheme:
                return ""
            aim = _aim(site, twin, target)
            if not aim.is_file():
                found.append(f"{name}: links to {target}, which does not exist")
            return ""

        with_links(twin.read_text(encoding="utf-8"), link)
    for page in sorted(site.rglob("index.html")):
        if not page.with_name("index.md").is_file():
            found.append(f"{page.relative_to(site)}: has no plain Markdown beside it")
    return found
