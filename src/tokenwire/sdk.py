"""The official SDKs' own stream objects to our events."""

from __future__ import annotations

from tokenwire.providers.sdk import events

__all__ = ["events"]
