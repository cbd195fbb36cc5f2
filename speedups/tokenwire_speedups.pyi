from collections.abc import Callable
from typing import Any

__version__: str
TWIN: int
SPOOL: int

class Numbers: ...

def bind(
    names: dict[str, Any], classes: dict[str, type], matches: tuple[Any, Any, Any, Any, Any], /
) -> tuple[Callable[[Any, bytes], bool], Callable[[Any, bytes], None], Callable[[Any], bool]]: ...
def bind_spool(classes: dict[str, type], /) -> None: ...
def bind_owned(owned: type, /) -> None: ...
def land(
    items: list[Any],
    landed: Callable[[Any, int, int], None],
    fault: Callable[[BaseException], None],
    after: Callable[[Any, int], None],
    most: int,
    keeps: bool,
    /,
) -> None: ...
def hear(
    appends: list[Any],
    tails: dict[str, Any],
    in_python: Callable[[str, int, list[bytes] | None], None],
    fault: Callable[[BaseException], None],
    most: int,
    most_bytes: int,
    keeps: bool,
    /,
) -> None: ...
def pack(
    items: list[Any],
    owned: dict[str, Any],
    apart: set[str],
    this_round: int,
    now: float,
    publish_seconds: float,
    noted_bytes: int,
    most_offset: int,
    /,
) -> tuple[list[Any], list[Any], int, int, bytes]: ...
