"""The native twin of the express lane: found or not, and the same as the Python in every case."""

from __future__ import annotations

import contextlib
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.both_ways import state_of
from tokenwire import __version__
from tokenwire.express import MOST_TEXT, Form, Port, Reader, Tape, Usage, form_of
from tokenwire.run.call import lane as module
from tokenwire.run.call import template as templates
from tokenwire.run.call.lane import (
    Lane,
    _Near,
    _Numbers,
    received_in_python,
    twin,
)
from tokenwire.run.call.native import SWITCH, TWIN, numbers_of, twin_of
from tokenwire.run.call.several import size_lines
from tokenwire.run.call.template import Template

ROOT = Path(__file__).parents[2]
needs_twin = pytest.mark.skipif(twin.received is None, reason=f"speedups: {twin.reason}")


# --- finding it -----------------------------------------------------------------------------------


def test_the_twin_has_the_version_and_the_number_of_this_release():
    project = tomllib.loads((ROOT / "speedups" / "pyproject.toml").read_text("utf-8"))
    source = (ROOT / "speedups" / "tokenwire_speedups.c").read_text("utf-8")
    assert project["project"]["version"] == __version__
    assert f'#define VERSION "{__version__}"\n' in source
    assert f"#define TWIN {TWIN}\n" in source


def bind_nothing(*arguments: Any) -> None:
    raise TypeError("Lane._seq is no slot")


