"""The turns of a conversation, and which of them a model is given.

Always true: pure; a turn is given whole or not at all; which turns a run was given is decided once,
when it starts, and is the same after a takeover; nothing is added to what people and models wrote
except a summary, where the application makes one.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import FilePart, Message, TextPart
from tokenwire.events.model import HistoryDescription

__all__ = [
    "History",
    "Policy",
    "Selection",
    "Turn",
    "described",
    "messages_of_turns",
    "policy_of",
    "selection",
    "tokens_of",
]

_POLICY = re.compile(r"all|(last|tokens):([1-9][0-9]{0,8})")
#: Characters of a token, roughly; and tokens around a message, and of a file.
_CHARACTERS, _PER_MESSAGE, _PER_FILE = 4, 4, 1600
_SUMMARY = "Summary of the conversation so far:\n\n"


class History(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What came before a run in its conversation, and what of it the model was given.

    ``parent``: the run that this one continues; None at the beginning. ``turns``: the runs whose
    turns the model was given, oldest first; ``unanswered``: those of them that had no answer yet.
    ``omitted``: how many turns before them it was not given; ``summary``: the text in their place.
    ``policy``: the rule that decided it. ``summary_error``: why there is no newer summary.
    """

    parent: str | None = None
    turns: list[str] = []
    unanswered: list[str] = []
    omitted: int = 0
    summary: str | None = None
    policy: str = "all"
    summary_error: str | None = None


class Turn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One turn: what was asked (``messages``) and what ``run`` answered.

    ``parent``: the run before it in its branch. ``by``: the plain id of who asked; None where
    everybody is one. ``outcome``: how the run ended; None while it is
    under way, when ``answer`` is empty. ``created``: Unix seconds. ``depth``: how many turns
    came before. ``first`` and ``summary``: the oldest turn that its own model was given, and the
    text in place of those before. ``is_erased``: only the place in the tree is left.
    """

    run: str
    parent: str | None = None
    messages: list[Message] = []
    answer: list[Message] = []
    by: str | None = None
    outcome: str | None = None
    created: float = 0.0
    first: str | None = None
    summary: str | None = None
    depth: int = 0
    is_erased: bool = False


class Policy(msgspec.Struct, frozen=True):
    """How much of a branch a model is given: everything, the ``last`` so many turns, or the newest
    turns within so many ``tokens``, by estimate."""

    kind: Literal["all", "last", "tokens"] = "all"
    most: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "all" else f"{self.kind}:{self.most}"


class Selection(msgspec.Struct):
    """``turns``: those that are given, oldest first. ``dropped``: those that were given to the
    turn before and are not any more; ``summary``: of what stands before those; ``omitted``: the
    number of all turns that are not given."""

    turns: list[Turn]
    dropped: list[Turn]
    summary: str | None
    omitted: int


def policy_of(text: str) -> Policy:
    """The policy of ``all``, ``last:TURNS`` or ``tokens:NUMBER``. Raises `InputError`."""
    match = _POLICY.fullmatch(text)
    if match is None:
        raise InputError(
            f"'{text[:40]}' is no history policy; use all, last:TURNS or tokens:NUMBER",
            field="history",
        )
    if match[1] is None:
        return Policy()
    return Policy("last" if match[1] == "last" else "tokens", int(match[2]))


def selection(branch: list[Turn], policy: Policy) -> Selection:
    """What of ``branch``, oldest turn first, a model is given by ``policy``.

    A budget of tokens is not filled anew with each turn: what the turn before was given stays, and
    its summary with it, until the budget is exceeded; then the oldest turns are dropped until half
    of it is left. So a provider's cache of the beginning holds, and a summary is rarely made. The
    newest turn is given even where it alone exceeds the budget.
    """
    if policy.kind == "all" or not branch:
        return Selection(branch, [], None, 0)
    if policy.kind == "last":
        turns = branch[-policy.most :]
        return Selection(turns, [], None, max(0, branch[-1].depth + 1 - len(turns)))
    start, summary = _start_before(branch)
    sizes = [tokens_of(turn.messages) + tokens_of(turn.answer) for turn in branch]
    total = sum(sizes[start:]) + len(summary or "") // _CHARACTERS
    dropped: list[Turn] = []
    if total > policy.most:
        while start < len(branch) - 1 and total > policy.most // 2:
            total -= sizes[start]
            dropped.append(branch[start])
            start += 1
    return Selection(branch[start:], dropped, summary, start)


def _start_before(branch: list[Turn]) -> tuple[int, str | None]:
    """Where the turns began that the newest turn was given, and the summary before them."""
    newest = branch[-1]
    if newest.first is not None and newest.first != newest.run:
        for number, turn in enumerate(branch):
            if turn.run == newest.first:
                return number, newest.summary
    return 0, None


def described(history: History | None) -> HistoryDescription | None:
    """``history`` without the names of its turns and the text of its summary, for readers."""
    if history is None:
        return None
    return HistoryDescription(
        turns=len(history.turns),
        policy=history.policy,
        parent=history.parent,
        omitted=history.omitted,
        summarised=history.summary is not None,
        summary_error=history.summary_error,
    )


def messages_of_turns(
    turns: list[Turn], summary: str | None, unanswered: list[str]
) -> list[Message]:
    """The messages of ``turns``; the answers of the ``unanswered`` ones are left out."""
    messages: list[Message] = []
    if summary:
        messages.append(Message(role="system", content=_SUMMARY + summary))
    for turn in turns:
        messages += turn.messages
        if turn.run not in unanswered:
            messages += turn.answer
    return messages


def tokens_of(messages: list[Message]) -> int:
    """The tokens of ``messages``, by estimate: no tokenizer is asked."""
    total = 0
    for message in messages:
        total += _PER_MESSAGE
        for part in message.parts:
            if isinstance(part, TextPart):
                total += len(part.text) // _CHARACTERS + 1
            elif isinstance(part, FilePart):
                total += _PER_FILE
            else:
                total += len(msgspec.json.encode(part)) // _CHARACTERS + 1
    return total
