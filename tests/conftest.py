"""What holds for every test: servers that are not told a store keep nothing in the user's files."""

from __future__ import annotations

import os

os.environ.setdefault("TOKENWIRE_STORE", "memory:")