@pytest.mark.parametrize(
    ("installed", "reason"),
    [
        (None, "not installed"),
        (SimpleNamespace(), "version unknown is made for another release"),
        (SimpleNamespace(__version__="0.0.9", TWIN=TWIN), "0.0.9 is made for another release"),
        (SimpleNamespace(__version__=__version__, TWIN=TWIN + 1), "is made for another release"),
        (SimpleNamespace(__version__=__version__, TWIN=TWIN), "does not fit this lane: "),
        (
            SimpleNamespace(__version__=__version__, TWIN=TWIN, bind=bind_nothing),
            "does not fit this lane: Lane._seq is no slot",
        ),
    ],
)
def test_a_twin_that_does_not_fit_is_not_used(installed, reason, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setitem(sys.modules, "tokenwire_speedups", installed)
    found = twin_of({}, {})
    assert (found.received, found.data_received, found.pull, found.version) == (None,) * 3 + ("",)
    assert reason in found.reason
    is_other = "release" in reason or installed is None
    assert numbers_of(_Numbers) is _Numbers or not is_other
    assert bool(found.advice) is (installed is not None)


def test_one_that_does_not_load_is_told(monkeypatch, tmp_path):
    (tmp_path / "tokenwire_speedups.py").write_text("raise ImportError('undefined symbol: Py_X')")
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tokenwire_speedups", raising=False)
    assert twin_of({}, {}).reason == "does not load: undefined symbol: Py_X"


@pytest.mark.parametrize("value", ["0", "off", " False "])
def test_a_variable_turns_it_off(value, monkeypatch):
    monkeypatch.setenv(SWITCH, value)
    assert twin_of({}, {}).reason == f"{SWITCH} turns it off"


@needs_twin
def test_it_refuses_classes_without_the_slots():
    import tokenwire_speedups

    matches = (None,) * 5
    for classes in ({}, {"Lane": 5}, {"Lane": object}, {"Lane": SimpleNamespace}):
        with pytest.raises(TypeError):
            tokenwire_speedups.bind({}, classes, matches)
    for arguments in ((), ({}, {}), ({}, {}, ()), (None, {}, matches), ({}, {}, None)):
        with pytest.raises(TypeError):
            tokenwire_speedups.bind(*arguments)


# --- a lane by hand -------------------------------------------------------------------------------

FORM = form_of(b"id: %b\ndata: %b\n\n%b")
#: The JSON of a record before its text, and what other wires make of it.
JSON = b'{"type":"text-delta","of":"5%","text":"'
OF_TEXT = [
    form_of(b"id: %b\ndata: 7%%%b%b\n\n", head=JSON),
    form_of(b"data: %b%b%b\n\n", head=JSON, has_cursor=False),
    form_of(b"id: %b\ndata: %b,%b\n\n", head=JSON, shift=-3),
    form_of(b"id: %b\ndata: %b\n\n%b", head=JSON, is_json=False),
    form_of(b"id: %b\ndata: %b\n\n%b", head=b"{", is_json=False),
]
HEAD, TAIL = b'data: {"n":1,"text":"', b'"}\n\n'


class Seen(Reader):
    """A reader that hears of failures."""

    __slots__ = ("failures",)

    def __init__(self, port: Port | None, after: int) -> None:
        self.port, self.after, self.failures = port, after, []

    def __call__(self, offset: int, record: bytes) -> bool:
        return False

    def fail(self, error: Exception) -> None:
        self.failures.append((type(error), str(error)))


class Desk(Lane):
    """A lane without a run: what is called is written down."""

    calls: list[Any]
    readers: list[Seen]

    def _text_in(self, data: bytes, start: int, end: int) -> bytes:
        self.calls.append("text_in")
        return super()._text_in(data, start, end)

    def _append(self, *arguments: Any) -> bool:
        self.calls.append("append")
        return super()._append(*arguments)

    def make_up(self) -> None:
        self.calls.append("make_up")
        self._text, self._times = bytearray(), bytearray()
        self._room = self._free

    def _borrow(self) -> None:
        self.calls.append("borrow")

    def _repay(self) -> None:
        if self._tape is not None:
            self.calls.append("repay")

    def _give(self, json: bytes) -> bool:
        self.calls.append(json)
        return True


def sent(desk: Desk, number: int) -> Callable[[bytes], None]:
    return lambda data: desk.calls.append((number, data))


def desk(readers: int = 1, *, steps: Any = None) -> Desk:
    """A lane at record 4 of a log, with readers that keep up."""
    lane = Desk.__new__(Desk)
    lane.calls, usage = [], Usage(1 << 30)
    usage.bytes, usage.records = 400, 4
    tape = Tape(usage)
    tape.records, tape.bytes = [b"x" * 100] * 4, 400
    ports = [Port(sent(lane, number)) for number in range(readers)]
    for port in ports:
        port.form, port.is_open = FORM, True
    lane.readers = [Seen(port, 4) for port in ports]
    tape.takers = tuple((lambda: lane.calls.append("wake"), each, each) for each in lane.readers)
    lane._account = SimpleNamespace(
        failed=lambda error: lane.calls.append(repr(error)),
        wait_for_tick=lambda: lane.calls.append("tick"),
    )
    lane._source = SimpleNamespace(
        settle=lambda: lane.calls.append("settle"),
        delay_acks=lambda seq: lane.calls.append(f"delay after {seq}"),
    )
    lane._sink = SimpleNamespace(ready=True)
    lane._watch = module.Watch(None, 1.0)  # type: ignore[arg-type]
    lane._pacer = SimpleNamespace(state=lambda: None)
    lane._tape, lane._epoch, lane._seq, lane._check = tape, 1, 4, b"0123456789abcdef"
    lane._last, lane._lent, lane._usage_bound = 1 << 40, 400, 1 << 30
    lane._room = lane._free = 1 << 30
    lane._due, lane._deltas, lane._misses = 5.0, 0, 0
    lane._quarters, lane._mean, lane._now = 1 << 62, 1.0, 1.0
    lane._base, lane._start, lane._wait_below = 1000, 1.0, module.FAST
    lane._text, lane._times = bytearray(), bytearray()
    lane._lines = size_lines(b"%x\r\n", module._MOST_BYTES)
    lane._head, lane._tail, lane._end, lane._bar = HEAD, TAIL, TAIL + b"\r\n", b"\0"
    lane._json = b'{"type":"text-delta","of":"5%%","text":"%b","seq":%d,"t":%d}'
    lane._varies = steps is not None
    lane._template = template = Template.__new__(Template)
    template.steps, template.head, template.tail, template.bar = steps or [], HEAD, TAIL, b"\0"
    return lane


def read_of(text: bytes, head: bytes = HEAD) -> bytes:
    body = head + text + TAIL
    return b"%x\r\n%b\r\n" % (len(body), body)


READ = read_of(b"word ")
CLOCK = SimpleNamespace(now=1.5)


def everything(lane: Desk) -> list[Any]:
    """The state of a lane and of all that it touches."""
    readers: list[Any] = []
    for reader in lane.readers:
        port = getattr(reader, "port", None)
        readers += [getattr(reader, "after", None), reader.failures, getattr(port, "wrote", None)]
        readers += [getattr(port, "text", None)]
    try:
        state = state_of(lane)
    except Exception as error:  # what a test put there has no such attribute
        state = repr(type(error))
    return [list(lane.calls), *(re.sub(r" at 0x\w+", "", text) for text in (repr(readers), state))]


def outcome(received: Any, lane: Desk, reads: list[Any]) -> list[Any]:
    results: list[Any] = []
    for number, data in enumerate(reads):
        CLOCK.now = 1.5 + number
        try:
            results.append(received(lane, data))
        except BaseException as error:
            results.append((type(error), str(error)))
        results.append(everything(lane))
    return results


def same(change: Callable[[Desk], None], *reads: Any, **options: Any) -> list[Any]:
    """What a changed lane makes of ``reads``, the same in both languages."""
    found = []
    for received in (received_in_python, twin.received):
        lane = desk(**options)
        change(lane)
        found.append(outcome(received, lane, list(reads)))
    python, native = found
    # The Python's own steps are called by it alone.
    calls = [[c for c in e[0] if c not in ("append", "text_in")] for e in python[1::2]]
    assert calls == [[c for c in e[0] if c not in ("append", "text_in")] for e in native[1::2]]
    assert [e[1:] for e in python[1::2]] == [e[1:] for e in native[1::2]]
    assert python[::2] == native[::2]
    return native


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    """A second passes between two reads."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: CLOCK.now))


@needs_twin
@pytest.mark.parametrize("readers", [0, 1, 3])
def test_a_plain_read_calls_no_python_but_send(readers):
    found = same(lambda lane: None, READ, READ, readers=readers)
    assert found[0] is found[2] is True
    assert len(found[3][0]) == 2 * readers
    assert all(isinstance(call, tuple) for call in found[3][0])


STEPS = [
    [(HEAD[:11], templates._NUMBER), (b',"text":"', templates._TEXT)],
    [(HEAD[:11], templates._COUNT), (b',"text":"', templates._TEXT)],
    [(b"data: {", templates._WORD), (b':1,"text":"', templates._TEXT)],
    [(HEAD, templates._TEXT), (b'"', templates._BLANKS)],
    [(HEAD, templates._NUMBER)],
    [],
    [(HEAD, templates._TEXT, 1)],
    [HEAD],
    [("data", templates._TEXT)],
    [(HEAD, re.compile(rb"[a-z ]*").match)],
]


@needs_twin
@pytest.mark.parametrize("steps", STEPS, ids=range(len(STEPS)))
def test_a_template_with_gaps_is_read_alike(steps):
    reads = [read_of(text) for text in (b"a ", b"", b"\\n", b"\\u0041", b'"')]
    numbers = (b"0", b"00", b"05", b"7", b"1" * 15, b"1" * 16, b"1.0", b"1e5", b"1E5", b"", b"-1")
    reads += [read_of(b"a", HEAD.replace(b"1", number)) for number in numbers]
    words = (b'""', b'"%b"' % (b"a" * 256), b'"%b"' % (b"a" * 257), b'"\\""', b'"\xc3\xa9"', b'"')
    reads += [read_of(b"a", HEAD.replace(b'"n"', word)) for word in words]
    blanks = [
        b'%x\r\n%b"a"%b}\n\n\r\n' % (len(HEAD) + 4 + n, HEAD[:-1], b" " * n) for n in range(3)
    ]

    def cut(lane: Desk) -> None:
        if steps and steps[-1][-1] is templates._BLANKS:
            lane._template.tail = b"}\n\n"  # type: ignore[union-attr]

    found = same(cut, *reads, *blanks, READ[:-1], READ + b"x", steps=steps)
    if steps in STEPS[:4]:
        assert True in found[::2]
        assert "text_in" not in found[-1][0]


class Loud(bytes):
    def startswith(self, *arguments: Any) -> bool:
        raise RuntimeError("loud")


THINGS = [
    None, 5, -1, 1 << 62, -(1 << 62), 1 << 63, 1 << 80, True, 0.0, float("nan"), float("inf"),
    -1e300, "x", b"", b"x", Loud(READ), bytearray(READ), memoryview(READ), [], (), {}, object(),
]  # fmt: skip


@needs_twin
@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_a_read_of_any_type(thing):
    same(lambda lane: None, thing, READ)
    for received in (received_in_python, twin.received):
        with pytest.raises((TypeError, AttributeError)):
            received(thing, READ)  # type: ignore[misc]


@needs_twin
def test_objects_whose_attributes_lie_elsewhere():
    """Slots of others, properties, and the very members of our classes in a class without them."""

    class Other:
        bytes, records, takers = 400, [b"x"] * 4, ()
        usage = SimpleNamespace(bytes=400, records=4)
        writer = Tape.__dict__["writer"]

    class Open(Port):
        @property
        def is_open(self) -> bool:  # type: ignore[override]
            return False

    class Empty(Usage):
        __slots__ = ("bytes",)

    def other(lane: Desk) -> None:
        lane._tape = Other()  # type: ignore[assignment]

    def shut(lane: Desk) -> None:
        port = lane.readers[0].port = Open.__new__(Open)
        port.form, port.text, port.send = FORM, None, sent(lane, 0)

    def empty(lane: Desk) -> None:
        lane._tape.usage = Empty.__new__(Empty)  # type: ignore[union-attr]
        lane._tape.usage.bytes, lane._tape.usage.records = 7, 3  # type: ignore[union-attr]

    for change in (other, shut, empty):
        same(change, READ, READ)


def own_form(lane: Desk) -> Form:
    """The form of the first port, which no other test has."""
    port = lane.readers[0].port
    assert port is not None
    port.form = form = Form(b"id: %b\ndata: %b,%b\n\n", JSON, True, True, 5)
    return form


#: Each attribute that the twin reads.
PLACES: dict[str, Callable[[Desk], Any]] = {"": lambda lane: lane}
PLACES |= {"_tape.": lambda lane: lane._tape, "_tape.usage.": lambda lane: lane._tape.usage}
PLACES |= {"reader.": lambda lane: lane.readers[0], "port.": lambda lane: lane.readers[0].port}
PLACES |= {"_template.": lambda lane: lane._template}
PLACES |= {"form.": lambda lane: own_form(lane)}
FLOATS = ("_now", "_mean", "_start", "_due", "_pacer", "_wait_below")
NAMES = [
    *Lane.__slots__, *_Near.__slots__, *_Numbers.__slots__,
    *(f"_tape.{n}" for n in Tape.__slots__),
    *(f"_tape.usage.{n}" for n in Usage.__slots__), *(f"port.{n}" for n in Port.__slots__),
    *(f"form.{n}" for n in Form.__slots__),
    "reader.after", "reader.port", "_template.steps", "_template.tail",
]  # fmt: skip


def change_of(name: str, thing: Any) -> Callable[[Desk], None]:
    place, _, attribute = name.rpartition(".")

    def change(lane: Desk) -> None:
        owner = PLACES[f"{place}." if place else ""](lane)
        is_number = attribute in _Numbers.__slots__  # of which the class takes no other thing
        with contextlib.suppress(*(TypeError, OverflowError) if is_number else ()):
            if thing is change_of:
                if hasattr(owner, attribute):
                    delattr(owner, attribute)
            else:
                setattr(
                    owner, attribute, thing[:] if isinstance(thing, list | bytearray) else thing
                )

    return change


@needs_twin
@pytest.mark.parametrize("name", NAMES)
def test_an_attribute_of_any_type(name):
    for thing in [*THINGS, change_of]:
        if name == "_template.steps":
            same(change_of(name, thing), READ, READ, steps=STEPS[0])
        elif isinstance(thing, int) and name in ("port.fd", "port.socket"):
            continue  # this process may have such a file
        elif isinstance(thing, float) and name in FLOATS:
            same(change_of(name, thing), READ)  # the arithmetic is that of floats in both
        else:
            same(change_of(name, thing), READ, READ)


FORMS = [
    b"", b"%x", b"%b%b%b", b"%x%d-%b%b%b", b"%x%b%b%b", b"%", b"%x %s %a", b"%%%x%%%d%b%b%b%%",
    b"%X%d%b%b%b", b"x" * 20_000 + b"%x%d%b%b%b", "%x%d%b%b%b", b"%b%d%d", b"%x%d%b%b",
    b"%x%d%b%b%d",
]  # fmt: skip


@needs_twin
@pytest.mark.parametrize("form", FORMS, ids=lambda form: repr(form)[-20:])
def test_a_form_of_any_kind(form):
    def change(lane: Desk) -> None:
        own_form(lane).chunk = form  # type: ignore[assignment]

    same(change, READ)
    same(lambda lane: setattr(lane, "_json", form), READ)


@needs_twin
@pytest.mark.parametrize("form", OF_TEXT, ids=range(len(OF_TEXT)))
def test_a_form_with_the_text_alone(form):
    """With readers of several wires, and with an encoder that has to hear of the text."""

    def change(lane: Desk) -> None:
        for reader, other in zip(lane.readers, (form, FORM, form, None), strict=True):
            reader.port.form = other  # type: ignore[union-attr]
        lane.readers[2].port.text = bytearray(b"a" * (MOST_TEXT - 9))  # type: ignore[union-attr]

    texts = (b"word ", b"\\n", b"%b", "é".encode(), b"x")
    found = same(change, *map(read_of, texts), readers=4)
    assert found[-1][0].count("wake") >= 5
    assert found[::2] == [True] * 5


@needs_twin
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, RuntimeError])
def test_errors_go_where_they_go_in_python(error):
    def boom(*arguments: Any) -> Any:
        raise error("boom")

    def send(lane: Desk) -> None:
        lane.readers[0].port.send = boom  # type: ignore[union-attr]

    found = same(send, READ, READ, readers=2)
    if error is not KeyboardInterrupt:
        assert found[0] is True
        assert found[1][1].startswith(f"[5, [({error!r}, 'boom')], True")
    else:
        assert found[0] == (error, "boom")

    def take(lane: Desk) -> None:
        lane._tape.takers = ((boom, boom, None),)  # type: ignore[union-attr]

    def wake(lane: Desk) -> None:
        lane._tape.takers = ((boom, lambda offset, record: False, None),)  # type: ignore[union-attr]

    def wake_only(lane: Desk) -> None:
        lane._tape.takers = ((boom, None, None),)  # type: ignore[union-attr]

    for change in (take, wake, wake_only):
        assert same(change, READ)[0] == (error, "boom")


@needs_twin
def test_takers_of_any_form():
    for takers in ((), (None,), ((1, 2),), ((1, 2, 3, 4),), [(1, None, None)], ((1, None, 5),)):
        same(lambda lane, takers=takers: setattr(lane._tape, "takers", takers), READ)


@needs_twin
def test_a_reader_that_changes_all_while_it_is_written_to():
    def change(lane: Desk) -> None:
        def send(data: bytes) -> None:
            lane.calls.append(data)
            lane._text, lane._tape.takers = bytearray(), None  # type: ignore[union-attr]
            lane.readers[1].port = None
            lane.readers[2].after = 0

        lane.readers[0].port.send = send  # type: ignore[union-attr]

    found = same(change, READ, READ, readers=3)
    assert found[1][0][1:] == ["wake", "wake"]


@needs_twin
@pytest.mark.parametrize(("bound", "waits"), [(10.0, True), (0.4, False), (0.0, False)])
def test_a_fast_stream_waits_for_the_next_tick(bound, waits):
    found = same(lambda lane: setattr(lane, "_wait_below", bound), READ)
    assert found[0] is True
    assert ("tick" in found[1][0]) is waits


@needs_twin
def test_what_was_replaced_in_the_module_holds(monkeypatch):
    monkeypatch.setattr(module, "_seal", SimpleNamespace(copy=lambda: 1 // 0))
    assert "settle" in same(lambda lane: None, READ)[1][0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: "late"))
    same(lambda lane: None, READ)


TEXTS = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([b"\xed\xa0\x80", b"\\", b'\\"', b"\xc0\x80", b"a" * 200]),
)


@needs_twin
@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=5), st.integers(0, 3))
def test_texts_of_any_kind(texts, readers):
    same(lambda lane: None, *map(read_of, texts), readers=readers)


@needs_twin
def test_every_byte_and_every_escape():
    for head in (b"a", b"\\"):
        found = same(lambda lane: None, *(read_of(head + bytes([n])) for n in range(256)))
        assert {True, False} == set(found[::2])


@needs_twin
def test_records_of_every_length_have_the_check_of_the_python():
    for start in range(0, 700, 100):
        texts = [b"a" * size for size in range(start, start + 100)]
        found = same(lambda lane: None, *map(read_of, texts))
        assert found[-2] is True


@needs_twin
def test_nothing_is_leaked():
    """Blocks of memory are the same after 100,000 tokens, and after as many reads that are no
    plain ones."""

    def boom(data: bytes) -> None:
        raise ValueError("boom")

    def spoil(lane: Desk) -> None:
        lane.readers[0].port.send = boom  # type: ignore[union-attr]

    def odd_form(lane: Desk) -> None:
        own_form(lane).chunk = b"%d%d-%b%b%b"

    def of_text(lane: Desk) -> None:
        own_form(lane)
        lane.readers[0].port.text = bytearray()  # type: ignore[union-attr]

    def odd_number(lane: Desk) -> None:
        lane._room = (1 << 63) - 1

    def no_tape(lane: Desk) -> None:
        lane._tape = None

    def others(lane: Desk) -> None:
        lane._tape.takers = ((lambda: None, lambda offset, record: False, None),)  # type: ignore[union-attr]

    plain = [READ, read_of("é".encode())]
    cases: list[tuple[Callable[[Desk], None], list[Any], Any, int]] = [
        (lambda lane: None, plain, None, 50_000),
        (lambda lane: None, plain, STEPS[0], 10_000),
        (lambda lane: None, [b"", None, bytearray(READ), READ[:-1], read_of(b"\xff")], None, 2000),
        *(
            (each, plain, None, 3000)
            for each in (spoil, odd_form, of_text, odd_number, no_tape, others)
        ),
    ]
    for change, reads, steps, rounds in cases:
        lane = desk(steps=steps)
        lane.readers[0].port.send = lambda data: None  # type: ignore[union-attr]
        change(lane)
        counts = []
        for count in (300, rounds):
            taken = 0
            for _ in range(count):
                for data in reads:
                    try:
                        taken += twin.received(lane, data)  # type: ignore[misc]
                    except (TypeError, AttributeError):
                        pass
                if lane._tape is not None:
                    lane._tape.records[4:], lane._seq, lane.readers[0].after = [], 4, 4
                lane._text, lane._times = bytearray(), bytearray()
                lane.calls, lane.readers[0].failures, lane._free = [], [], lane._room
                lane._mean = lane._now = 1.0
            counts.append(sys.getallocatedblocks())
            assert taken == count * (2 if reads is plain else 1)  # that of a `bytearray`
        assert counts[1] - counts[0] < 200, change
