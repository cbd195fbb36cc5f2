"""What is done with groups in C: the same as in Python, in every case."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenwire.express import Port, Reader, form_of
from tokenwire.log import spool as spools
from tokenwire.log.redis.appending import packing
from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.redis.appending.packing import pack, pack_items, unpack_items
from tokenwire.log.redis.appending.spools import RedisSpools
from tokenwire.log.spool import Batch, Spool, Spools
from tokenwire.log.tail import Heard
from tokenwire.relay.record import Chain

needs_twin = pytest.mark.skipif(spools._native is None, reason="the twin is not installed")
ROUND, NOW = 7, 1000.0


# --- a group for Redis ----------------------------------------------------------------------------


class Log:
    """One log with an item of a group; what differs from the plain case is an argument."""

    def __init__(self, *, first: int = 3, count: int = 1, epoch: int = 1, size: int = 40) -> None:
        self.first, self.count, self.epoch, self.size = first, count, epoch, size
        self.owned: dict[str, Any] | None = {}

    def __repr__(self) -> str:
        return repr(vars(self))


def log_of(draw: Any) -> Log:
    log = Log(
        first=draw(st.sampled_from([1, 2, 300, 70_000])),
        count=draw(st.sampled_from([1, 1, 1, 0, 2, 3, 8, 9])),
        epoch=draw(st.sampled_from([1, 1, 2])),
        size=draw(st.integers(1, 300)),
    )
    plain = {"bytes": 500, "noted": 400, "permit": 5_000_000, "permit_end": NOW + 1}
    plain |= {"permit_round": ROUND, "published_at": NOW - 0.5, "has_readers": False}
    other = {
        "bytes": st.integers(0, 9000),
        "noted": st.integers(0, 9000),
        "permit": st.integers(0, 1 << 53),
        "permit_end": st.sampled_from([0.0, NOW, NOW + 0.001]),
        "permit_round": st.sampled_from([0, ROUND - 1, ROUND + 1]),
        "published_at": st.sampled_from([0.0, NOW - 1, NOW - 1.001, NOW + 5]),
        "has_readers": st.just(value=True),
        "words": st.none(),
    }
    changes = draw(st.fixed_dictionaries({}, optional=other))
    keeps = draw(st.sets(st.sampled_from(sorted(other)), min_size=len(other) - 2))
    changes = {name: value for name, value in changes.items() if name not in keeps}
    log.owned = None if draw(st.integers(0, 9)) == 0 else plain | changes
    return log


logs_of_any_kind = st.composite(log_of)()


def group(logs: list[Log]) -> tuple[list[spools.Item], dict[str, Owned]]:
    tails = Spools(lambda batch: None)
    items, owned_of = [], {}
    for number, log in enumerate(logs):
        name = f"log {number}"
        spool = Spool(tails, name, log.epoch, log.first - 1)
        spool.records += [b"%03d" % number + b"x" * log.size] * max(log.count, 1)
        items.append((spool, log.first - 1, log.first - 1 + log.count))
        if log.owned is not None:
            owned = owned_of[name] = Owned("me", "nonce", 60.0)
            owned.lease_start = NOW  # else it is the moment at which it was made
            key = b"$%d\r\n%b:log\r\n" % (len(name) + 4, name.encode())
            owned.lease_start = NOW  # both times the same
            owned.words = (b"both", b"nonce", b"live", "meta", key)
            for attribute, value in log.owned.items():
                setattr(owned, attribute, value)
    return items, owned_of


def state(owned_of: dict[str, Owned]) -> list[Any]:
    others = ("refreshed", "commands")  # a time, and an object of each
    names = [name for name in Owned.__slots__ if name not in others]
    return [{name: getattr(one, name) for name in names} for one in owned_of.values()]


def seen(packed: packing.Package) -> Any:
    return [[item[0].log for item in items] for items in packed[:2]], packed[2:]


@needs_twin
@given(st.lists(logs_of_any_kind, max_size=12), st.sets(st.integers(0, 12), max_size=2))
def test_generated_groups_are_packed_the_same(logs: list[Log], others: set[int]) -> None:
    bounds = (packing.PUBLISH_SECONDS, packing.NOTED_BYTES, packing.MOST_OFFSET)
    apart = {f"log {number}" for number in others}
    items, owned_of = group(logs)
    found = pack_items(items, owned_of, apart, ROUND, NOW, *bounds)
    items_again, owned_again = group(logs)
    assert pack is not pack_items
    again = pack(items_again, owned_again, apart, ROUND, NOW)
    assert seen(found) == seen(again)
    assert state(owned_of) == state(owned_again)
    # Each item goes one way, in its order; what is packed is counted, until it is taken back.
    order = [item[0].log for item in found.items + found.rest]
    assert sorted(order) == sorted(item[0].log for item in items)
    sizes = {log.log: sum(map(len, log.records[start:end])) for log, start, end in found.items}
    counts = {log: owned.bytes for log, owned in group(logs)[1].items()}
    for log, count in counts.items():
        assert owned_of[log].bytes == count + sizes.get(log, 0)
    unpack_items(found.items, owned_of)
    assert {log: owned.bytes for log, owned in owned_of.items()} == counts


def test_a_plain_group_is_packed_whole() -> None:
    logs = []
    for _ in range(40):
        log = Log()
        log.owned = {"has_readers": False, "permit_round": ROUND, "permit_end": NOW + 1}
        log.owned |= {"published_at": NOW, "permit": 9}
        logs.append(log)
    for native in {spools._native, None}:
        with patch.object(packing, "_native", native):
            items, owned_of = group(logs)
            packed = pack(items, owned_of, set(), ROUND, NOW)
        assert packed.items == items
        assert (packed.rest, packed.until, packed.size) == ([], 9, 40)
        assert packed.commands.count(b":log\r\n$43\r\n") == 40
        assert packed.commands.startswith(b"*3\r\n$6\r\nRPUSHX\r\n$")


@needs_twin
@pytest.mark.parametrize("item", [None, (), (1, 2), ("spool", 0, 1), (None, None, None)])
def test_what_is_no_item_is_refused_or_left(item: Any) -> None:
    try:
        taken, rest, *_ = spools._native.pack([item], {}, set(), ROUND, NOW, 1.0, 4096, 99)
    except TypeError:
        return
    assert (taken, rest) == ([], [item])


# --- what has landed ------------------------------------------------------------------------------

JSON = b'{"type":"text-delta","part":0,"text":"%b","seq":%d,"t":1}'
FORMS = [
    form_of(b"id: %b\ndata: %b\n\n%b"),
    form_of(b"data: %b%b%b\n\n", head=b'{"type":"text-delta","part":0,"text":"', has_cursor=False),
    form_of(b"id: %b\ndata: %b\n\n%b", head=b"{other"),
    None,
]


class Kept(Reader):
    """A reader whose task is asleep; everything that it hears is written down."""

    __slots__ = ("heard", "takes")

    def __init__(self, port: Port | None, *, takes: bool) -> None:
        self.after, self.check, self.port, self.takes = 0, b"", port, takes
        self.heard: list[Any] = []

    def __call__(self, offset: int, record: bytes) -> bool:
        self.heard.append((offset, record))
        if self.takes:
            self.after, self.check = offset, record[:16]
        return self.takes

    def fail(self, error: Exception) -> None:
        self.heard.append(repr(error))

    def wake(self) -> None:
        self.heard.append("wake")


class Desk:
    """Spools with logs whose groups land when a test says so."""

    def __init__(self, *, keeps: bool) -> None:
        self.groups: list[Batch] = []
        self.tails: Spools = RedisSpools() if keeps else Spools(self.groups.append)
        if isinstance(self.tails, RedisSpools):
            self.tails.carry_by(self.groups.append)
        self.chains: dict[str, Chain] = {}
        self.readers: list[Kept] = []
        self.told: list[Any] = []

    def read(self, log: str, form: int, *, takes: bool, is_open: bool, text: bool) -> None:
        heard: list[Any] = []
        port = Port(lambda data: heard.append(bytes(data)))
        port.is_open, port.form = is_open, FORMS[form]
        port.text = bytearray() if text else None
        reader = Kept(port if form != 2 or text else None, takes=takes)
        reader.heard = heard
        if log in self.chains:
            spool = self.tails._spools[log]
            reader.after, reader.check = spool.landed, spool.records[spool.landed - 1][:16]
        self.readers.append(reader)
        self.tails.subscribe(log, reader.wake, take=reader)

    def add(self, log: str, text: bytes) -> None:
        chain = self.chains.setdefault(log, Chain(log))
        spool = self.tails.spool(log)
        count = len(spool.records) if spool is not None else 0
        record = chain.seal_json(JSON % (text, count + 1))
        if spool is None:
            assert self.tails.append(log, 1, 1, [record], self.told.append)
            return
        assert spool.takers is not None
        spool.records.append(record)
        for wake, _, _ in spool.takers:
            wake()

    def land(self) -> None:
        self.tails.hand_over()
        while self.groups:
            self.tails.land(self.groups.pop(0), None)

    def seen(self) -> Any:
        found: list[Any] = [self.told]
        for log, spool in self.tails._spools.items():
            page = self.tails.page(log, 0, 99, 1 << 20)
            found.append((log, spool.landed, spool.synced, page and page.records))
        for reader in self.readers:
            port = reader.port
            of_port = port and (port.wrote, port.text, port.fd)
            found.append((reader.after, reader.check, reader.heard, of_port))
        return found


def outcome(steps: list[Any], *, keeps: bool, native: Any) -> Any:
    async def main() -> Any:
        desk = Desk(keeps=keeps)
        desk.add("a", b"one")
        desk.add("b", b"one")
        desk.land()
        for name, *values in steps:
            if name == "read":
                log, form, takes, is_open, text = values
                desk.read(log, form, takes=takes, is_open=is_open, text=text)
            elif name == "add":
                desk.add(*values)
            elif name == "several":
                for number in range(values[1]):
                    desk.add(values[0], b"%d" % number)
            elif name == "land":
                desk.land()
            else:  # a failover has given the reader another branch; its task is about to read
                for reader in desk.readers[-1:]:
                    reader.check = values[0]
        desk.land()
        found = desk.seen()
        desk.tails.close()
        return found

    with patch.object(spools, "_native", native):
        return asyncio.run(main())


log_names = st.sampled_from(["a", "b"])
texts = st.sampled_from([b"word", b"\\n", b'a\\"b', b"", "ä".encode(), b"x" * 1100])
steps_of_any_kind = st.one_of(
    st.tuples(st.just("add"), log_names, texts),
    st.tuples(st.just("add"), log_names, texts),
    st.tuples(st.just("several"), log_names, st.integers(2, 10)),
    st.tuples(
        *(st.just("read"), log_names, st.integers(0, 3), st.booleans(), st.booleans()),
        st.booleans(),
    ),
    st.just(("land",)),
    st.tuples(st.just("other"), st.sampled_from([b"", b"0" * 16, b"0" * 15, None])),
)
READS = [("read", "a", 0, False, True, False), ("add", "a", b"two"), ("land",)]


@needs_twin
@given(st.lists(steps_of_any_kind, max_size=40), st.booleans())
@example([*READS, ("other", b"0" * 16), ("add", "a", b"three")], True)
@example([*READS, ("add", "a", b"three"), ("land",), ("add", "a", b"four")], True)
@example([*READS, ("several", "a", 3), ("land",), ("several", "a", 9)], True)
@example([*READS, ("several", "a", 3), ("land",), ("several", "a", 8)], False)
@example([*READS, ("other", b"0" * 16), ("several", "a", 3)], True)
@settings(deadline=None)
def test_generated_groups_land_the_same(steps: list[Any], keeps: bool) -> None:
    plain = outcome(steps, keeps=keeps, native=None)
    assert outcome(steps, keeps=keeps, native=spools._native) == plain


def test_a_store_that_may_lose_what_it_has_is_compared_with() -> None:
    """A reader gets a record past its task only behind the one that it has."""
    for native in {spools._native, None}:
        for keeps in (True, False):
            found = outcome(
                [*READS, ("other", b"0" * 16), ("add", "a", b"three")], keeps=keeps, native=native
            )
            after, check, heard, _ = found[-1]
            assert (after == 2) == keeps
            assert (heard[-1] == "wake") == keeps
            assert check == b"0" * 16
        written = outcome([*READS, ("add", "a", b"three")], keeps=True, native=native)[-1]
        assert written[0] == 3
        assert written[1] == written[2][-1].partition(b"3-")[2][:16]


@pytest.mark.parametrize("keeps", [True, False])
def test_several_records_of_a_log_are_one_write(keeps: bool) -> None:
    for native in {spools._native, None}:
        steps = [*READS, ("several", "a", 3), ("land",), ("add", "a", b"x"), ("land",)]
        single = [
            *READS,
            *[step for n in range(3) for step in (("add", "a", b"%d" % n), ("land",))],
        ]
        single += [("add", "a", b"x")]
        after, check, heard, _ = outcome(steps, keeps=keeps, native=native)[-1]
        expected = outcome(single, keeps=keeps, native=native)[-1]
        assert (after, check) == expected[:2] == (6, check)
        assert heard[1] == b"".join(expected[2][1:4])
        assert [heard[0], *heard[2:]] == [expected[2][0], *expected[2][4:]]


@given(
    st.lists(
        st.tuples(st.integers(0, len(FORMS) - 1), st.booleans(), st.booleans(), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.lists(texts, min_size=1, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_what_another_process_appends_reaches_readers_like_own_records(
    readers: list[tuple[int, bool, bool, bool]], words: list[bytes]
) -> None:
    async def main() -> None:
        here, there = (Desk(keeps=False) for _ in range(2))
        for desk in (here, there):
            for form, takes, is_open, text in readers:
                desk.read("a", form, takes=takes, is_open=is_open, text=text)
        for offset, word in enumerate(words, 1):
            here.add("a", word)
            record = here.tails._spools["a"].records[offset - 1]
            here.land()
            there.tails.hear([("a", offset - 1, [record])])
        assert there.seen()[1:] == here.seen()[2:]  # all of the readers
        for desk in (here, there):
            desk.tails.close()

    with patch.object(spools, "_native", None):
        asyncio.run(main())


def test_what_another_process_appends_is_written_by_hand() -> None:
    desk = Desk(keeps=False)
    desk.read("a", 0, takes=True, is_open=True, text=False)
    record = Chain("a").seal_json(JSON % (b"word", 1))
    desk.tails.hear([("a", 0, [record])])
    assert desk.readers[0].heard == [FORMS[0].fill(1, record[:16], record[16:], b"word")]
    page = desk.tails.page("a", 0, 9, 999)
    assert page is not None
    assert page.records == [record]


# --- what other processes appended ----------------------------------------------------------------


def heard_outcome(steps: list[Any], *, keeps: bool, native: Any) -> Any:
    """What readers of two logs of another process saw. A step: a log, how many records follow, of
    which text, and what is not as on the plain way."""

    async def main() -> Any:
        desk = Desk(keeps=keeps)
        chains = {log: Chain(log) for log in "ab"}
        tails = dict.fromkeys("ab", 0)
        for name, *values in steps:
            if name == "read":
                desk.read(*values[:2], takes=values[2], is_open=values[3], text=values[4])
                reader = desk.readers[-1]
                reader.after, reader.check = tails[values[0]], chains[values[0]].last
            elif name == "own":  # the reader's process takes the run over, or thinks so
                log = values[0]
                tails[log] += 1
                record = chains[log].seal_json(JSON % (b"own", tails[log]))
                desk.tails.append(log, 2, tails[log], [record], desk.told.append)
                desk.land()
            elif name == "lose":
                desk.tails.forget(values[0])
            elif name == "bad wake":
                desk.tails.subscribe(values[0], lambda: 1 // 0)
            else:
                groups: list[Heard] = []
                for log, count, text, what in values[0]:
                    start = tails[log]
                    texts = [text, *(b"%d" % n for n in range(1, count))]
                    jsons = [JSON % (one, start + n) for n, one in enumerate(texts, 1)]
                    records = [chains[log].seal_json(json) for json in jsons]
                    tails[log] += count
                    if what == "branch":  # as after a failover: none follows the one before
                        records[0] = b"f" * 16 + records[0][16:]
                    groups.append((log, start, None if what == "damaged" else records))
                    if what == "twice":
                        groups.append(groups[-1])
                    if what == "hole":
                        tails[log] += 1
                desk.tails.hear(groups)
        pages = [desk.tails.page(log, 0, 999, 1 << 20) for log in "ab"]
        later = [desk.tails.page(log, tails[log] - 1, 999, 1 << 20) for log in "ab" if tails[log]]
        found = desk.seen(), pages, later, tails
        desk.tails.close()
        return found

    with patch.object(spools, "_native", native):
        return asyncio.run(main())


heard_steps = st.one_of(
    st.tuples(
        *(st.just("read"), log_names, st.integers(0, 3), st.booleans(), st.booleans()),
        st.booleans(),
    ),
    st.tuples(
        st.just("hear"),
        st.lists(
            st.tuples(
                log_names,
                st.sampled_from([1, 1, 1, 2, 3, 8, 9]),
                texts,
                st.sampled_from(["", "", "", "", "branch", "damaged", "twice", "hole"]),
            ),
            max_size=4,
        ),
    ),
    st.tuples(st.sampled_from(["own", "lose", "bad wake"]), log_names),
)
HEAR = ("hear", [("a", 1, b"word", "")])
TAKES = ("read", "a", 0, True, True, False)


@needs_twin
@given(st.lists(heard_steps, max_size=30), st.booleans())
@example([READS[0], HEAR, HEAR, ("hear", [("a", 3, b"word", "")])], False)
@example([READS[0], HEAR, HEAR, ("hear", [("a", 8, b"word", "")]), HEAR], True)
@example([READS[0], HEAR, HEAR, ("hear", [("a", 1, b"word", "branch")]), HEAR], True)
@example([READS[0], HEAR, ("own", "a"), HEAR, ("own", "a")], False)
@example([READS[0], HEAR, *[("hear", [("a", 9, b"x" * 1100, "")])] * 60, HEAR], False)
@settings(deadline=None)
def test_what_others_append_is_told_the_same(steps: list[Any], keeps: bool) -> None:
    plain = heard_outcome(steps, keeps=keeps, native=None)
    assert heard_outcome(steps, keeps=keeps, native=spools._native) == plain


@pytest.mark.parametrize("keeps", [True, False])
def test_records_of_others_are_one_write_and_need_no_call_of_their_reader(keeps: bool) -> None:
    steps = [TAKES, HEAR, HEAR, ("hear", [("a", 3, b"word", "")])]
    for native in {spools._native, None}:
        desk, *_ = heard_outcome(steps, keeps=keeps, native=native)
        after, _, heard, _ = desk[-1]
        assert after == 5
        if keeps:  # what is before the first one is not known, so the reader compares
            first = heard.pop(0)
            assert first[0] == 1
            heard.insert(0, b"")
        assert [chunk.count(b"id: ") for chunk in heard] == [int(not keeps), 1, 3]


def test_a_record_that_does_not_follow_is_for_each_reader_to_compare() -> None:
    steps = [TAKES, HEAR, HEAR, ("hear", [("a", 1, b"word", "branch")])]
    for native in {spools._native, None}:
        desk, *_ = heard_outcome(steps, keeps=True, native=native)
        heard = desk[-1][2]
        assert isinstance(heard[-2], bytes)
        assert heard[-1] == (3, b"f" * 16 + JSON % (b"word", 3))


def test_a_reader_that_cannot_be_woken_costs_no_other_its_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps = [("bad wake", "a"), ("read", "b", 0, True, True, False)]
    steps += [("hear", [("a", 1, b"word", ""), ("b", 1, b"word", "")])] * 2
    for native in {spools._native, None}:
        desk, *_ = heard_outcome(steps, keeps=False, native=native)
        assert desk[-1][0] == 2
    assert "the wake-up of a reader failed" in caplog.text
    reports = [record.exc_info for record in caplog.records]
    frames = [traceback.extract_tb(info[2])[-1].name for info in reports if info is not None]
    assert frames == ["<lambda>"] * len(reports)
