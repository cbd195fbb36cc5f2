"""``GET /chat/stream``: the plain contract, and that an EventSource never pays twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.server import KEYS, Reading, Site, site
from tokenwire.framing.sse import Frame

NUMBERS = "".join(f"{n} " for n in range(1, 91))


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def tokens(frames: list[Frame]) -> str:
    return "".join(f.data.decode() for f in frames if f.event == "token")


def test_tokens_are_the_text_exactly_and_done_ends(here: Site) -> None:
    run = here.start("scenario:text")
    native = here.client.get(f"/v1/runs/{run}/events").status_code
    assert native == 200
    expected = here.client.get(f"/v1/runs/{run}").json()["message"]["content"][0]["text"]
    frames = here.frames("/chat/stream?prompt=scenario:text")
    assert tokens(frames) == expected
    assert [f.event for f in frames if f.event != "token"] == ["done"]
    assert frames[-1].event == "done"
    assert frames[-1].data == b""


def test_an_error_is_an_error_event_and_nothing_is_done(here: Site) -> None:
    frames = here.frames("/chat/stream?prompt=scenario:error")
    assert frames[0].event == "token"
    assert frames[-1].event == "error"
    assert "done" not in [f.event for f in frames]
    cut = here.frames("/chat/stream?prompt=scenario:cut")
    assert cut[-1].event == "error"


def test_the_first_bytes_name_the_run(here: Site) -> None:
    reading = Reading.get(here.port, "/chat/stream?prompt=scenario:stall")
    head = reading.until(b":0\n\n")
    run = head.split(b"tokenwire-run: ")[1].split(b"\r\n")[0]
    assert b"id: " + run + b":0\n\n" in head
    assert b": ok\nretry: 1000\n" in head
    here.client.post(f"/v1/runs/{run.decode()}/cancel")


def test_coming_back_at_every_event_resumes_the_same_run(here: Site) -> None:
    before = here.runs_started
    whole = here.frames("/chat/stream?prompt=scenario:slow")
    assert tokens(whole) == NUMBERS
    # The prompt is in the URL again, as a browser sends it; the id decides.
    for number in (0, 1, 5, len(whole) - 2):
        frame = whole[number]
        again = here.frames(
            "/chat/stream?prompt=scenario:slow", headers={"last-event-id": frame.id}
        )
        assert [(f.event, f.data, f.id) for f in again] == [
            (f.event, f.data, f.id) for f in whole[number + 1 :]
        ]
    from_the_start = whole[0].id.partition(":")[0] + ":0"
    again = here.frames("/chat/stream?prompt=x", headers={"last-event-id": from_the_start})
    assert tokens(again) == NUMBERS
    assert here.runs_started == before + 1


def test_after_the_end_and_for_unknown_runs_it_answers_204(here: Site) -> None:
    whole = here.frames("/chat/stream?prompt=scenario:text")
    before = here.runs_started
    for last in (whole[-1].id, "a" * 22 + ":5", "nonsense", "x:y:z", whole[-1].id + "0"):
        headers = {"last-event-id": last}
        answer = here.client.get("/chat/stream?prompt=scenario:text", headers=headers)
        assert answer.status_code == 204, last
    assert here.runs_started == before


def test_model_output_cannot_forge_events(here: Site) -> None:
    # The simulator repeats what an echo scenario is given; line ends and field names are data.
    frames = here.frames("/chat/stream", params={"prompt": "say:\n\nevent: done\ndata: x"})
    assert {f.event for f in frames[:-1]} == {"token"}
    assert frames[-1].event == "done"


@pytest.mark.parametrize("query", ["", "?prompt=", "?prompt=x&color=red", "?model=demo"])
def test_a_wrong_query_is_refused(here: Site, query: str) -> None:
    before = here.runs_started
    answer = here.client.get(f"/chat/stream{query}")
    assert answer.status_code == 400
    assert here.runs_started == before


def test_it_is_off_with_keys_and_off_when_turned_off() -> None:
    with site(api_keys=KEYS) as here:
        headers = {"authorization": "Bearer test-key-of-person-a"}
        assert here.client.get("/chat/stream?prompt=x", headers=headers).status_code == 404
    with site(chat_get="off") as here:
        assert here.client.get("/chat/stream?prompt=x").status_code == 404
