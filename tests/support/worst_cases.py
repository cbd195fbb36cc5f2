"""The patterns of the package, the texts that cost them most, and what a growing text costs.

A text of outside is matched on the event loop, so the cost of every pattern must grow no faster
than the text. How it grows is measured: the same shape at growing sizes, in CPU time of this
process, and only as a ratio, which a busy machine does not change much; a ratio that is too high is
measured again before it counts.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import tokenwire

PACKAGE = Path(tokenwire.__file__).parent
#: Sizes begin here and grow fourfold up to here.
_SMALLEST, _LARGEST = 1 << 12, 1 << 14
#: CPU seconds from which a ratio says something.
_MEASURABLE = 0.05
#: Four times the text may cost this many times the CPU: linear is 4, quadratic 16.
_MOST_GROWTH = 9.0
_ATTEMPTS = 4


# --- patterns ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A pattern of the package. ``methods``: how it is used; empty where that cannot be told."""

    where: str
    pattern: re.Pattern[Any]
    methods: frozenset[str]

    def work(self, text: str) -> None:
        """Match as the package does; every place of the text, unless only its beginning counts."""
        subject = text if isinstance(self.pattern.pattern, str) else text.encode("utf-8", "replace")
        if self.methods and self.methods <= {"fullmatch", "match"}:
            for method in self.methods:
                getattr(self.pattern, method)(subject)
            return
        for _ in self.pattern.finditer(subject):
            pass


@cache
def patterns() -> list[Found]:
    """Every pattern that a module of the package has made, or makes when it is called; one that
    several use, once for each way in which they do."""
    listed: dict[tuple[str, Any], Found] = {}
    uses_of: dict[Any, set[str]] = {}
    for module in modules():
        source = Path(module.__file__ or "").read_text("utf-8")
        for name, pattern in _of_values(vars(module)):
            uses = frozenset(re.findall(rf"\b{re.escape(name)}\.(\w+)", source)) & _METHODS
            others = uses_of.setdefault(pattern, set())
            if _EVERYWHERE in others or (uses and uses <= others):
                continue
            others |= uses or {_EVERYWHERE}
            listed.setdefault(
                (module.__name__, pattern), Found(f"{module.__name__}.{name}", pattern, uses)
            )
        made = {found.pattern.pattern for found in listed.values()}
        if not _MAY_CALL.search(source):
            continue
        for method, pattern in _of_calls(ast.parse(source)):
            if pattern.pattern in made:  # bound to a name, under which it is in the list already
                continue
            used = frozenset({method}) if method != "compile" else frozenset()
            where = f"{module.__name__}: re.{method}({pattern.pattern!r})"
            listed.setdefault((module.__name__, pattern), Found(where, pattern, used))
    return list(listed.values())


#: The words of which each call that `_of_calls` looks for has one: to parse a file is dear.
_MAY_CALL = re.compile(r"\b(?:re|pattern)\b")
#: Stands for all of them: how a pattern is used cannot be told.
_EVERYWHERE = "everywhere"
_METHODS = {"fullmatch", "match", "search", "sub", "subn", "findall", "finditer", "split"}


def modules() -> Iterator[Any]:
    """The modules of the package that can be imported here."""
    for info in pkgutil.walk_packages([str(PACKAGE)], "tokenwire."):
        if info.name.endswith("__main__"):
            continue
        try:
            yield importlib.import_module(info.name)
        except ImportError:  # an optional package is missing
            continue


def _of_values(values: dict[str, Any]) -> Iterator[tuple[str, re.Pattern[Any]]]:
    for name, value in values.items():
        yield from ((name, pattern) for pattern in _inside(value, 3))


def _inside(value: Any, depth: int) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _inside(item, depth - 1)
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from _inside(item, depth - 1)


def _of_calls(tree: ast.AST) -> Iterator[tuple[str, re.Pattern[Any]]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id == "re"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield function.attr, re.compile(node.args[0].value)
        for keyword in node.keywords:
            if keyword.arg == "pattern" and isinstance(keyword.value, ast.Constant):
                yield "search", re.compile(keyword.value.value)


# --- texts -------------------------------------------------------------------------------------


def shapes(pattern: re.Pattern[Any]) -> list[tuple[str, str, str]]:
    """``(before, pump, after)``: what repeats in a text for the pattern to try it many times."""
    source = (
        pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    )
    flags = pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    tree = parser.parse(source, flags & ~re.DEBUG)
    pumps: dict[tuple[str, str], None] = {}
    _collect(tree, "", pumps)
    whole = _sample(tree)
    pieces = {pump for _, pump in pumps} | {before for before, _ in pumps} | {whole}
    pieces |= {piece[:-1] for piece in pieces} | {char for piece in pieces for char in piece[:4]}
    pieces |= {"\\", '\\"', '"', "a", " ", "\n", "\\\\", "[", "{", "/", "-", "`", "0", "\ud7ff"}
    found: dict[tuple[str, str, str], None] = {}
    befores = {"", *list({before for before, _ in pumps})[:6]}
    for before in befores:
        for pump in pieces - {""}:
            for after in ("", "\x00"):
                found[before, pump, after] = None
    return list(found)


def nodes_of(source: str, flags: int) -> list[tuple[Any, Any]]:
    """Every node of a pattern's syntax tree."""
    nodes: list[tuple[Any, Any]] = []

    def walk(tree: Any) -> None:
        for op, argument in tree:
            nodes.append((op, argument))
            repeated = op in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)
            for inner in [argument[2]] if repeated else _inner(op, argument):
                walk(inner)

    walk(parser.parse(source, flags & ~re.DEBUG))
    return nodes


