"""JSON Patch (RFC 6902): what changed between two values, and the value after a change.

Always true: pure; ``apply(old, diff(old, new)) == new`` for any two JSON values; the values that
are passed in are never changed; a patch that does not fit raises `InputError`.
"""

from __future__ import annotations

from typing import Any, cast

from tokenwire.errors import InputError

__all__ = ["after", "apply", "diff", "same"]

Operation = dict[str, Any]

#: What `diff` makes, and all that a ``state`` event may hold: readers in browsers know no other.
_OPERATIONS = frozenset({"add", "replace", "remove"})


def diff(old: Any, new: Any, path: str = "") -> list[Operation]:
    """The operations (``add``, ``remove``, ``replace``) that turn ``old`` into ``new``."""
    if same(old, new):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast(dict[str, Any], old), cast(dict[str, Any], new)
        operations: list[Operation] = [
            {"op": "remove", "path": f"{path}/{_escaped(name)}"}
            for name in before
            if name not in after
        ]
        for name, value in after.items():
            place = f"{path}/{_escaped(name)}"
            if name in before:
                operations += diff(before[name], value, place)
            else:
                operations.append({"op": "add", "path": place, "value": value})
        return operations
    if isinstance(old, list) and isinstance(new, list):
        first, then = cast(list[Any], old), cast(list[Any], new)
        shared = min(len(first), len(then))
        operations = [
            operation
            for index in range(shared)
            for operation in diff(first[index], then[index], f"{path}/{index}")
        ]
        operations += [
            {"op": "remove", "path": f"{path}/{index}"}
            for index in range(len(first) - 1, shared - 1, -1)
        ]
        operations += [{"op": "add", "path": f"{path}/-", "value": v} for v in then[shared:]]
        return operations
    return [{"op": "replace", "path": path, "value": new}]


def apply(value: Any, patch: list[Operation]) -> Any:
    """``value`` after the operations of ``patch``, in order. Raises `InputError`."""
    for operation in patch:
        value = _applied(value, operation)
    return value


def after(value: Any, snapshot: Any, patch: list[Operation] | None) -> Any:
    """A shared state after a ``state`` event: the snapshot, or what the patch makes of ``value``.
    A patch that does not fit changes nothing: one bad event must not end a reading."""
    if patch is None:
        return snapshot
    if any(operation.get("op") not in _OPERATIONS for operation in patch):
        return value
    try:
        return apply(value, patch)
    except InputError:
        return value


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        these, those = cast(dict[str, Any], one), cast(dict[str, Any], other)
        return these.keys() == those.keys() and all(same(these[n], those[n]) for n in these)
    if isinstance(one, list) and isinstance(other, list):
        first, then = cast(list[Any], one), cast(list[Any], other)
        return len(first) == len(then) and all(map(same, first, then))
    return bool(one == other)


def _applied(value: Any, operation: Operation) -> Any:
    name, path = operation.get("op"), _names(operation.get("path"))
    if name == "test":
        if not same(_at(value, path), operation.get("value")):
            raise InputError("the patch does not fit: a 'test' failed")
        return value
    if name in ("add", "replace"):
        return _set(value, path, operation.get("value"), insert=name == "add")
    if name == "remove":
        return _removed(value, path)
    if name in ("move", "copy"):
        source = _names(operation.get("from"))
        item = _at(value, source)
        rest = _removed(value, source) if name == "move" else value
        return _set(rest, path, item, insert=True)
    raise InputError(f"unknown patch operation {str(name)[:40]!r}")


def _names(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise InputError("a patch operation needs a 'path' that begins with '/'")
    return [name.replace("~1", "/").replace("~0", "~") for name in path.split("/")[1:]]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _at(value: Any, path: list[str]) -> Any:
    for name in path:
        value = _child(value, name)
    return value


def _child(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        children = cast(dict[str, Any], value)
        if name in children:
            return children[name]
    elif isinstance(value, list):
        items = cast(list[Any], value)
        return items[_index(name, len(items) - 1)]
    raise InputError(f"the patch does not fit: nothing at '{name[:40]}'")


def _index(name: str, most: int) -> int:
    digits = name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")
    if not digits or int(name) > most:
        raise InputError(f"the patch does not fit: no index '{name[:40]}'")
    return int(name)


def _set(value: Any, path: list[str], item: Any, *, insert: bool) -> Any:
    if not path:
        return item
    name, rest = path[0], path[1:]
    if isinstance(value, list):
        items = list(cast(list[Any], value))
        if rest or not insert:
            index = _index(name, len(items) - 1)
            items[index] = _set(items[index], rest, item, insert=insert)
        else:
            items.insert(len(items) if name == "-" else _index(name, len(items)), item)
        return items
    if isinstance(value, dict) and (name in value or (insert and not rest)):
        children = cast(dict[str, Any], value)
        child = _set(children[name], rest, item, insert=insert) if rest else item
        return {**children, name: child}
    raise InputError(f"the patch does not fit: nothing at '{name[:40]}'")


def _removed(value: Any, path: list[str]) -> Any:
    if not path:
        raise InputError("the whole cannot be removed")
    name, rest = path[0], path[1:]
    child = _child(value, name)
    if isinstance(value, list):
        items, index = list(cast(list[Any], value)), int(name)
        if rest:
            items[index] = _removed(child, rest)
        else:
            del items[index]
        return items
    children = dict(cast(dict[str, Any], value))
    if rest:
        children[name] = _removed(child, rest)
    else:
        del children[name]
    return children
