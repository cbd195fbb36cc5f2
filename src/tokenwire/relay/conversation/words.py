"""What a turn says in words: for the list of what waits, and for an answer under way.

Always true: pure; a turn that is more than one message of words has no words to steer with.
"""

from __future__ import annotations

from tokenwire.events.message import FilePart, Message, TextPart

__all__ = ["text_of", "words_of"]

#: Characters of a question in the queue's own list.
_MOST_TEXT = 200


def words_of(messages: list[Message]) -> str:
    """What a turn says, where it is one message of words alone; else nothing."""
    if len(messages) != 1 or messages[0].role != "user":
        return ""
    return messages[0].text if all(isinstance(p, TextPart) for p in messages[0].parts) else ""


def text_of(messages: list[Message]) -> str:
    """The beginning of a question, for a list; the name of a file that came without words."""
    text = " ".join(message.text for message in messages if message.role == "user").strip()
    if not text:
        names = (p.name for m in messages for p in m.parts if isinstance(p, FilePart) and p.name)
        text = next(names, "")
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
