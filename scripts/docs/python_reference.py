"""The Python reference as Markdown pages, from signatures and docstrings.

Always true: nothing of tokenwire is imported or run (griffe reads the source); every name of
``__all__`` has an entry with an anchor of its own name; a name that another page already describes
is linked there and not repeated.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import griffe

#: Module -> what its page begins with, where its own docstring speaks to those who change it.
MODULES = {
    "tokenwire": "",
    "tokenwire.sync": "",
    "tokenwire.server": "",
    "tokenwire.client": "",
    "tokenwire.testing": "",
    "tokenwire.events": "",
    "tokenwire.errors": "",
}
_WIDTH = 88


@dataclass
class Page:
    """One module: its file name and its text."""

    module: str
    text: str
    names: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        return f"{self.module.replace('.', '-')}.md"


def resolved(module: griffe.Module, name: str) -> griffe.Object:
    """What a name of ``__all__`` stands for, through any number of imports."""
    member = module.members[name]
    return member.final_target if isinstance(member, griffe.Alias) else member


def public_names(module: griffe.Module) -> list[str]:
    return [str(name) for name in module.exports or [] if not str(name).startswith("__")]


def signature(function: griffe.Function, name: str, *, method: bool) -> str:
    """The definition as it stands in the source, one parameter per line if it is long."""
    words: list[str] = []
    kinds = griffe.ParameterKind
    seen_star = False
    for number, parameter in enumerate(function.parameters):
        if method and number == 0 and parameter.name in {"self", "cls"}:
            continue
        star = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(parameter.kind, "")
        if parameter.kind is kinds.var_positional:
            seen_star = True
        if parameter.kind is kinds.keyword_only and not seen_star:
            words.append("*")
            seen_star = True
        word = star + parameter.name
        if parameter.annotation is not None:
            word += f": {parameter.annotation}"
        if parameter.default is not None and not star:
            word += f" = {parameter.default}" if parameter.annotation else f"={parameter.default}"
        words.append(word)
    begin = "async def" if "async" in function.labels else "def"
    result = f" -> {function.returns}" if function.returns is not None else ""
    line = f"{begin} {name}({', '.join(words)}){result}"
    if len(line) <= _WIDTH:
        return line
    inside = "".join(f"    {word},\n" for word in words)
    return f"{begin} {name}(\n{inside}){result}".replace("*,\n", "*,\n")


def fields(owner: griffe.Class) -> list[str]:
    """The annotated fields of a struct or dataclass: ``name: type = default``."""
    lines = []
    for attribute in owner.members.values():
        if not isinstance(attribute, griffe.Attribute) or attribute.name.startswith("_"):
            continue
        if attribute.annotation is None:
            continue
        value = "" if attribute.value is None else f" = {attribute.value}"
        lines.append(f"{attribute.name}: {attribute.annotation}{value}")
    return lines


class Reference:
    """All pages; ``homes`` says on which page a name is described."""

    def __init__(self, source: Path) -> None:
        loader = griffe.GriffeLoader(search_paths=[source])
        package = loader.load("tokenwire")
        loader.resolve_aliases(implicit=True, external=False)
        assert isinstance(package, griffe.Module)
        self.modules = {
            name: package if name == "tokenwire" else package[name.partition(".")[2]]
            for name in MODULES
        }
        self.homes: dict[str, tuple[str, str]] = {}  # path of the object -> page, name
        self.words: dict[str, tuple[str, str]] = {}  # name, as docstrings say it -> page, anchor
        for module, source_module in self.modules.items():
            page = module.replace(".", "-") + ".md"
            for name in public_names(source_module):
                item = resolved(source_module, name)
                if item.path in self.homes:
                    continue
                self.homes[item.path] = (page, name)
                self.words.setdefault(name, (page, name))
                if isinstance(item, griffe.Class):
                    for method in methods(item):
                        self.words.setdefault(
                            f"{name}.{method.name}", (page, f"{name}.{method.name}")
                        )

    def pages(self) -> list[Page]:
        return [self._page(name) for name in MODULES]

    def prose(self, text: str, page: str) -> str:
        """A docstring as Markdown: literal blocks are fenced, public names are links."""
        parts: list[str] = []
        lines = textwrap.dedent(text).strip("\n").splitlines()
        number = 0
        while number < len(lines):
            line = lines[number]
            if line.rstrip().endswith("::") and not line.lstrip().startswith("::class"):
                begin = line.rstrip()[:-2].rstrip()
                if begin:
                    parts.append(f"{begin}:")
                indent = len(line) - len(line.lstrip())
                number += 1
                block: list[str] = []
                while number < len(lines) and (
                    not lines[number].strip()
                    or len(lines[number]) - len(lines[number].lstrip()) > indent
                ):
                    block.append(lines[number])
                    number += 1
                code = textwrap.dedent("\n".join(block)).strip("\n")
                parts += ["", f"```{language_of(code)}", code, "```", ""]
                continue
            parts.append(self._inline(line, page))
            number += 1
        return "\n".join(parts).strip("\n")

    def _inline(self, line: str, page: str) -> str:
        def link(match: re.Match[str]) -> str:
            word = match[2]
            bare = word.removesuffix("()").removeprefix("tokenwire.")
            if len(match[1]) == 1 and bare in self.words:
                home, anchor = self.words[bare]
                return f"[`{word}`]({'' if home == page else home}#{anchor_of(anchor)})"
            return f"`{word}`"

        # What is no code of ours must not act as HTML or as a link.
        pieces = re.split(r"((`{1,2})[^`]+\2)", line)
        out = []
        for index in range(0, len(pieces), 3):
            out.append(pieces[index].replace("<", "&lt;").replace("*", r"\*").replace("[", r"\["))
            if index + 1 < len(pieces):
                out.append(re.sub(r"^(`{1,2})([^`]+)\1$", link, pieces[index + 1]))
        return "".join(out)

    def _page(self, name: str) -> Page:
        module = self.modules[name]
        page = Page(name, "")
        file = page.file
        lines = [f"# `{name}`", ""]
        if module.docstring:
            lines += [self.prose(module.docstring.value, file), ""]
        elsewhere: list[str] = []
        for public in public_names(module):
            item = resolved(module, public)
            home, described = self.homes[item.path]
            page.names.append(public)
            if home != file:
                elsewhere.append(f"[`{public}`]({home}#{anchor_of(described)})")
                continue
            lines += self._entry(item, public, file)
        if elsewhere:
            lines += ["## Described elsewhere", "", ", ".join(elsewhere), ""]
        page.text = "\n".join(lines).rstrip("\n") + "\n"
        return page

    def _entry(self, item: griffe.Object, name: str, page: str) -> list[str]:
        lines = [f"## `{name}` {{ #{anchor_of(name)} }}", ""]
        if isinstance(item, griffe.Class):
            lines += [*code(self._class_head(item, name)), ""]
            lines += self._doc(item, page)
            for method in methods(item):
                full = f"{name}.{method.name}"
                lines += [f"### `{full}` {{ #{anchor_of(full)} }}", ""]
                if isinstance(method, griffe.Function):
                    lines += [*code(signature(method, method.name, method=True)), ""]
                else:
                    kind = f": {method.annotation}" if method.annotation is not None else ""
                    lines += [*code(f"{method.name}{kind}"), ""]
                lines += self._doc(method, page)
        elif isinstance(item, griffe.Function):
            lines += [*code(signature(item, name, method=False)), ""]
            lines += self._doc(item, page)
        else:
            annotation = getattr(item, "annotation", None)
            kind = f": {annotation}" if annotation is not None else ""
            value = f" = {item.value}" if getattr(item, "value", None) is not None else ""
            lines += [*code(f"{name}{kind}{value}"), ""]
            lines += self._doc(item, page)
        return lines

    def _class_head(self, item: griffe.Class, name: str) -> str:
        bases = [str(base) for base in item.bases if "Struct" not in str(base)]
        head = f"class {name}{'(' + ', '.join(bases) + ')' if bases else ''}"
        init = item.members.get("__init__")
        if isinstance(init, griffe.Function) and init.path.startswith(item.path):
            return f"{head}:\n{textwrap.indent(signature(init, '__init__', method=True), '    ')}"
        rows = fields(item)
        return f"{head}:\n" + "\n".join(f"    {row}" for row in rows) if rows else head

    def _doc(self, item: griffe.Object, page: str) -> list[str]:
        return [self.prose(item.docstring.value, page), ""] if item.docstring else []


def methods(owner: griffe.Class) -> list[griffe.Function | griffe.Attribute]:
    """Public methods and properties of the class itself, in the order of the source."""
    return [
        member
        for member in owner.members.values()
        if not member.name.startswith("_")
        and (
            isinstance(member, griffe.Function)
            or (isinstance(member, griffe.Attribute) and "property" in member.labels)
        )
    ]


def code(text: str) -> list[str]:
    return ["```python", text, "```"]


def anchor_of(name: str) -> str:
    return name.replace(".", "-").lower()


def language_of(block: str) -> str:
    if re.match(r"(import |from |async |with |await |def |@|\w+ = |class )", block):
        return "python"
    return "sh" if re.match(r"(tokenwire|pip|make|\$) ", block) else "text"


def write(source: Path, target: Path) -> list[Page]:
    """The pages of ``source`` (the folder that holds the package) in ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    pages = Reference(source).pages()
    for page in pages:
        (target / page.file).write_text(page.text, encoding="utf-8")
    return pages
