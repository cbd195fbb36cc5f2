"""What a process has read of a log's mailbox, to recognize a mailbox that its server has lost a
part of.

Always true: it holds what tells the newest `MOST` commands from others, however many were read; a
command that was not read is never taken for one that was.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MOST", "ReadCommands"]

#: Commands of one log that are recognized. Where a server has lost more of them at once, those
#: that it still has are read a second time.
MOST = 64

#: What tells a command from others: its nonce, or a digest of it.
Mark = int | bytes


class ReadCommands:
    """The commands of one log, by number."""

    __slots__ = ("_marks", "last")

    def __init__(self) -> None:
        #: The number of the last one.
        self.last = 0
        self._marks: dict[int, Mark] | None = None

    def add(self, number: int, mark: Mark) -> None:
        """It was read; nothing where it was before."""
        if number > self.last:
            marks = self._marks = {} if self._marks is None else self._marks
            marks[number], self.last = mark, number
            if len(marks) > MOST:
                del marks[next(iter(marks))]

    def is_last(self, mark: Mark) -> bool:
        """Whether it is the mark of the last one."""
        return self._marks is not None and self._marks.get(self.last) == mark

    def count(self, marks: Sequence[Mark], before: int | None = None) -> int:
        """How many of ``marks``, all that a mailbox still has, were read: the others came after the
        loss. ``before``: the number before the first one, where two commands may have one mark."""
        ours, count = self._marks or {}, len(marks)
        if before is None:
            values = set(ours.values())
            while count and marks[count - 1] not in values:
                count -= 1
        else:
            while count and ours.get(before + count) != marks[count - 1]:
                count -= 1
        return count

    def renumber(self, marks: Sequence[Mark]) -> None:
        """``marks``, all that the mailbox still has of what was read, have new numbers there, of
        which the last is `last`."""
        newest = marks[-MOST:]
        self._marks = dict(enumerate(newest, self.last - len(newest) + 1))
