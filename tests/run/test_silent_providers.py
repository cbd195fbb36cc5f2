"""Silence and keep-alives of a provider: which clock runs, and what is never asked twice."""

from __future__ import annotations

import asyncio
import json

import pytest

from support.raw_provider import HEAD, chunked, closing, drip, held, raw_provider
from support.spine import QUICK, ask, request_of, run_async
from tokenwire.errors import AuthenticationError, DeadlineError, NetworkError, ProviderError
from tokenwire.observe.facts import Retried
from tokenwire.observe.hooks import observe
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.registry import Registry
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.plan import Plan
from tokenwire.run.stream import Run, new_run_id

COMMENT, PING = b": ping\n\n", b'event: ping\ndata: {"type": "ping"}\n\n'
WORD = {"id": "x", "choices": [{"index": 0, "delta": {"content": "a "}}]}
LAST = {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


BEGUN = b"".join(
    b"event: %b\ndata: %b\n\n" % (p["type"].encode(), json.dumps(p).encode())
    for p in (
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    )
)


def sse(*payloads: object) -> bytes:
    return b"".join(b"data: " + json.dumps(p).encode() + b"\n\n" for p in payloads)


def run_of(candidate: tuple[Dialect, Target], deadlines: Deadlines | None = None) -> Run:
    plan = Plan(
        run=new_run_id(),
        request=request_of("x"),
        candidates=[candidate],
        model="m",
        retry=QUICK,
        deadlines=deadlines or Deadlines(),
    )
    return Run(plan, http=HttpClient)


async def outcome_of(run: Run) -> str:
    """The clock that ended the run."""
    async with asyncio.timeout(60), run:
        with pytest.raises(DeadlineError) as caught:
            await run.result()
    return caught.value.which


@pytest.mark.parametrize("begun", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["openai-chat", "anthropic"])
def test_a_provider_that_only_pings_ends_by_the_longer_clock(name: str, begun: bool) -> None:
    """The pings come well within the idle clock, and reach far over it."""
    first, piece = (BEGUN, PING) if name == "anthropic" else (sse(WORD), COMMENT)
    deadlines = Deadlines(first_event=0.5, idle=0.5, keep_alive=1.5)

    async def main() -> None:
        start = HEAD + chunked(first if begun else b"")
        async with raw_provider(drip(start, chunked(piece))) as provider:
            model = f"{name}+{provider.url}/v1#m"
            run = run_of(Registry(env={}).resolve(model), deadlines)
            assert await outcome_of(run) == "keep_alive"
            assert len(provider.requests) == 1

    run_async(main())


EMPTY = sse({"id": "x", "choices": []})
BLANK = sse({"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})


@pytest.mark.parametrize("begun", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(EMPTY, id="no choice"),
        pytest.param(BLANK, id="an empty text"),
        pytest.param(b"\n\n", id="blank lines"),
        pytest.param(b"data: ping\n\n", id="a bare ping"),
        pytest.param(b'data: {"type": "ping"}\n\n', id="a ping without a name"),
        pytest.param(PING + PING, id="two pings in one piece"),
    ],
)
def test_whatever_keeps_alive_has_the_longer_clock(piece: bytes, begun: bool) -> None:
    deadlines = Deadlines(first_event=0.5, idle=0.5, keep_alive=1.5)
    # A first payload makes an event of its own: that the response began.
    start = HEAD + chunked(sse(WORD) if begun else EMPTY)

    async def main() -> None:
        async with raw_provider(drip(start, chunked(piece))) as provider:
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "keep_alive"
            assert len(provider.requests) == 1

    run_async(main())


def test_a_clock_is_told_before_what_was_not_understood() -> None:
    """Only pings came, which are no answer of this wire; but it was the time that ended it."""
    deadlines = Deadlines(keep_alive=0.5)

    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(PING + PING))) as provider:
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "keep_alive"

    run_async(main())


def test_an_error_object_without_its_end_counts_before_the_clock() -> None:
    body = b'{"error": {"message": "no such key", "code": "invalid_api_key"}}'
    deadlines = Deadlines(keep_alive=0.5)

    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(body))) as provider:
            async with ask("x", provider.url, deadlines=deadlines) as run:
                with pytest.raises(AuthenticationError):
                    await run.result()
            assert len(provider.requests) == 1

    run_async(main())


def test_pings_keep_an_answer_alive_over_the_idle_clock() -> None:
    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(sse(WORD)))
        for _ in range(40):
            writer.write(chunked(COMMENT))
            await asyncio.sleep(0.03)
        writer.write(chunked(sse(WORD, LAST)) + b"0\r\n\r\n")
        await asyncio.sleep(1.0)

    async def main() -> None:
        async with raw_provider(answer) as provider:
            deadlines = Deadlines(idle=0.5, keep_alive=60)
            async with ask("x", provider.url, deadlines=deadlines) as run:
                assert (await run.result()).text == "a a "

    run_async(main())


