"""The express lane: the same records, bytes and state as without it, whatever comes, and when."""

from __future__ import annotations

import contextlib
import importlib
import json
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.both_ways import END, RUN, chunked, run_over, same_both_ways
from support.corpus import needs_corpus, recordings
from support.redis import redis_server
from tokenwire.errors import StoreFullError
from tokenwire.events.model import TextDelta
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.providers.anthropic.decoder import DIALECT as ANTHROPIC
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.providers.openai.responses import DIALECT as RESPONSES
from tokenwire.providers.registry import DIALECTS, FAMILIES
from tokenwire.relay.record import Chain
from tokenwire.run.call import lane
from tokenwire.run.call.lane import Lane
from tokenwire.run.call.template import Template, is_text, is_written_so, written

WIRES = (
    "native", "ui", "ag-ui", "history", "tanstack", "lines", "token", "openai-chat",
    "openai-responses", "anthropic",
)  # fmt: skip
WORDS = ["The", " lane", ' "is"', " the same", "\n\n", "é中𝄞", " \\ ", "/", "\t", ".", "0", "x"]


def sse(value, event=None):
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {text}\n\n".encode()


def chat(finish=None, **delta):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse({"id": "x", "object": "chat.completion.chunk", "choices": [choice]})


DONE = b"data: [DONE]\n\n"
BEGIN = chat(role="assistant", content="")
STOP = chat(finish="stop")


def messages(words):
    yield sse({"type": "message_start", "message": {"id": "m", "model": "x"}}, "message_start")
    for index, (kind, field) in enumerate((("thinking", "thinking"), ("text", "text"))):
        start = {"type": "content_block_start", "index": index, "content_block": {"type": kind}}
        yield sse(start, start["type"])
        for word in words:
            delta = {"type": f"{kind}_delta", field: word}
            value = {"type": "content_block_delta", "index": index, "delta": delta}
            yield sse(value, value["type"])
        yield sse({"type": "content_block_stop", "index": index}, "content_block_stop")
    yield sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, "message_delta")
    yield sse({"type": "message_stop"}, "message_stop")


def responses(words, *, first=False):
    """``first``: the sequence number stands before the text."""
    number = iter(range(1, 1000))

    def event(kind, **fields):
        count = {"sequence_number": next(number)}
        value = {"type": kind, **count, **fields} if first else {"type": kind, **fields, **count}
        return sse(value, kind)

    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    yield event("response.created", response={"id": "resp_1", "model": "x"})
    yield event("response.output_item.added", output_index=0, item=item)
    part = {"type": "output_text", "text": ""}
    yield event("response.content_part.added", **place, part=part)
    for word in words:
        pad = {"logprobs": [], "obfuscation": "p" * (len(word) % 5)}
        yield event("response.output_text.delta", **place, delta=word, **pad)
    text = "".join(words)
    yield event("response.output_text.done", **place, text=text)
    whole = {**item, "content": [{"type": "output_text", "text": text}]}
    yield event("response.output_item.done", output_index=0, item=whole)
    done = {"id": "resp_1", "status": "completed", "output": [whole]}
    yield event("response.completed", response=done)


TEXT = [BEGIN, *[chat(content=word) for word in WORDS * 3], STOP, DONE]
THOUGHT = [
    BEGIN,
    *[chat(reasoning_content=word) for word in WORDS],
    *[chat(content=word) for word in WORDS],
    STOP,
    DONE,
]
CALL = [
    BEGIN,
    chat(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]),
    *[
        chat(tool_calls=[{"index": 0, "function": {"arguments": piece}}])
        for piece in ['{"', "a", '":', ' "', "one", " two", " {", " }", '"', "}"]
    ],
    chat(finish="tool_calls"),
    DONE,
]


@pytest.mark.parametrize(
    ("dialect", "blocks", "least"),
    [
        (CHAT, TEXT, 32),
        (CHAT, THOUGHT, 16),
        (CHAT, CALL, 3),
        (ANTHROPIC, list(messages(WORDS)), 16),
        (RESPONSES, list(responses(WORDS * 2)), 18),
        (RESPONSES, list(responses(WORDS * 2, first=True)), 18),
    ],
    ids=["text", "thought", "call", "messages", "responses", "responses-first"],
)
@pytest.mark.parametrize("form", [b"%x\r\n", b"%X\r\n"])
def test_a_plain_stream_takes_the_lane(dialect, blocks, least, form):
    found = same_both_ways(dialect, [*chunked(*blocks, form=form), END], wires=WIRES)
    assert found.on_lane >= least


