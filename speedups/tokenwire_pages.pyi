from array import array
from typing import Any

__version__: str
PAGES: int

def read(
    keys: str,
    entry_sizes: str,
    data_sizes: str,
    entries: bytes,
    data: bytes,
    after: int,
    most: int,
    /,
) -> list[bytes] | None: ...
def crc32(data: bytes | memoryview, value: int, plain: bool, /) -> int: ...
def cut(
    sid: int,
    first: int,
    total: int,
    records: list[bytes],
    checks: list[int],
    most: int,
    most_bytes: int,
    /,
) -> list[tuple[int, int, bytes, bytes]] | None: ...
def bind(head: type, spool: type, /) -> None: ...
def append(
    items: list[Any],
    start: int,
    heads: dict[str, Any],
    due: dict[int, Any],
    numbers: array[int],
    records: list[bytes],
    page: int,
    most: int,
    /,
) -> tuple[int, int]: ...
def records_of(
    numbers: array[int],
    data: bytes,
    readers: dict[int, str],
    appends: list[Any],
    newest: dict[str, Any],
    /,
) -> None: ...
