"""A cancel that comes as a run is about to end with a tool in doubt: it decides."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tokenwire.events.fold import Fold
from tokenwire.events.model import Control, RunEnd
from tokenwire.events.order import Order
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_cancel_decides_over_a_tool_in_doubt(is_cancelled: bool) -> None:
    async def main() -> RunEnd:
        inbox = Inbox()
        if is_cancelled:
            inbox.put(Control(command="cancel", by="somebody"))
        loop = SimpleNamespace(
            fold=Fold(),
            order=Order(),
            inbox=inbox,
            _out_of_steps=False,
            _stopped=False,
            _stamp=list,
        )
        (end,) = Loop._end(loop, "call-1")  # type: ignore[arg-type]
        assert isinstance(end, RunEnd)
        return end

    end = asyncio.run(main())
    assert end.outcome == ("cancelled" if is_cancelled else "interrupted")
    assert end.reason == (None if is_cancelled else "tool_in_doubt")