@pytest.mark.parametrize("name", ["obfuscation", "created", "p"])
def test_fields_that_differ_beside_the_text_pass(name):
    blocks = [BEGIN]
    for number, word in enumerate(WORDS * 2):
        value = {"id": "x", "choices": [{"index": 0, "delta": {"content": word}}]}
        pad = number if name == "created" else "abc"[: number % 4]
        blocks.append(sse({name: pad, **value} if number < 12 else {**value, name: pad}))
    found = same_both_ways(CHAT, [*chunked(*blocks, STOP, DONE), END])
    assert found.on_lane >= 18


@pytest.mark.parametrize("name", ["id", "model", "system_fingerprint", "x_groq"])
def test_other_fields_that_differ_do_not(name):
    blocks = [BEGIN]
    for number, word in enumerate(WORDS):
        value = {"id": "x", "choices": [{"index": 0, "delta": {"content": word}}]}
        counts = {"prompt_tokens": 1, "completion_tokens": number}
        more = {"usage": counts} if name == "x_groq" else f"{number}"
        blocks.append(sse({**value, name: more}))
    assert same_both_ways(CHAT, [*chunked(*blocks, STOP, DONE), END]).on_lane == 0


# --- what does not fit ----------------------------------------------------------------------------


def raw(text: bytes, tail: bytes = b"", head: bytes = b"") -> bytes:
    """A chunk of Chat Completions whose text is these very bytes."""
    before = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,'
    after = b'"},"finish_reason":null}]}' + tail + b"\n\n"
    return head + before + b'"delta":{"content":"' + text + after