def _collect(tree: Any, before: str, pumps: dict[tuple[str, str], None]) -> None:
    for op, argument in tree:
        if op in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            body = argument[2]
            for sample in _samples(body):
                pumps[before, sample] = None
            _collect(body, before, pumps)
        for inner in _inner(op, argument):
            _collect(inner, before, pumps)
        before += _sample([(op, argument)])


def _inner(op: Any, argument: Any) -> list[Any]:
    if op is codes.SUBPATTERN:
        return [argument[-1]]
    if op is codes.BRANCH:
        return list(argument[1])
    if op is codes.ATOMIC_GROUP:
        return [argument]
    return []


def _samples(tree: Any) -> list[str]:
    """Texts that a part of a pattern matches: one, and one for every branch and class member."""
    samples = {_sample(tree)}
    items = list(tree)
    if len(items) == 1:
        op, argument = items[0]
        for inner in _inner(op, argument):
            samples.update(_samples(inner))
        if op is codes.IN:
            samples.update(_members(argument)[:6])
    return [sample for sample in samples if sample]


def _sample(tree: Any) -> str:
    text = ""
    for op, argument in tree:
        if op is codes.LITERAL:
            text += chr(argument)
        elif op is codes.NOT_LITERAL:
            text += "a" if argument != ord("a") else "b"
        elif op is codes.ANY:
            text += "a"
        elif op is codes.IN:
            text += (_members(argument) or ["a"])[0]
        elif op in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            text += _sample(argument[2]) * min(max(1, argument[0]), 64)
        else:
            inner = _inner(op, argument)
            text += _sample(inner[0]) if inner else ""
    return text


_CATEGORIES = {
    codes.CATEGORY_DIGIT: "0",
    codes.CATEGORY_SPACE: " \n\t",
    codes.CATEGORY_WORD: "a_0",
    codes.CATEGORY_NOT_DIGIT: "a",
    codes.CATEGORY_NOT_SPACE: "a",
    codes.CATEGORY_NOT_WORD: "-",
}


def _members(items: Any) -> list[str]:
    allowed: list[str] = []
    refused: set[str] = set()
    is_negated = any(op is codes.NEGATE for op, _ in items)
    for op, argument in items:
        if op is codes.LITERAL:
            chars = [chr(argument)]
        elif op is codes.RANGE:
            chars = [chr(argument[0]), chr(argument[1])]
            refused.update(map(chr, range(argument[0], min(argument[1], argument[0] + 200) + 1)))
        elif op is codes.CATEGORY:
            chars = list(_CATEGORIES[argument])
        else:
            continue
        allowed += chars
        refused.update(chars)
    if is_negated:
        return [char for char in 'a-0 "\\/:=<' if char not in refused]
    return allowed


# --- cost --------------------------------------------------------------------------------------


def growth(work: Callable[[str], object], shape: tuple[str, str, str]) -> float:
    """How many times the CPU time four times the text costs; 0 where it stays below what can be
    measured. What fails in a way of its own costs what it costs until then."""
    before, pump, after = shape
    size = _SMALLEST
    while size <= _LARGEST:
        spent = _cost(work, before + pump * (size // len(pump)) + after)
        if spent >= _MEASURABLE:
            least = min(
                _cost(work, before + pump * (size // len(pump)) + after) for _ in range(_ATTEMPTS)
            )
            quarter = min(
                _cost(work, before + pump * (size // 4 // len(pump)) + after)
                for _ in range(_ATTEMPTS)
            )
            return least / max(quarter, 1e-7)
        size *= 4
    return 0.0


def is_superlinear(work: Callable[[str], object], shape: tuple[str, str, str]) -> bool:
    """Whether the cost grows faster than the text, each time that it is measured."""
    return all(growth(work, shape) > _MOST_GROWTH for _ in range(2))


def _cost(work: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    try:
        work(text)
    except Exception:
        pass
    return time.process_time() - began
