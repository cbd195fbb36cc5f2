"""The express way: a plain delta from the provider to its readers in one turn of the event loop.

While the tasks of a run and of its readers sleep, whoever brings bytes hands them on by plain
function calls: bytes (`providers.http.connection.Response`) to events (`run.call.reading.Reading`),
numbered and folded (`run.loop.Loop.take`), sealed and appended (`relay.produce.Producer.take`), a
page for each reader (`relay.follow.Follower`), encoded and written (`server.edge.respond`). Each
of these answers with one `Taken`.

Most reads do not even come that far: `run.call.lane` takes them before they are parsed.

Always true: both ways share the function of each step (`Loop.seal`, `Chain.seal_all`,
`Producer.landed`, `Follower.advance`, `BatchEncoder.encode`), so events, order and bytes are the
same on both; a faster implementation of a step replaces that one function. What is not taken goes
the ordinary way, through the task.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["NO", "SETTLE", "YES", "Taken"]


class Taken(IntEnum):
    """What became of something that was offered past a sleeping task."""

    #: Nothing happened: the task has to take it.
    NO = 0
    #: It is done; the task may sleep on.
    YES = 1
    #: It was taken, and the task has to wake to settle the rest (a full store, the end, a fault).
    SETTLE = 2


#: The members by themselves: on a token's way, looking them up in the class would be felt.
NO: Final = Taken.NO
YES: Final = Taken.YES
SETTLE: Final = Taken.SETTLE
