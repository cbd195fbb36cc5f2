"""What is open of a Messages answer: its content blocks, and calls whose id came before.

Always true: a block is a part, or is kept until it is whole; a repeated call is no part until it is
clear that it is another call.
"""

from __future__ import annotations

from typing import Any

from tokenwire.providers.decoding.arguments import resolve
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.values import text_of

__all__ = ["Block", "RepeatedCall"]


class Block:
    """One content block: a part, or a block that is emitted when it is whole."""

    __slots__ = ("content", "content_block", "delta", "input", "part", "repeats", "signature")

    def __init__(
        self, part: OpenPart | None, delta: str = "", content_block: dict[str, Any] | None = None
    ) -> None:
        self.part = part
        #: The kind of delta that belongs to the block.
        self.delta = delta
        #: A call with the id of an earlier one: kept until it is clear whether it is the same.
        self.repeats: RepeatedCall | None = None
        self.content_block = content_block
        self.content: list[str] = []
        self.signature = ""
        #: A tool's input that came whole with the start of its block.
        self.input: Any = None


class RepeatedCall:
    """The name and the text of the arguments of a tool call."""

    __slots__ = ("arguments", "block", "name")

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.name = text_of(block.get("name"))
        self.arguments: list[str] = []

    @property
    def value(self) -> tuple[str, Any]:
        """The name and the arguments."""
        text = "".join(self.arguments)
        return self.name, resolve(text)[0] if text else self.block.get("input") or {}
