from collections.abc import Callable
from typing import Any

__version__: str
TWIN: int

class Numbers: ...

class Sender:
    """Not on Windows."""

    def __init__(self, transport: Any, fileno: int, /) -> None: ...
    def __call__(self, data: bytes, /) -> None: ...

def bind(
    names: dict[str, Any], classes: dict[str, type], matches: tuple[Any, Any, Any, Any, Any], /
) -> tuple[Callable[[Any, bytes], bool], Callable[[Any, bytes], None]]: ...
