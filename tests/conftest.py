"""What holds for every test: servers that are not told a store keep nothing in the user's files,
and no property test has a clock."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("TOKENWIRE_STORE", "memory:")

# A busy machine makes any example slow; what is slow of itself is measured by the benchmarks.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
