"""What models can call: tools, their calls, and their results."""

from tokenwire.tools.assemble import Assembler, ToolCall
from tokenwire.tools.context import Progress, ToolContext
from tokenwire.tools.execute import execute, execute_all, result_part
from tokenwire.tools.plan import (
    Plan,
    ToolLimits,
    apply_answer,
    approval_id,
    approval_request,
    check,
    plan,
)
from tokenwire.tools.registry import Tool, ToolSet, tool

__all__ = [
    "Assembler",
    "Plan",
    "Progress",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolLimits",
    "ToolSet",
    "apply_answer",
    "approval_id",
    "approval_request",
    "check",
    "execute",
    "execute_all",
    "plan",
    "result_part",
    "tool",
]
