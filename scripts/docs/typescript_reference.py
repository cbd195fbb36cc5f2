"""The TypeScript reference as Markdown pages: TypeDoc reads the entries that packages export.

Always true: the pages are those of ``exports`` in each package.json, so that a new entry is there
by itself; an error of TypeDoc ends the build.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("client", "react")
_HERE = Path(__file__).parent
_FIRST_COMMENT = re.compile(r"/\*+\s*(.*?)\*/", re.DOTALL)


@dataclass
class Entry:
    """What one import path gives: ``@tokenwire/client/ai``, as ``client-ai.md``."""

    name: str
    source: Path

    @property
    def module(self) -> str:
        return self.name.removeprefix("@tokenwire/").replace("/", "-")

    @property
    def file(self) -> str:
        return f"{self.module}.md"


def entries(root: Path) -> list[Entry]:
    found = []
    for package in PACKAGES:
        folder = root / "packages" / package
        for path, aim in json.loads((folder / "package.json").read_text())["exports"].items():
            if isinstance(aim, dict):
                inside = aim["types"].removeprefix("./dist/").removesuffix(".d.ts")
                (source,) = [
                    folder / "src" / f"{inside}{end}"
                    for end in (".ts", ".tsx")
                    if (folder / "src" / f"{inside}{end}").is_file()
                ]
                found.append(Entry(f"@tokenwire/{package}{path.removeprefix('.')}", source))
    return found


def opening(source: Path) -> str:
    """What the first comment of a source says, as prose."""
    match = _FIRST_COMMENT.match(source.read_text(encoding="utf-8"))
    return match[1].strip() if match else ""


def write(root: Path, work: Path, target: Path) -> list[Entry]:
    """The pages in ``target``; ``work`` is a folder for what TypeDoc reads."""
    found = entries(root)
    work.mkdir(parents=True, exist_ok=True)
    for entry in found:
        text = (
            f'/** @module {entry.module} */\nexport * from "{entry.source.with_suffix(".js")}";\n'
        )
        (work / f"{entry.module}.ts").write_text(text)
    settings = {
        "extends": str(root / "packages" / "react" / "tsconfig.json"),
        "compilerOptions": {
            "noEmit": True,
            "types": ["node", "react"],
            "typeRoots": [str(root / "node_modules" / "@types")],
        },
        "include": [str(work / "*.ts")],
    }
    (work / "tsconfig.json").write_text(json.dumps(settings))
    options = {
        "plugin": ["typedoc-plugin-markdown"],
        "entryPoints": [str(work / f"{entry.module}.ts") for entry in found],
        "tsconfig": str(work / "tsconfig.json"),
        "out": str(target),
        "readme": "none",
        "outputFileStrategy": "modules",
        "disableSources": True,
        "excludePrivate": True,
        "excludeInternal": True,
        "hideBreadcrumbs": True,
        "hidePageHeader": True,
        "hidePageTitle": False,
        "hideGroupHeadings": True,
        "useCodeBlocks": True,
        "expandObjects": False,
        "parametersFormat": "table",
        "interfacePropertiesFormat": "table",
        "classPropertiesFormat": "table",
        "typeDeclarationFormat": "table",
        "propertyMembersFormat": "table",
        "enumMembersFormat": "table",
        "tableColumnSettings": {"hideSources": True, "hideInherited": True, "hideOverrides": True},
        "sanitizeComments": True,
        # `npm run check` is what checks types, with the compiler of the packages.
        "skipErrorChecking": True,
        "logLevel": "Warn",
        "pageTitleTemplates": {"module": "{name}"},
    }
    (work / "typedoc.json").write_text(json.dumps(options))
    subprocess.run(
        [_HERE / "node_modules" / ".bin" / "typedoc", "--options", work / "typedoc.json"],
        check=True,
        cwd=_HERE,
    )
    (target / "README.md").unlink(missing_ok=True)
    pages = {
        entry.file: page_text(entry, (target / entry.file).read_text(encoding="utf-8"))
        for entry in found
    }
    anchors = {file: anchors_of(text) for file, text in pages.items()}
    for file, text in pages.items():
        (target / file).write_text(with_real_links(text, file, anchors), encoding="utf-8")
    return found


def page_text(entry: Entry, text: str) -> str:
    body = re.sub(r"\A# [^\n]*\n", "", text).lstrip("\n")
    note = opening(entry.source)
    return f"# `{entry.name}`\n\n{note}\n\n{with_anchors(body)}"


def slug_of(heading: str) -> str:
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def anchors_of(text: str) -> set[str]:
    """The anchors of a page whose headings `with_anchors` has been through."""
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        match = re.search(r"\{ #([\w-]+) \}$", heading)
        found.add(match[1] if match else slug_of(heading))
    return found


def with_real_links(text: str, file: str, anchors: dict[str, set[str]]) -> str:
    """TypeDoc numbers anchors of what has no heading as well: a link to ``x-1`` that nobody has
    leads to ``x``."""

    def change(match: re.Match[str]) -> str:
        page, anchor = match[1], match[2]
        known = anchors.get(page or file, set())
        if anchor not in known and re.sub(r"-\d+$", "", anchor) in known:
            anchor = re.sub(r"-\d+$", "", anchor)
        return f"]({page}#{anchor})"

    return re.sub(r"\]\(([\w.-]*)#([\w-]+)\)", change, text)


def with_anchors(text: str) -> str:
    """Headings of equal words get the anchors that TypeDoc's links name: ``x``, ``x-1``, ..."""
    seen: Counter[str] = Counter()
    out = []
    for line in text.splitlines():
        match = re.match(r"#+ (.*)$", line)
        if match:
            slug = slug_of(match[1])
            out.append(f"{line} {{ #{slug}-{seen[slug]} }}" if seen[slug] else line)
            seen[slug] += 1
        else:
            out.append(line)
    return "\n".join(out) + "\n"
