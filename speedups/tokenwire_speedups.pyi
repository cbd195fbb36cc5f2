from collections.abc import Callable
from typing import Any

__version__: str
TWIN: int
SPOOL: int

class Numbers: ...

def bind(
    names: dict[str, Any], classes: dict[str, type], matches: tuple[Any, Any, Any, Any, Any], /
) -> tuple[Callable[[Any, bytes], bool], Callable[[Any, bytes], None], Callable[[Any], bool]]: ...
def bind_spool(spool: type, /) -> None: ...
def land(
    items: list[Any],
    landed: Callable[[Any, int, int], None],
    fault: Callable[[BaseException], None],
    after: Callable[[Any, int], None],
    most: int,
    /,
) -> None: ...
