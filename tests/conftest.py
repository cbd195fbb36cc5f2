"""What holds for every test: servers that are not told a store keep nothing in the user's files,
and no property test has a clock."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tokenwire.run import recover

os.environ.setdefault("TOKENWIRE_STORE", "memory:")

# A busy machine makes any example slow; what is slow of itself is measured by the benchmarks.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _retries_of_other_tests_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has one budget of retries; each test gets its own."""
    monkeypatch.setattr(recover, "BUDGET", recover.RetryBudget())
