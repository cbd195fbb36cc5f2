from collections.abc import Callable
from typing import Any

__version__: str
TWIN: int

def bind(
    names: dict[str, Any], classes: dict[str, type], matches: tuple[Any, Any, Any, Any, Any], /
) -> Callable[[Any, bytes], bool]: ...
