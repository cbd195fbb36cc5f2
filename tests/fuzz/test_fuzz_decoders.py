"""A short run of the decoders' fuzzer, and the same checks on mutations that Hypothesis makes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).with_name("fuzz_decoders.py")
ROOT = Path(__file__).parents[2]


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_decoders", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = _load()
SEEDS: list[bytes] = fuzz.seeds()
SHOVED = st.sampled_from(
    b'\n\n|\r|null|[|]|{|}|"|:|,|\\u|\xff|data: |event: error\n|[DONE]|-1|1e999|true'.split(b"|")
)


def test_every_seed_holds() -> None:
    for seed in SEEDS:
        fuzz.one_input(seed)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 1600), st.integers(0, 12), SHOVED), max_size=4),
    st.integers(0, 44),
    st.integers(0, 6),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_streams_hold_in_every_dialect(
    seed: bytes, changes: list[tuple[int, int, bytes]], kind: int, cut: int
) -> None:
    body = seed[2:]
    for at, gone, new in changes:
        body = body[:at] + new + body[at + gone :]
    fuzz.one_input(bytes([seed[0], cut]) + body)
    fuzz.one_input(bytes([kind, cut]) + body)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="the package 'atheris' is not installed"
)
def test_the_fuzzer_finds_nothing_in_a_few_seconds() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "-max_total_time=5", "-verbosity=0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