def test_silence_after_the_answer_began_ends_by_the_idle_clock() -> None:
    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(sse(WORD)))) as provider:
            deadlines = Deadlines(idle=0.3, keep_alive=60)
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "idle"

    run_async(main())


def test_bytes_that_say_nothing_are_no_sign_of_life() -> None:
    """A frame that drips in and never ends."""

    async def main() -> None:
        async with raw_provider(drip(HEAD + chunked(sse(WORD)), chunked(b"x"))) as provider:
            deadlines = Deadlines(idle=0.4, keep_alive=60)
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "idle"

    run_async(main())


def test_an_accepted_silent_request_is_waited_for_and_never_sent_again() -> None:
    async def main() -> None:
        async with raw_provider(held(HEAD)) as provider:
            deadlines = Deadlines(first_event=0.2, idle=0.2, keep_alive=1.0)
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "keep_alive"
            assert len(provider.requests) == 1

    run_async(main())


def test_the_total_of_an_accepted_request_is_not_tried_again_either() -> None:
    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(COMMENT))) as provider:
            deadlines = Deadlines(total=0.5)
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "total"
            assert len(provider.requests) == 1

    run_async(main())


@pytest.mark.parametrize("clock", ["keep_alive", "idle", "total", "first_event"])
def test_a_configured_fallback_answers_after_a_timeout(clock: str) -> None:
    """The same model is not called again once it has accepted; another one, that was configured
    for it, is."""
    pieces = {"first_event": (), "keep_alive": (HEAD,), "total": (HEAD, chunked(COMMENT))}
    deadlines = {
        "first_event": Deadlines(first_event=0.3),
        "keep_alive": Deadlines(keep_alive=0.3),
        "total": Deadlines(total=0.3),
        "idle": Deadlines(idle=0.3),
    }

    async def main() -> None:
        # A name without output begins the answer, and is not visible.
        begun = chunked(sse({"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}))
        answer = closing(HEAD, chunked(sse(WORD, LAST) + b"data: [DONE]\n\n"), b"0\r\n\r\n")
        stuck = held(*pieces.get(clock, (HEAD, begun)))
        async with raw_provider(stuck) as first, raw_provider(answer) as second:
            run = ask("x", first.url, second.url, deadlines=deadlines[clock])
            async with asyncio.timeout(60), run:
                assert (await run.result()).text == "a "
            assert len(first.requests) == (3 if clock == "first_event" else 1)
            assert len(second.requests) == 1

    run_async(main())


def test_a_fallback_does_not_follow_a_timeout_in_the_middle_of_an_answer() -> None:
    async def main() -> None:
        async with (
            raw_provider(held(HEAD + chunked(sse(WORD)))) as first,
            raw_provider(held(HEAD)) as second,
        ):
            run = ask("x", first.url, second.url, deadlines=Deadlines(idle=0.3))
            assert await outcome_of(run) == "idle"
            assert (len(first.requests), len(second.requests)) == (1, 0)

    run_async(main())


@pytest.mark.parametrize("answers", [1, 9])
def test_a_connection_that_closes_without_a_response_is_retried_by_the_policy(answers: int) -> None:
    """The provider reads the request and closes: counted as a failure, with its retries and their
    facts, on a new connection and on a kept one alike."""
    whole = chunked(sse(WORD, LAST) + b"data: [DONE]\n\n") + b"0\r\n\r\n"

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number >= answers:
            writer.write(HEAD + whole)
            await writer.drain()
            await asyncio.sleep(0.05)

    retries: list[Retried] = []
    stop = observe(lambda fact: retries.append(fact) if isinstance(fact, Retried) else None)

    async def main() -> None:
        async with raw_provider(answer) as provider:
            run = ask("x", provider.url)
            async with asyncio.timeout(60), run:
                if answers == 1:
                    assert (await run.result()).text == "a "
                else:
                    with pytest.raises(NetworkError):
                        await run.result()
            assert len(provider.requests) == min(answers + 1, 3)
            of_run = [fact for fact in retries if fact.run == run.id]
            assert len(of_run) == len(provider.requests) - 1

    try:
        run_async(main())
    finally:
        stop()


def test_a_request_without_a_response_is_tried_again() -> None:
    async def main() -> None:
        async with raw_provider(held()) as provider:
            deadlines = Deadlines(first_event=0.3)
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "first_event"
            assert len(provider.requests) == 3

    run_async(main())


def test_an_explicit_failure_of_an_accepted_request_is_tried_again() -> None:
    failure = {"error": {"message": "overloaded", "type": "overloaded_error", "code": 503}}

    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(COMMENT + sse(failure)))) as provider:
            async with ask("x", provider.url) as run:
                with pytest.raises(ProviderError):
                    await run.result()
            assert len(provider.requests) == 3

    run_async(main())


def test_a_model_has_clocks_of_its_own() -> None:
    """The provider's variable shortens a clock of the run, the model's variable wins over it."""

    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(sse(WORD)))) as provider:
            env = {
                "OPENAI_API_KEY": "k",
                "OPENAI_BASE_URL": provider.url,
                "OPENAI_IDLE_TIMEOUT": "300",
                "OPENAI_GPT_5_1_IDLE_TIMEOUT": "0.3",
            }
            run = run_of(Registry(env=env).resolve("openai:gpt-5.1"))
            assert await outcome_of(run) == "idle"

    run_async(main())


