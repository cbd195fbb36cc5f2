"""What models can call: tools, their calls, and their results."""

from tokenwire.tools.calls.assemble import Assembler, ToolCall
from tokenwire.tools.calls.execute import execute
from tokenwire.tools.check import ToolLimits, check
from tokenwire.tools.context import Progress, ToolContext
from tokenwire.tools.registry import Tool, ToolSet, tool

__all__ = [
    "Assembler",
    "Progress",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolLimits",
    "ToolSet",
    "check",
    "execute",
    "tool",
]
