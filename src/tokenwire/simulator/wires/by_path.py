"""Which wire a request's path belongs to.

Always true: a wire keeps nothing between two requests, so one of each is enough.
"""

from __future__ import annotations

from tokenwire.simulator.play import Wire
from tokenwire.simulator.wires.anthropic import Anthropic
from tokenwire.simulator.wires.gemini import Gemini
from tokenwire.simulator.wires.ollama import Ollama
from tokenwire.simulator.wires.openai_chat import OpenAIChat
from tokenwire.simulator.wires.openai_completions import OpenAICompletions
from tokenwire.simulator.wires.openai_responses import OpenAIResponses

__all__ = ["CHAT", "RESPONSES", "wire_of"]

CHAT = OpenAIChat()
RESPONSES = OpenAIResponses()
_GEMINI = Gemini()
_WIRES: dict[str, Wire] = {
    "/chat/completions": CHAT,
    "/completions": OpenAICompletions(),
    "/responses": RESPONSES,
    "/messages": Anthropic(),
    "/api/chat": Ollama(),
    "/api/generate": Ollama(generate=True),
}


def wire_of(path: str) -> Wire | None:
    """The wire of the requests to ``path``; None for a path of no wire."""
    if path.endswith((":streamGenerateContent", ":generateContent")):
        return _GEMINI
    return next((wire for end, wire in _WIRES.items() if path.endswith(end)), None)
