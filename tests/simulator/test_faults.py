"""Each fault really happens on the socket."""

import asyncio
import json

import openai
import pytest

from simulator.socket import hear
from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.faults import FAULTS, FaultPlan
from tokenwire.simulator.settings import Settings


def run(prompt, faults="", **more):
    async def main():
        async with SimulatorServer() as server:
            heard = await hear(server, prompt, faults, **more)
            if not heard.silent:
                heard.record = await server.wait_ended()
            return heard

    return asyncio.run(main())


def text_of(heard):
    text = ""
    for frame in heard.frames():
        if frame.startswith(b"data: {"):
            for choice in json.loads(frame[6:]).get("choices", []):
                text += choice["delta"].get("content") or ""
    return text


def test_without_faults_the_stream_is_whole():
    heard = run("scenario:text")
    assert heard.ended
    assert not heard.reset
    assert heard.frames()[-1] == b"data: [DONE]"
    assert text_of(heard) == samples.MARKDOWN


@pytest.mark.parametrize("limit", [1, 100, 512])
def test_cut_by_fin_at_a_byte(limit):
    heard = run("scenario:text", f"cut-fin@{limit}")
    assert len(heard.body) == limit
    assert (heard.ended, heard.reset) == (False, False)
    assert heard.record.outcome == "cut-fin"
    assert heard.record.bytes_sent == limit


def test_cut_by_reset_at_a_byte():
    heard = run("scenario:text", "cut-rst@512")
    assert heard.reset
    assert len(heard.body) == 512
    assert heard.record.outcome == "cut-rst"


def test_cut_that_looks_whole():
    heard = run("scenario:text", "cut-end@512")
    assert heard.ended
    assert len(heard.body) == 512
    assert heard.record.outcome == "cut-end"


def test_stall_is_silence_on_an_open_connection():
    heard = run("scenario:text", "stall@300", quiet=0.5)
    assert heard.silent
    assert len(heard.body) == 300


def test_split_inside_characters():
    heard = run("scenario:text", "split@1")
    assert {len(piece) for piece in heard.pieces} == {1}
    assert text_of(heard) == samples.MARKDOWN
    drawn = run("scenario:text", "split")
    assert {len(piece) for piece in drawn.pieces} == set(range(1, 8))
    assert text_of(drawn) == samples.MARKDOWN


def test_duplicate_and_reorder_change_the_frames_as_told():
    plain = run("scenario:text").frames()
    masked = [frame.partition(b'"choices"')[2] for frame in plain]
    doubled = [f.partition(b'"choices"')[2] for f in run("scenario:text", "duplicate@3").frames()]
    assert doubled == [*masked[:4], masked[3], *masked[4:]]
    swapped = [f.partition(b'"choices"')[2] for f in run("scenario:text", "reorder@3").frames()]
    assert swapped == [*masked[:3], masked[4], masked[3], *masked[5:]]


def test_noise_between_frames():
    garbage = run("scenario:text", "garbage@2").frames()
    assert garbage[2].startswith(b"data: {not json")
    comments = run("scenario:text", "comments").frames()
    assert comments[::2] == [b": keep-alive"] * (len(comments) // 2)
    assert run("scenario:text", "corrupt@200").body[200:201] == b"\xff"


def test_line_ends_marks_and_spaces():
    whole = run("scenario:text").body
    assert run("scenario:text", "bom").body.startswith(b"\xef\xbb\xbfdata: {")
    crlf = run("scenario:text", "crlf").body
    assert crlf.count(b"\r\n") == crlf.count(b"\n") == whole.count(b"\n")
    cr = run("scenario:text", "cr").body
    assert b"\n" not in cr
    assert cr.count(b"\r") == whole.count(b"\n")
    assert run("scenario:text", "no-space").body.startswith(b"data:{")
    assert run("scenario:text", "no-last-newline").body.endswith(b"data: [DONE]")


def test_missing_ends():
    assert b"[DONE]" not in run("scenario:text", "no-terminal").body
    assert b'"finish_reason":"stop"' in run("scenario:text", "no-terminal").body
    assert b'"finish_reason":"stop"' not in run("scenario:text", "no-finish").body


def test_wrong_answers_before_the_stream():
    refused = run("scenario:text", "status@503")
    assert refused.status == 503
    assert refused.record.outcome == "refused"
    page = run("scenario:text", "html")
    assert (page.status, page.headers["content-type"]) == (200, "text/html")
    error = run("scenario:text", "error-200")
    assert error.status == 200
    assert json.loads(error.body)["error"]["code"] == "server_error"


def test_an_error_in_the_middle():
    heard = run("scenario:text", "error@3")
    assert "error" in json.loads(heard.frames()[-1][6:])
    anthropic = run("scenario:text", "error@3", path="/v1/messages")
    assert anthropic.frames()[-1].startswith(b"event: error\n")


def test_slow_start_holds_back_the_status_line():
    async def main():
        async with SimulatorServer() as server:
            heard = await hear(server, "scenario:text", "slow-start@60", quiet=0.3)
            assert heard.raw == b""

    asyncio.run(main())


def test_rate_limits_end_after_k_requests():
    async def main():
        async with SimulatorServer() as server:
            answers = [await hear(server, "hello", "rate-limit@2:7") for _ in range(3)]
            assert [heard.status for heard in answers] == [429, 429, 200]
            assert answers[0].headers["retry-after"] == "7"
            url = server.url + "/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=3) as sdk:
                answer = await sdk.chat.completions.create(
                    model="demo",
                    messages=[{"role": "user", "content": "hello"}],
                    extra_headers={"x-sim-faults": "overloaded@1:0"},
                )
            assert answer.choices[0].message.content
            assert [record.status for record in server.requests][-2:] == [503, 200]

    asyncio.run(main())


def test_faults_come_from_settings_and_prompts_too():
    async def main():
        async with SimulatorServer(Settings(faults="bom")) as server:
            heard = await hear(server, "scenario:text?faults=cut-end@200,crlf")
            assert heard.body.startswith(b"\xef\xbb\xbf")
            assert len(heard.body) == 200

    asyncio.run(main())


def test_the_same_seed_draws_the_same_faults():
    first = run("scenario:text", "cut-end,split,seed@5")
    again = run("scenario:text", "cut-end,split,seed@5")
    other = run("scenario:text", "cut-end,split,seed@6")
    assert [len(piece) for piece in first.pieces] == [len(piece) for piece in again.pieces]
    assert [len(piece) for piece in first.pieces] != [len(piece) for piece in other.pieces]


def test_unknown_faults_are_refused_with_the_list():
    heard = run("hello", "explode@3")
    assert heard.status == 400
    with pytest.raises(ValueError, match="cut-rst"):
        FaultPlan.parse("explode")
    with pytest.raises(ValueError, match="after '@' come numbers"):
        SimulatorServer(Settings(faults="cut-rst@x"))


def test_every_fault_is_described_by_its_own_name():
    for name, line in FAULTS.items():
        assert line.startswith(name)
        assert FaultPlan.parse(name).get(name) is not None


def test_a_cut_in_a_whole_answer():
    heard = run("scenario:text", "cut-fin@50", stream=False)
    assert (len(heard.body), heard.ended) == (50, False)
