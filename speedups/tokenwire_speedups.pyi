from collections.abc import Callable
from typing import Any

__version__: str
TWIN: int

class Numbers: ...

def bind(
    names: dict[str, Any], classes: dict[str, type], matches: tuple[Any, Any, Any, Any, Any], /
) -> tuple[Callable[[Any, bytes], bool], Callable[[Any, bytes], None]]: ...
