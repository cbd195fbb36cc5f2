"""Cassettes: recorded responses of providers, for tests without a network."""

from __future__ import annotations

from tokenwire.testing.cassettes.cassette import Cassette, Mode

__all__ = ["Cassette", "Mode"]
