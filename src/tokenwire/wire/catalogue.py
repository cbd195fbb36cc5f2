"""Which wire somebody asks for, by name: any run can be read in any of them.

Always true: a name gives a fresh encoder of that wire, with its place when the reader comes back;
waits of the run do not end it, because a reader who only looks answers nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenwire.errors import InputError
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.anthropic.encoder import AnthropicEncoder
from tokenwire.wire.chunks import ChunkEncoder, Place
from tokenwire.wire.openai.chat import OpenAIChatEncoder
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder

__all__ = ["EVERY_WAIT", "WIRES", "encoder_for"]


class _Everything:
    """Holds whatever is asked for."""

    def __contains__(self, name: object) -> bool:
        return True


#: Given as ``answered``: no wait ends the stream.
EVERY_WAIT = _Everything()

#: The wires that any run can be read in, beside the native one.
WIRES: dict[str, Callable[[Place | None], ChunkEncoder]] = {
    "ui": lambda place: UIMessageEncoder(answered=EVERY_WAIT, place=place),
    "ui-5": lambda place: UIMessageEncoder(compat="5", answered=EVERY_WAIT, place=place),
    "ui-6": lambda place: UIMessageEncoder(compat="6", answered=EVERY_WAIT, place=place),
    "ui-7": lambda place: UIMessageEncoder(compat="7", answered=EVERY_WAIT, place=place),
    "ag-ui": lambda place: AGUIEncoder(answered=EVERY_WAIT, place=place),
    "tanstack": lambda place: AGUIEncoder(tanstack=True, answered=EVERY_WAIT, place=place),
    "openai-chat": lambda place: OpenAIChatEncoder(include_usage=True, place=place),
    "openai-responses": lambda place: OpenAIResponsesEncoder(place=place),
    "anthropic": lambda place: AnthropicEncoder(place=place),
}


def encoder_for(name: str, place: Place | None = None) -> ChunkEncoder:
    """A fresh encoder of the wire ``name``. Raises `InputError` for an unknown one."""
    make = WIRES.get(name)
    if make is None:
        raise InputError(f"'{name[:40]}' is no wire; there is: {', '.join(WIRES)}", field="wire")
    return make(place)