ODD = [
    rb"\u0041", rb"\ud83d\ude00", rb"\ud83d", rb"\ude00", rb"\/", rb"\u000a", rb"\u0000", b"\x7f",
    rb"\x", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x01", b"",
    b'a","content":"b', b'a","content":null,"x":"', b'"', b"\\", b'a"},"finish_reason":"stop', b"}",
    rb"\"\\\n\r\t\b\f", b"<think>", b"data: x", b"\xe2\x80\xa8", b"a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_text_that_does_not_fit_is_read_as_ever(odd):
    blocks = [BEGIN, *[raw(b"a%d" % n) for n in range(4)], raw(odd)]
    blocks += [raw(b"b%d" % n) for n in range(4)]
    found = same_both_ways(CHAT, [*chunked(*blocks, STOP, DONE), END], wires=WIRES)
    assert found.on_lane >= 1


BETWEEN = {
    "comment": b": hello\n\n",
    "comment before": raw(b"x", head=b": hello\n"),
    "two blocks": raw(b"x") + raw(b"y"),
    "two events": raw(b"x") + b": hello\n\n",
    "crlf": raw(b"x").replace(b"\n", b"\r\n"),
    "no space": raw(b"x").replace(b"data: ", b"data:"),
    "key order": b'data: {"choices":[{"delta":{"content":"x"},"index":0}],"id":"x"}\n\n',
    "white space": b'data: { "id" : "x", "choices": [ {"index":0,"delta":{"content":"x"}} ]}\n\n',
    "1e999": raw(b"x").replace(b'"index":0', b'"index":1e999'),
    "big number": raw(b"x").replace(b'"index":0', b'"index":123456789012345678901234567890'),
    "other choice": raw(b"x").replace(b'"index":0', b'"index":1'),
    "null": raw(b"x").replace(b'"x"}', b"null}"),
    "role": raw(b"x").replace(b'"delta":{', b'"delta":{"role":"assistant",'),
    "reasoning": chat(reasoning_content="hm"),
    "refusal": chat(refusal="no"),
    "error": b'data: {"error":{"message":"gone","code":500}}\n\n',
    "no json": b"data: {oh\n\n",
    "page": b"<html>oh</html>",
    "empty": b"data: \n\n",
    "retry": raw(b"x", head=b"retry: 5\n"),
    "id": raw(b"x", head=b"id: 5\n"),
    "finish": chat(finish="length"),
    "usage": b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    "citation": raw(b"x", tail=b"").replace(b"}]}\n", b'}],"citations":["http://a.example"]}\n'),
    "duplicate key": raw(b"x").replace(b'"content"', b'"content":"y","content"'),
    "nothing": b"\n",
}


@pytest.mark.parametrize("odd", BETWEEN, ids=str)
def test_what_comes_between_is_read_as_ever(odd):
    blocks = [BEGIN, *[raw(b"a%d" % n) for n in range(4)], BETWEEN[odd]]
    blocks += [raw(b"b%d" % n) for n in range(5)]
    found = same_both_ways(CHAT, [*chunked(*blocks, STOP, DONE), END], wires=WIRES)
    assert found.on_lane >= 1


FRAMINGS = {
    "no end": lambda c: c[:-2],
    "extension": lambda c: c.replace(b"\r\n", b";a=b\r\n", 1),
    "leading zero": lambda c: b"0" + c,
    "too long": lambda c: b"%x" % (int(c.split(b"\r\n")[0], 16) + 1) + c[c.index(b"\r\n") :],
    "too short": lambda c: b"%x" % (int(c.split(b"\r\n")[0], 16) - 1) + c[c.index(b"\r\n") :],
    "the end": lambda c: c + END,
    "garbage": lambda c: c + b"zz",
    "next begins": lambda c: c + b"5",
    "other case": lambda c: c[: c.index(b"\r\n")].swapcase() + c[c.index(b"\r\n") :],
}


@pytest.mark.parametrize("framing", FRAMINGS, ids=str)
def test_a_read_that_is_no_whole_chunk_is_parsed(framing):
    chunks = chunked(BEGIN, *[raw(b"%d" % n * 12) for n in range(9)], STOP, DONE)
    chunks[6] = FRAMINGS[framing](chunks[6])
    found = same_both_ways(CHAT, [*chunks, END], wires=WIRES)
    assert found.on_lane >= 2


def test_every_cut_of_a_stream():
    chunks = chunked(BEGIN, *[raw(b"%d\\n" % n) for n in range(4)], STOP, DONE)
    data, start = b"".join(chunks), len(b"".join(chunks[:4]))
    for place in range(start, start + len(chunks[4]) + 1, 3):
        steps = [*chunks[:4], data[start:place], data[place : start + len(chunks[4])]]
        same_both_ways(CHAT, [s for s in [*steps, *chunks[5:], END] if s])


def test_fast_streams_are_read_on_the_tick_as_ever():
    chunks = chunked(BEGIN, *[raw(b"%d" % n) for n in range(12)])
    found = same_both_ways(CHAT, [*chunks, *chunked(STOP, DONE), END], seconds=0.005)
    assert found.on_lane < 12


# --- things that happen at every token ------------------------------------------------------------


async def cancel(scene):
    await scene.runs.cancel(RUN)


async def leave(scene):
    for response in scene.responses:
        response.follower.close()


async def drain(scene):
    scene.connections.drain()


async def heartbeat(scene):
    usual, scene.connections.heartbeat = scene.connections.heartbeat, 0.0
    for response in scene.responses:
        response.follower.poke()
    await scene.idle()
    answering = scene.owned is not None and not scene.answering[0].done()
    assert scene.bodies["native"].data.endswith(b": keep-alive\n\n") or not answering
    scene.connections.heartbeat = usual  # before the server's own look, which real time calls


async def fill(scene):
    for body in scene.bodies.values():
        body.is_full = True


async def join(scene):
    for wire in WIRES:
        await scene.read(wire, f"late {wire}")


async def look(scene):
    snapshot = await scene.runs.snapshot(RUN)
    scene.outcome.readers["snapshot"] = repr(snapshot).encode()
    scene.bodies.setdefault("snapshot", type(scene.bodies["native"])()).data = repr(
        snapshot
    ).encode()


async def steer(scene):
    await scene.runs.worker.store.command(RUN, b'{"type":"control","command":"nothing"}')


async def lose(scene):
    scene.socket.abort()


async def stop(scene):
    if scene.owned is not None:
        await scene.owned.stop()


ACTIONS = [cancel, leave, drain, heartbeat, fill, join, look, steer, lose, stop]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: a.__name__)
@pytest.mark.parametrize("dialect", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_what_happens_at_any_token_is_the_same(action, dialect):
    blocks = TEXT[:12] + TEXT[-2:] if dialect is CHAT else list(responses(WORDS))
    chunks = [*chunked(*blocks), END]
    on_lane = 0
    for place in range(1, len(chunks)):
        steps = [*chunks[:place], action, *chunks[place:]]
        found = same_both_ways(dialect, steps, wires=("native", "ui"), ends=action is not stop)
        on_lane += found.on_lane
    assert on_lane


class Refusing(MemoryStore):
    """A store that is full for a moment at one record."""

    place = 0
    soon = False

    def append_soon(self, log, **options):
        if options["first"] == self.place and self.soon:
            self.place = 0
            return False
        return super().append_soon(log, **options)

    async def append(self, log, **options):
        if options["first"] == self.place and not self.soon:
            self.place = 0
            raise StoreFullError("full")
        return await super().append(log, **options)


@pytest.mark.parametrize("soon", [True, False])
def test_a_store_that_does_not_take_a_record_now_gets_it_later(soon):
    chunks = [*chunked(*TEXT[:10], *TEXT[-2:]), END]
    for place in range(5, 14):

        def store(place=place):
            store = Refusing(clock=lambda: 1.0)
            store.place, store.soon = place, soon
            return store

        found = same_both_ways(CHAT, chunks, store=store, wires=("native", "ui"))
        assert found.closed == "complete"


def test_what_is_told_of_the_run_is_the_same_while_it_runs():
    """A snapshot in the middle has all words that the log has, and no more."""
    seen = []

    async def check(scene):
        snapshot = await scene.runs.snapshot(RUN)
        text = "".join(part.text for part in snapshot.message.content)
        seen.append((text, snapshot.tail, scene.owned.loop.fold.seq))

    steps = []
    for chunk in chunked(*TEXT[:16]):
        steps += [chunk, check]
    found = run_over(CHAT, [*steps, *chunked(STOP, DONE), END], lane=True)
    assert found.on_lane > 10
    said = "".join(WORDS * 2)
    for number, (text, tail, seq) in enumerate(seen):
        assert said.startswith(text)
        assert text == "".join((WORDS * 2)[:number])
        assert tail == seq


def test_a_decoder_that_does_not_keep_its_word_fails_the_run(monkeypatch):
    """What was proven must hold: an answer whose decoder is out of step is no success."""
    found = []

    async def break_it(scene):
        lane = scene.socket.connection.diversion
        assert isinstance(lane, Lane)
        monkeypatch.setattr(type(lane._decoder), "feed", lambda self, data: [])
        found.append(lane)

    steps = [*chunked(*TEXT[:8]), break_it, *chunked(*TEXT[8:12], STOP, DONE), END]
    outcome = run_over(CHAT, steps, lane=True)
    assert found
    assert outcome.closed == "error"


def test_the_largest_answer_ends_at_the_same_byte(monkeypatch):
    monkeypatch.setattr("tokenwire.run.call.reading.MOST_RESPONSE_BYTES", 3000)
    found = same_both_ways(CHAT, [*chunked(*TEXT), END], wires=WIRES)
    assert found.on_lane > 3
    assert found.closed == "error"


# --- generated streams, and recordings ------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from([*WORDS, "<think>", "</think>", "{", '{"a":1}', "data: ", "\ud83d", "null"]),
)


