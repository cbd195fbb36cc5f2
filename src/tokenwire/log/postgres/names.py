"""Text of ours as text of PostgreSQL, which has no character 0.

Always true: two texts that differ stay different, and one that begins with another still does.
"""

from __future__ import annotations

__all__ = ["from_text", "to_text"]


def to_text(name: str) -> str:
    """What is stored for ``name``."""
    if "\0" in name or "\\" in name:
        return name.replace("\\", "\\\\").replace("\0", "\\0")
    return name


def from_text(text: str) -> str:
    """The name that `to_text` made ``text`` of."""
    if "\\" not in text:
        return text
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\0", "\0") for part in parts)
