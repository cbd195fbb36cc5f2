"""The extensions; all else is in pyproject.toml."""

import sys

from setuptools import Extension, setup

# Means of gaps are the Python's to the last bit: no multiplication is merged with an addition.
FLAGS = [] if sys.platform == "win32" else ["-O2", "-ffp-contract=off"]

setup(
    ext_modules=[
        Extension(name, [f"{name}.c"], extra_compile_args=FLAGS)
        for name in ("tokenwire_speedups", "tokenwire_pages")
    ],
    py_modules=[],
)