@st.composite
def streams(draw):
    """Chunks of Chat Completions: mostly alike, some odd; how they are cut and joined."""
    blocks = [BEGIN]
    ascii_only, spaced = draw(st.booleans()), draw(st.booleans())
    field = draw(st.sampled_from(["content", "content", "reasoning_content", "reasoning"]))
    pad = draw(st.sampled_from([None, "obfuscation", "created", "sequence_number"]))
    for number in range(draw(st.integers(3, 24))):
        kind = draw(st.integers(0, 11))
        if kind == 0:
            blocks.append(draw(st.sampled_from(list(BETWEEN.values()))))
        elif kind == 1:
            blocks.append(raw(draw(st.sampled_from(ODD))))
        else:
            value = {"id": "x", "choices": [{"index": 0, "delta": {field: draw(TEXTS)}}]}
            if pad is not None:
                value[pad] = number if pad != "obfuscation" else "x" * (number % 7)
            separators = (", ", ": ") if spaced else (",", ":")
            text = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
            blocks.append(b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n")
    chunks = chunked(*blocks, STOP, DONE)
    steps, rest = [], b""
    for chunk in [*chunks, END]:
        rest += chunk
        how = draw(st.integers(0, 9))
        if how == 0:
            continue
        if how == 1:
            place = draw(st.integers(1, len(rest)))
            steps += [rest[:place], rest[place:]]
        else:
            steps.append(rest)
        rest = b""
    return [step for step in [*steps, rest] if step]


@settings(max_examples=40, deadline=None)
@given(streams(), st.sampled_from([0.02, 0.02, 0.005, 0.0]))
def test_generated_streams_are_the_same(steps, seconds):
    same_both_ways(CHAT, steps, wires=("native", "ui", "ag-ui"), seconds=seconds)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=24) | st.text(max_size=24).map(lambda t: written(t.replace("\ud83d", "")))
)
def test_a_text_passes_only_as_a_record_writes_it(data):
    if is_written_so(data) is None or not is_text(data):
        return
    assert written(json.loads(b'"' + data + b'"', strict=False)) == data


