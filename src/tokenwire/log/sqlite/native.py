"""The native twin of reading pages, where `tokenwire-speedups` is installed.

Always true: without it, and with one that is made for other pages, everything works as it does in
Python. It returns what the Python would, or leaves the pages to the Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tokenwire import __version__

__all__ = ["PAGES", "ReadPages", "native_reader"]

#: Raised with every change of what a page is, here and in the twin.
PAGES = 1

#: Columns of `pages.READ`, the key before the first record, the most records; None: see Python.
ReadPages = Callable[[str, str, str, bytes, bytes, int, int], "list[bytes] | None"]


def native_reader() -> ReadPages | None:
    """The twin, unless it is not there, of another release, or turned off."""
    if os.environ.get("TOKENWIRE_SPEEDUPS", "1").strip().lower() in ("0", "false", "no", "off"):
        return None
    try:
        import tokenwire_pages as module
    except ImportError:
        return None
    made_for = getattr(module, "__version__", None), getattr(module, "PAGES", None)
    return module.read if made_for == (__version__, PAGES) else None
