"""Chained records and cursors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.event_strategies import runs
from support.spine import run_async
from tokenwire.errors import CursorError, StoreDamagedError
from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.follow import open_follower
from tokenwire.relay.record import Chain, cursor_of, json_of, parse_cursor, verify


def sealed(run, events):
    chain = Chain(run)
    return [chain.seal(event) for event in events]


@given(runs())
def test_records_hold_their_events_and_verify(events):
    records = sealed("run-a", events)
    assert [decode(json_of(r)) for r in records] == events
    assert verify("run-a", records).last == records[-1][:16]


@given(runs(), st.data())
def test_any_flipped_bit_is_noticed(events, data):
    records = sealed("run-a", events)
    at = data.draw(st.integers(0, len(records) - 1))
    byte = data.draw(st.integers(0, len(records[at]) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(records[at])
    damaged[byte] ^= 1 << bit
    with pytest.raises(StoreDamagedError):
        verify("run-a", [*records[:at], bytes(damaged), *records[at + 1 :]])


@given(runs())
def test_two_runs_never_share_a_cursor(events):
    ours, theirs = sealed("run-a", events), sealed("run-b", events)
    for offset, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        assert cursor_of(offset, a) != cursor_of(offset, b)


@given(st.integers(0, 10**14), st.binary(min_size=8, max_size=8))
def test_a_cursor_is_read_back(offset, check):
    text = f"{offset}-{check.hex()}"
    assert parse_cursor(text) == (offset, check.hex().encode())


@pytest.mark.parametrize("start", [None, "", "-1", "0", 0])
def test_the_start(start):
    assert parse_cursor(start)[0] == 0


@pytest.mark.parametrize(
    "bad", ["x", "1-", "1-zz", "-2", "1-0123456789abcdef0", "1 ", "1\n", "9" * 16, "٣", "1.5"]
)
def test_what_is_no_cursor_is_refused(bad):
    with pytest.raises(CursorError):
        parse_cursor(bad)


def test_a_live_reader_is_not_taken_to_another_branch():
    """A failover takes records that a reader has; others come in their place before it looks."""

    class Rewinding(MemoryStore):
        rewinds = True

    async def main():
        log = Rewinding()
        await log.create("r", owner="o")
        events = [m.TextDelta(part=0, text=str(n)) for n in range(6)]
        chain = Chain("r")
        first = [chain.seal(event) for event in events]
        await log.append("r", epoch=1, first=1, records=first[:4])
        follower = await open_follower(log, "r", None)
        assert (await follower.next()).records == first[:4]
        await log.append("r", epoch=1, first=5, records=first[4:5])
        assert (await follower.next()).records == first[4:5]
        late = await open_follower(log, "r", cursor_of(5, first[4]))
        chain = Chain("r")
        other = [chain.seal(m.TextDelta(part=0, text=f"other {n}")) for n in range(9)]
        log._logs["r"].records[:] = other
        for reader in (follower, late):
            reader._wake()
            with pytest.raises(CursorError) as caught:
                await reader.next()
            assert caught.value.details["reason"] == "other_branch"
            reader.close()
        fresh = await open_follower(log, "r", None)
        assert (await fresh.next()).records == other
        fresh.close()

    run_async(main())