def samples():
    """A few recordings of every service, the same in every run."""
    by_service: dict[str, list] = {}
    for recording in recordings():
        if recording.framing in ("sse", "jsonl") and len(recording.wire) < 60_000:
            by_service.setdefault(recording.file.split("/")[0], []).append(recording)
    dice = random.Random(19)
    return [r for found in by_service.values() for r in dice.sample(found, min(2, len(found)))]


@needs_corpus
@pytest.mark.parametrize("recording", samples(), ids=repr)
def test_recordings_are_the_same(recording):
    dialect = importlib.import_module(DIALECTS[FAMILIES[recording.family]]).DIALECT
    blocks = [b + b"\n\n" for b in recording.wire.replace(b"\r\n", b"\n").split(b"\n\n") if b]
    chunks = [*chunked(*blocks), END]
    same_both_ways(dialect, chunks, wires=WIRES)
    data, dice = b"".join(chunks), random.Random(recording.file)
    places = sorted(dice.sample(range(len(data)), min(len(data), 40)))
    ends = sorted({*places, *(sum(map(len, chunks[:n])) for n in range(1, len(chunks) + 1))})
    cut = [data[a:b] for a, b in zip([0, *ends], ends, strict=False) if b > a]
    same_both_ways(dialect, cut)


def test_a_template_is_learned_from_two_reads_and_proven():
    class Decoder(PayloadDecoder):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer

        def plain(self, data):
            return self.answer(data)

    one, two = b'data: {"x":"a"}\n\n', b'data: {"x":"b"}\n\n'
    delta = TextDelta(part=3, text="b", seq=5, t=7)

    def plain(data):
        return TextDelta(part=3, text=json.loads(data[6:])["x"])

    template = Template.learn(Decoder(plain), (one, b"a"), two, delta)
    assert template is not None
    assert (
        template.json % (b"c", 6, 8) == b'{"type":"text-delta","part":3,"text":"c","seq":6,"t":8}'
    )
    for answer in (lambda data: None, lambda data: TextDelta(part=3, text="b")):
        assert Template.learn(Decoder(answer), (one, b"a"), two, delta) is None
    assert Template.learn(Decoder(plain), (b'data: {"y":"a"}\n\n', b"a"), two, delta) is None


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_stores_that_others_share_hold_the_same(kind, tmp_path):
    """Their appends land later, and readers hear of a record when it has landed."""
    chunks = [*chunked(*TEXT), END]
    with contextlib.ExitStack() as stack:
        number = iter(range(9))

        def store():
            if kind == "sqlite":
                return open_store(f"sqlite:{tmp_path}/{next(number)}.db")
            return open_store(stack.enter_context(redis_server()).url)

        found = same_both_ways(CHAT, chunks, store=store, wires=("native", "ui"))
    assert found.on_lane > 20
    assert found.closed == "complete"


class Called(MemoryStore):
    """Appends are calls."""

    def append_soon(self, log, **options):
        return super().append_soon(log, **options)


@pytest.mark.parametrize("store", [MemoryStore, Called])
def test_a_fault_of_ours_while_a_record_is_sealed_ends_the_run(monkeypatch, store):
    count = 0

    def count_up():
        nonlocal count
        count += 1
        if count == 5:
            raise ValueError("a fault of ours")

    if store is MemoryStore:  # appended to by hand
        seal = lane._seal

        def copy():
            count_up()
            return seal.copy()

        monkeypatch.setattr(lane, "_seal", SimpleNamespace(copy=copy))
    else:
        seal_json = Chain.seal_json

        def seal_badly(self, data):
            count_up()
            return seal_json(self, data)

        monkeypatch.setattr(Chain, "seal_json", seal_badly)
    found = run_over(CHAT, [*chunked(*TEXT), END], lane=True, store=store)
    assert count == 5
    assert found.closed == "error"
    assert b"fault of ours" not in b"".join(found.records)