# --- payloads of no wire that say how it goes -----------------------------------------------------

ALIVE = [
    'event: ping\ndata: {"time": 1, "cost": "0", "a": 1, "b": 2, "c": 3}',
    'event: ping\ndata: {"type": "ping", "id": "x", "ts": 1, "seq": 2}',
    'event: heartbeat\ndata: {"status": "ok", "n": 1, "m": 2, "o": 3}',
    'event: keep-alive\ndata: {"sent": 1, "n": 1, "m": 2, "o": 3}',
    'data: {"type": "status", "message": "queued"}',
    'data: {"type": "status", "message": "queued", "code": 0}',
    'data: {"status": "queued"}',
    'data: {"status": "QUEUED", "position": 3, "message": "you are 3rd"}',
    'data: {"status": "queued", "detail": "3rd"}',
    'event: status\ndata: {"status": "processing"}',
    'data: {"state": "in-progress", "message": "working"}',
    'data: {"object": "status", "status": "running", "code": 102}',
    'data: {"status": "loading", "message": "loading model"}',
    'data: {"type": "pending", "detail": "pending"}',
    'data: {"code": 102, "message": "processing"}',
    'data: {"code": "queued", "message": "in queue"}',
    'event: queued\ndata: {"message": "in queue"}',
    'data: {"type": "progress", "progress": 0.2}',
    'data: {"status": "running", "error": null}',
    "data: {}",
]
FAILED = [
    'data: {"status": "loading", "code": 503, "message": "the model is loading"}',
    'data: {"status": "queued", "error": {"message": "no"}}',
    'data: {"status": "running", "message": "internal error", "code": 500}',
    'data: {"status": "pending", "success": false, "message": "no"}',
    'data: {"status": "failed", "message": "x"}',
    'event: error\ndata: {"status": "queued", "message": "queue is full"}',
]
DECODERS = ["openai-chat", "openai-responses", "anthropic", "gemini", "gemini-interactions"]
DECODERS += ["cohere", "bedrock-converse", "completions", "ollama"]


def framed(frames: list[str]) -> list[tuple[str, str]]:
    """Each decoder with each frame that its framing can have: lines have no names."""
    named = [frame for frame in frames if not frame.startswith("event: ")]
    return [(name, f) for name in DECODERS for f in (named if name == "ollama" else frames)]


def fed(name: str, frame: str) -> list[str]:
    """The types of the events of one frame."""
    kind, data = "text/event-stream", frame + "\n\n"
    if name == "ollama":  # lines, without names of events
        kind = "application/x-ndjson"
        data = frame.rpartition("data: ")[2] + "\n"
    decoder = Registry(env={}).dialect(name).decoder(content_type=kind)
    return [str(event.__struct_config__.tag) for event in decoder.feed(data.encode())]


@pytest.mark.parametrize(("name", "frame"), framed(ALIVE))
def test_what_says_how_it_goes_is_life_and_no_failure(name: str, frame: str) -> None:
    types = fed(name, frame)
    assert types in (["heartbeat"], ["raw", "heartbeat"])


@pytest.mark.parametrize(("name", "frame"), framed(FAILED))
def test_a_failure_that_names_a_state_is_a_failure(name: str, frame: str) -> None:
    types = fed(name, frame)
    assert types == ["error"]


@pytest.mark.parametrize("begun", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("frame", [ALIVE[0], ALIVE[1], ALIVE[5], ALIVE[7], ALIVE[9]])
def test_states_and_pings_with_fields_have_the_longer_clock(frame: str, begun: bool) -> None:
    deadlines = Deadlines(first_event=0.5, idle=0.5, keep_alive=1.5)
    piece = frame.encode() + b"\n\n"

    async def main() -> None:
        async with raw_provider(
            drip(HEAD + chunked(sse(WORD) if begun else piece), chunked(piece))
        ) as provider:
            assert await outcome_of(ask("x", provider.url, deadlines=deadlines)) == "keep_alive"
            assert len(provider.requests) == 1

    run_async(main())


def test_pings_with_fields_do_not_hold_the_end_of_an_answer() -> None:
    """A finish reason, no usage and no marker, and a server that goes on to ping."""
    ping = ALIVE[1].encode() + b"\n\n"

    async def main() -> None:
        async with raw_provider(drip(HEAD + chunked(sse(WORD, LAST)), chunked(ping))) as provider:
            run = ask("x", provider.url, deadlines=Deadlines(keep_alive=60, total=60))
            async with asyncio.timeout(60), run:
                assert (await run.result()).text == "a "

    run_async(main())
