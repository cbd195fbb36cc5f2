"""A transcript that a client posts, laid on the turns that the server stores.

Always true: pure; only messages whose ids are unknown are appended; a known id with other content,
or in another place, is refused, unless the client says that it edits that very message; a question
that has its turn already is that turn.
"""

from __future__ import annotations

import hashlib

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import Message, TextPart
from tokenwire.relay.conversation.errors import HistoryConflictError
from tokenwire.relay.conversation.history import Turn

__all__ = ["Continuation", "continuation", "key_of_turn"]


class Continuation(msgspec.Struct, kw_only=True):
    """How a conversation goes on: with ``messages`` after the turn ``parent`` (None: from the
    beginning; `follows_head`: after whatever turn is the newest then). ``repeats``: the run whose
    question was posted again."""

    messages: list[Message] = []
    parent: str | None = None
    follows_head: bool = False
    repeats: str | None = None


def continuation(
    turns: dict[str, Turn],
    posted: list[Message],
    *,
    head: str | None,
    edited: str | None = None,
    regenerates: bool = False,
) -> Continuation:
    """How ``posted`` continues the conversation of ``turns`` (by run), whose newest turn is
    ``head``. ``edited``: the id of the message that the client replaces; ``regenerates``: the last
    question is to be answered again. Raises `HistoryConflictError`; `InputError` where nothing new
    was posted."""
    return _Laying(turns, head, edited).of(posted, regenerates)


class _Laying:
    """One transcript on one tree."""

    def __init__(self, turns: dict[str, Turn], head: str | None, edited: str | None) -> None:
        self._turns, self._head, self._edited = turns, head, edited
        self._children: dict[str | None, list[Turn]] = {}
        for turn in sorted(turns.values(), key=lambda turn: -turn.created):
            if not turn.is_erased:
                self._children.setdefault(turn.parent, []).append(turn)
        self._branch: set[str] = set()
        run = head
        while run is not None and run not in self._branch:
            self._branch.add(run)
            turn = turns.get(run)
            run = turn.parent if turn is not None else None

    def of(self, posted: list[Message], regenerates: bool) -> Continuation:
        at, turn = self._begin(posted)
        number, has_answer = 0, False
        while number < len(posted):
            if self._is_edit(posted[number]):
                return Continuation(messages=posted[number:], parent=at)
            following = self._next(at, posted, number)
            if following is None:
                break
            turn, at = following, following.run
            number += len(turn.messages)
            has_answer, number = self._skip_answer(turn, posted, number)
        rest = posted[number:]
        if rest:
            self._check_new(rest)
            if at is None or at in self._branch:
                return Continuation(messages=rest, follows_head=True)
            return Continuation(messages=rest, parent=at)
        if turn is None or (has_answer and not regenerates):
            raise InputError("nothing new was posted to the conversation", field="messages")
        if regenerates:
            return Continuation(messages=turn.messages, parent=turn.parent)
        return Continuation(repeats=turn.run)

    def _begin(self, posted: list[Message]) -> tuple[str | None, Turn | None]:
        """The turn after which the transcript begins: a client may post only the end of it."""
        first = posted[0].id if posted else None
        if first is None:
            return None, None
        turn = self._answered(posted[0])
        if turn is not None:
            return turn.parent, None
        turns = [turn for turn in self._turns.values() if _asks(turn, first)]
        turns.sort(key=lambda turn: (turn.run in self._branch, turn.created))
        return (turns[-1].parent, None) if turns else (None, None)

    def _answered(self, message: Message) -> Turn | None:
        """The turn whose answer it is: named by its run, or by one of its parts, ``RUN-PART``."""
        name = message.id if message.role == "assistant" else None
        while name and name not in self._turns:
            name = name.rpartition("-")[0]
        return self._turns[name] if name else None

    def _is_edit(self, message: Message) -> bool:
        return message.id is not None and message.id == self._edited and message.role == "user"

    def _next(self, at: str | None, posted: list[Message], number: int) -> Turn | None:
        """The turn after ``at`` whose question is posted at ``number``."""
        message = posted[number]
        if message.id is None:
            return None
        turn = self._answered(message)
        if turn is not None:
            return msgspec.structs.replace(turn, messages=[]) if turn.parent == at else None
        children = [turn for turn in self._children.get(at, []) if _asks(turn, message.id)]
        if not children:
            return None
        same = [turn for turn in children if _matches(turn, posted, number)]
        if not same:
            raise _conflict(message)

        def rank(turn: Turn) -> tuple[bool, int, bool]:
            after = number + len(turn.messages)
            is_answered = after < len(posted) and posted[after].id == turn.run
            return is_answered, len(turn.messages), turn.run in self._branch

        return max(same, key=rank)

    def _skip_answer(self, turn: Turn, posted: list[Message], number: int) -> tuple[bool, int]:
        """Whether the answer of ``turn`` was posted, and where the transcript goes on after it."""
        text, start, last = "", number, None
        remarks = {message.id: message for message in turn.answer if message.role == "user"}
        while number < len(posted):
            message = posted[number]
            if message.id in remarks or message.steered_run is not None:
                # What was said while the answer was written is a part of it.
                earlier = remarks.get(message.id)
                is_same = earlier is not None and earlier.text == message.text
                if turn.outcome is not None and not is_same:
                    raise _conflict(message)
                number += 1
                continue
            if message.role not in ("assistant", "tool"):
                break
            if message.role == "assistant" and message.id is not None:
                whose = self._answered(message)
                if whose is None or whose.run != turn.run:
                    break
            if message.role == "assistant":
                text += message.text
                last = message
            number += 1
        stored = "".join(message.text for message in turn.answer if message.role == "assistant")
        # A client that left early has less of the answer; what the server has counts.
        if last is not None and turn.outcome is not None and not stored.startswith(text):
            raise _conflict(last)
        return number > start, number

    def _check_new(self, rest: list[Message]) -> None:
        ids = {
            message.id
            for turn in self._turns.values()
            if turn.run in self._branch
            for message in turn.messages
        } | self._branch
        for message in rest:
            if (message.id is not None and message.id in ids) or self._answered(message):
                raise _conflict(message)


def _asks(turn: Turn, name: str) -> bool:
    return bool(turn.messages) and not turn.is_erased and turn.messages[0].id == name


def _matches(turn: Turn, posted: list[Message], number: int) -> bool:
    part = posted[number : number + len(turn.messages)]
    return len(part) == len(turn.messages) and all(map(_is_same, turn.messages, part))


def _is_same(one: Message, other: Message) -> bool:
    if (one.id, one.role) != (other.id, other.role):
        return False
    if one.role == "assistant":  # what a client keeps of an answer is less than the answer
        return one.text == other.text
    return [_plain(p) for p in one.parts] == [_plain(p) for p in other.parts]


def _plain(part: object) -> object:
    return (part.text, "text") if isinstance(part, TextPart) else msgspec.to_builtins(part)


def _conflict(message: Message) -> HistoryConflictError:
    return HistoryConflictError(
        f"message '{(message.id or '')[:80]}' is stored with other content, or in another place; "
        "read the conversation again",
        field="messages",
    )


def key_of_turn(thread: str, following: Continuation) -> str | None:
    """The idempotency key of a turn that has no other: by its first message, where that has an id
    of its client's, in its thread; None where nothing tells it from another one."""
    message = following.messages[0].id if following.follows_head and following.messages else None
    if message is None:
        return None
    name = msgspec.json.encode([thread, message])
    return f"\x1fmessage:{hashlib.sha256(name).hexdigest()}"
