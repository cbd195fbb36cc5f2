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
