"""Commands whose wake-up is lost: the look at all mailboxes finds them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from support.spine import read_all, relay, request_of, run_async, simulator
from tokenwire.errors import StoreDamagedError
from tokenwire.events import model as m
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.commands import encode_command


class Unheard(MemoryStore):
    """A store that wakes nobody for a command, and in which one mailbox is damaged."""

    damaged: str | None = None

    async def command(self, log: str, data: bytes) -> None:
        self._log(log).commands.append(data)

    async def commands(self, log: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        if log == self.damaged:
            raise StoreDamagedError("a command is damaged")
        return await super().commands(log, after=after)

    async def mailboxes(self, places: Mapping[str, int]) -> dict[str, list[tuple[int, bytes]]]:
        if self.damaged in places:
            raise StoreDamagedError("a command is damaged")
        return await super().mailboxes(places)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_commands_whose_wake_up_is_lost_come_all_the_same(is_damaged, monkeypatch):
    """One read for all runs finds them; a damaged mailbox hides those of no other run."""
    monkeypatch.setattr("tokenwire.relay.takeover.tending._RENEW", 0.05)

    async def main():
        store = Unheard()
        async with simulator() as server, relay(server, log=store) as runs:
            ids = [
                (await runs.start(request_of("scenario:stall"), model="m0")).id for _ in range(4)
            ]
            store.damaged = ids[0] if is_damaged else None
            for run in ids[1:]:
                await store.command(run, encode_command(m.Control(command="cancel")))
            for run in ids[1:]:
                assert (await read_all(runs, run))[-1][1].outcome == "cancelled"
            assert ids[0] in runs.owned

    run_async(main())
