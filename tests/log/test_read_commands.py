"""Commands that were read are recognized in a mailbox that has lost some, and no others are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.log.read_commands import MOST, ReadCommands


@given(
    read=st.lists(st.integers(0, 2), max_size=20),
    kept=st.integers(0, 20),
    new=st.lists(st.integers(3, 5), max_size=5),
    again=st.integers(0, 25),
)
def test_what_came_after_the_loss_gets_numbers_that_were_not_read(
    read: list[int], kept: int, new: list[int], again: int
) -> None:
    """Commands may be equal; a mailbox that was renumbered may lose some once more."""
    commands = ReadCommands()
    for number, mark in enumerate(read, 1):
        commands.add(number, mark)
    mailbox = read[: min(kept, len(read))] + new
    before = 0
    for length in (len(mailbox), again):
        mailbox = mailbox[:length]
        count = commands.count(mailbox, before)
        assert mailbox[count:] == [mark for mark in mailbox if mark >= 3]
        before = commands.last - count
        commands.renumber(mailbox[:count])
        assert commands.last == len(read)
        assert commands.count(mailbox, before) == count, "renumbered once more, it stays"


@given(read=st.integers(0, 3 * MOST), kept=st.integers(0, 3 * MOST), new=st.integers(0, 3))
def test_unique_marks_need_no_numbers(read: int, kept: int, new: int) -> None:
    commands = ReadCommands()
    for number in range(1, read + 1):
        commands.add(number, number)
    mailbox = list(range(1, min(kept, read) + 1)) + list(range(1000, 1000 + new))
    count = commands.count(mailbox)
    old = len(mailbox) - new
    # Where more were lost than are known, they are read a second time, and none is lost.
    assert count == (old if read - old < MOST else 0)


def test_what_a_run_has_read_takes_no_more_room_than_its_newest_commands() -> None:
    commands = ReadCommands()
    for number in range(1, 10 * MOST):
        commands.add(number, number)
        commands.add(number, -1)  # read once more
    assert commands.last == 10 * MOST - 1
    assert commands.is_last(10 * MOST - 1)
    assert not commands.is_last(10 * MOST - 2)
    marks = commands._marks
    assert marks is not None
    assert list(marks) == list(range(9 * MOST, 10 * MOST))
