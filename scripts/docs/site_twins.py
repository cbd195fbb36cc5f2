"""The site for programs: every page as plain Markdown beside its HTML, and ``llms.txt``.

Always true: a twin's links lead to twins; ``llms.txt`` names every page of the site once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from site_pages import is_external, with_links

_SENTENCE = re.compile(r"(.+?\.)(?=\s|$)", re.DOTALL)


def twin_of(page: str) -> str:
    """``guide/tools.md`` -> ``guide/tools/index.md``, beside its ``index.html``."""
    path = PurePosixPath(page)
    if path.name in {"index.md", "README.md"}:
        return str(path.parent / "index.md")
    return str(path.with_suffix("") / "index.md")


def twin_text(page: str, text: str) -> str:
    """The Markdown of a page with links that fit where its twin is."""

    def link(image: str, words: str, target: str) -> str:
        path, mark, anchor = target.partition("#")
        if is_external(target) or not path:
            return f"{image}[{words}]({target})"
        aim = os.path.normpath(PurePosixPath(page).parent / path)
        aim = twin_of(aim) if aim.endswith(".md") else aim
        relative = os.path.relpath(aim, PurePosixPath(twin_of(page)).parent)
        return f"{image}[{words}]({relative}{mark}{anchor})"

    # `{ #anchor }` is the generator's and not Markdown's.
    return re.sub(r"^(#+ .*?) \{ #[\w-]+ \}$", r"\1", with_links(text, link), flags=re.MULTILINE)


def title_of(text: str) -> str:
    match = re.search(r"^# (.+)$", text, re.MULTILINE)
    return match[1].replace("`", "").strip() if match else ""


def summary_of(text: str) -> str:
    """The first sentence of the first paragraph."""
    for part in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        line = " ".join(part.split())
        if line and not re.match(r"[#|<>*!-]|\d+\.|::|```", line):
            plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", line)
            match = _SENTENCE.match(plain)
            return (match[1] if match else plain).rstrip(":")
    return ""


def leaves(nav: list[object], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(sections, page) of a navigation, in its order."""
    for item in nav:
        assert isinstance(item, dict)
        for title, inner in item.items():
            if isinstance(inner, str):
                yield path, inner
            else:
                yield from leaves(inner, (*path, title))


def with_all(nav: list[object], pages: list[str]) -> list[object]:
    """The navigation with those pages at its end that it does not name."""
    named = {page for _, page in leaves(nav)}
    more: list[object] = [
        {page.removesuffix(".md").rpartition("/")[2].replace("-", " ").capitalize(): page}
        for page in pages
        if page not in named
    ]
    return [*nav, {"More": more}] if more else nav


def llms_txt(name: str, summary: str, nav: list[object], texts: dict[str, str], base: str) -> str:
    """The index that https://llmstxt.org describes; ``base`` precedes every address."""
    lines = [f"# {name}", "", f"> {summary}"]
    section: tuple[str, ...] | None = None
    for path, page in leaves(nav):
        if path != section:
            section = path
            lines += ["", f"## {': '.join(path)}", ""]
        words = summary_of(texts[page])
        end = f": {words}" if words else ""
        lines.append(f"- [{title_of(texts[page])}]({base}{twin_of(page)}){end}")
    return "\n".join(lines) + "\n"


def write(site: Path, name: str, summary: str, nav: list[object], source: Path, base: str) -> None:
    pages = [page for _, page in leaves(nav)]
    texts = {page: (source / page).read_text(encoding="utf-8") for page in pages}
    for page, text in texts.items():
        (site / twin_of(page)).write_text(twin_text(page, text), encoding="utf-8")
    index = llms_txt(name, summary, nav, texts, base)
    (site / "llms.txt").write_text(index, encoding="utf-8")
    full = "\n\n".join(twin_text("index.md", texts[page]) for page in pages)
    (site / "llms-full.txt").write_text(full, encoding="utf-8")
