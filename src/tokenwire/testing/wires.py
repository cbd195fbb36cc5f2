"""A check for wires of one's own."""

from __future__ import annotations

from tokenwire.wire.conformance import faults
from tokenwire.wire.own import own_wire

__all__ = ["check_wire"]


def check_wire(wire: object) -> None:
    """Check ``wire``, one of your own: an encoder's class, a function that makes encoders, or a
    `tokenwire.server.OwnWire`. Seven runs go through it, with text, reasoning, tools, a step that
    starts again, and every outcome. Raises `AssertionError` that says all that is wrong: what
    raises or is no bytes, a reader that is cut anywhere and resumes but gets other bytes, an end
    that is not told, or a failure that looks like a success. Raises `ConfigError` for what is no
    wire."""
    failures = faults(own_wire(wire).encoder)
    assert not failures, "\n".join(failures)
