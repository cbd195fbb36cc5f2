"""Records on Redis that go to readers by hand when they have landed: nobody can tell them from
those that each layer passed on."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from run.test_lane import ACTIONS, TEXT, cancel, heartbeat, join, look
from support.both_ways import END, Outcome, Step, chunked, run_over
from support.redis import RedisServer, redis_server
from tokenwire.log.open import open_store
from tokenwire.log.spool import Spools
from tokenwire.log.tail import Tails
from tokenwire.providers.openai.chat import DIALECT as CHAT

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def called(self: Tails, log: str, record: bytes, tail: int) -> None:
    """`Tails.came_delta` by a call of each layer."""
    self.came(log, [record], tail, None)


def refused(self: Spools, *arguments: object) -> bool:
    """`Spools.append`, where every append is a call of its own."""
    return False


def same(server: RedisServer, steps: list[Step], **options: object) -> Outcome:
    """The outcome with records appended and given by hand, the less of both ways; fails where it
    differs from that without."""

    def store() -> object:
        server.ask("FLUSHALL")
        return open_store(server.url)

    def outcome() -> Outcome:
        return run_over(CHAT, steps, lane=True, store=store, **options)  # type: ignore[arg-type]

    with patch.object(Spools, "append", refused):
        with patch.object(Tails, "came_delta", called):
            plain = outcome()
        given = outcome()
    appended = outcome()
    assert plain.by_hand == 0
    for by_hand in (given, appended):
        assert by_hand.records == plain.records
        assert by_hand.readers == plain.readers
        assert by_hand.seen() == plain.seen()
    return min(given, appended, key=lambda outcome: outcome.by_hand)


@pytest.mark.parametrize("wires", [("native",), ("native", "ui", "openai-chat")])
def test_readers_get_the_same_bytes(server: RedisServer, wires: tuple[str, ...]) -> None:
    found = same(server, [*chunked(*TEXT), END], wires=wires)
    assert found.by_hand > 20
    assert found.closed == "complete"


#: A snapshot says when its run was created; how many heartbeats of no pause go out depends on when
#: Redis answers.
_ACTIONS = [action for action in ACTIONS if action not in (look, heartbeat)]


@pytest.mark.parametrize("action", _ACTIONS, ids=lambda a: a.__name__)
def test_what_happens_between_two_tokens_is_the_same(server: RedisServer, action: Step) -> None:
    chunks = chunked(*TEXT)
    for place in (6, 9):
        steps = [*chunks[:place], action, *chunks[place:], END]
        same(server, steps, wires=("native", "ui"), ends=action.__name__ != "stop")  # type: ignore[union-attr]


def test_several_readers_of_one_wire(server: RedisServer) -> None:
    chunks = chunked(*TEXT)
    found = same(server, [*chunks[:8], join, *chunks[8:20], cancel, *chunks[20:], END])
    assert found.by_hand > 10
