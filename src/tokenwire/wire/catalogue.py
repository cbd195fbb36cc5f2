"""The wires by name: any run can be read in any of them.

Always true: a name gives a fresh encoder of that wire, at its place when the reader resumes; a wait
of the run does not end the stream, because a reader who only looks answers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenwire.errors import InputError
from tokenwire.wire.a2a.encoder import A2AEncoder
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.anthropic.encoder import AnthropicEncoder
from tokenwire.wire.chunk_encoder import ChunkEncoder
from tokenwire.wire.langgraph.encoder import LangGraphEncoder
from tokenwire.wire.openai.chat import OpenAIChatEncoder
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder
from tokenwire.wire.place import Place

__all__ = ["EVERY_WAIT", "WIRES", "encoder_for"]


class _EveryId:
    """Contains every id."""

    def __contains__(self, name: object) -> bool:
        return True


#: As ``resolved_ids``: no wait ends the stream.
EVERY_WAIT = _EveryId()

#: The wires that any run can be read in, beside the native one.
WIRES: dict[str, Callable[[Place | None], ChunkEncoder]] = {
    "ui": lambda place: UIMessageEncoder(resolved_ids=EVERY_WAIT, place=place),
    "ui-5": lambda place: UIMessageEncoder(compat="5", resolved_ids=EVERY_WAIT, place=place),
    "ui-6": lambda place: UIMessageEncoder(compat="6", resolved_ids=EVERY_WAIT, place=place),
    "ui-7": lambda place: UIMessageEncoder(compat="7", resolved_ids=EVERY_WAIT, place=place),
    "ag-ui": lambda place: AGUIEncoder(resolved_ids=EVERY_WAIT, place=place),
    "tanstack": lambda place: AGUIEncoder(tanstack=True, resolved_ids=EVERY_WAIT, place=place),
    "openai-chat": lambda place: OpenAIChatEncoder(include_usage=True, place=place),
    "openai-responses": lambda place: OpenAIResponsesEncoder(place=place),
    "anthropic": lambda place: AnthropicEncoder(place=place),
    "a2a": lambda place: A2AEncoder(resolved_ids=EVERY_WAIT, place=place),
    "langgraph": lambda place: LangGraphEncoder(goes_on=True, place=place),
}


def encoder_for(name: str, place: Place | None = None, others: Iterable[str] = ()) -> ChunkEncoder:
    """A fresh encoder of the wire ``name``. Raises `InputError`, which names ``others`` as well,
    for an unknown one."""
    make = WIRES.get(name)
    if make is None:
        raise InputError(
            f"unknown wire '{name[:40]}'; choose one of {', '.join([*WIRES, *others])}",
            field="wire",
        )
    return make(place)
