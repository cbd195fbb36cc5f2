"""The AI SDK's own chat class and transports, versions 5, 6 and 7, against the server."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.node import need_client, need_node, run_node, serving
from tokenwire.tools.demo import demo_tools
from tokenwire.tools.registry import ToolSet, tool

pytestmark = pytest.mark.node
VERSIONS = ["5", "6", "7"]
#: With an early release of 5, which takes less and forgets nothing of a chat.
ALL_VERSIONS = ["5old", *VERSIONS]
#: The ninety numbers of `scenario:slow`, in half a second.
FAST = "scenario:slow?rate=200"
#: Text, a tool, text: a cut within the first text is one in the middle on a machine so slow that
#: each text comes in one piece, too.
TWO_TEXTS = "scenario:progress"
#: All that `scenario:stall` says.
STALLED = "I say this much, and then nothing more"
#: How a cut is told: by Chrome and Firefox, by Safari, by Node, or as a clean end.
CUTS = ["network", "safari", "node", "end"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_node()
    with serving() as server:
        yield server.url


def chat(url: str, version: str, case: str, prompt: str, **env: str) -> Any:
    if case.startswith(("resumable", "our_")):
        need_client()
    return run_node("ai_chat.mjs", version, url, case, prompt, **env)


@functools.cache
def truth(url: str, prompt: str) -> str:
    """The text of the same answer, which is always the same, from the native route."""
    made = httpx.post(f"{url}/v1/runs", json={"prompt": prompt}).json()
    httpx.get(f"{url}/v1/runs/{made['id']}/events", timeout=60)
    shown = httpx.get(f"{url}/v1/runs/{made['id']}").json()
    content = shown["message"]["content"]
    if isinstance(content, str):
        return content
    return "".join(p["text"] for p in content if p["type"] == "text")


def kinds(told: Any) -> list[str]:
    return [part["type"] for part in told["messages"][-1]["parts"]]


#: Early releases of 5 do not take ``finishReason``: for them there is compat 5.
COMPATS = [(v, c) for v in ALL_VERSIONS for c in ("5", "common", "own")]
COMPATS.remove(("5old", "common"))


@pytest.mark.parametrize(("version", "compat"), COMPATS)
def test_text(url: str, version: str, compat: str) -> None:
    own = version.removesuffix("old") if compat == "own" else compat
    told = chat(url, version, "plain", "Hello", COMPAT=own)
    assert (told["status"], told["errors"]) == ("ready", [])
    assert told["text"] == truth(url, "Hello")
    metadata = told["messages"][-1]["metadata"]["tokenwire"]
    assert metadata["usage"]["output_tokens"] > 0
    assert metadata["finishReason"] == "stop"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "scenario", ["reasoning", "tool", "tools", "progress", "length", "refusal"]
)
def test_every_kind_of_part_is_taken(url: str, version: str, scenario: str) -> None:
    told = chat(url, version, "plain", f"scenario:{scenario}")
    assert (told["status"], told["errors"]) == ("ready", [])
    parts = told["messages"][-1]["parts"]
    if scenario == "reasoning":
        assert "reasoning" in kinds(told)
    if scenario == "tool":
        call = next(p for p in parts if p["type"] == "tool-get_weather")
        assert call["state"] == "output-available"
        assert call["input"] == {"city": "Paris"}
        assert call["output"]["city"] == "Paris"
    if scenario == "length":
        assert told["messages"][-1]["metadata"]["tokenwire"]["finishReason"] == "length"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", ["error", "cut"])
def test_a_broken_answer_is_an_error(url: str, version: str, scenario: str) -> None:
    told = chat(url, version, "plain", f"scenario:{scenario}")
    assert told["status"] == "error"
    assert len(told["errors"]) == 1
    assert told["text"], "what came before stays"


@pytest.mark.parametrize("version", VERSIONS)
def test_stop_is_an_abort_without_an_error(url: str, version: str) -> None:
    told = chat(url, version, "stop", "scenario:stall")
    assert (told["status"], told["errors"], told["stop"]) == ("ready", [], 202)
    assert told["text"]
    assert STALLED.startswith(told["text"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reloaded_page_reads_the_answer_whole(url: str, version: str) -> None:
    told = chat(url, version, "reload", "scenario:stall")
    assert (told["status"], told["errors"], told["stop"]) == ("ready", [], 202)
    assert told["text"] == STALLED
    assert told["before"]


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_to_resume(url: str, version: str) -> None:
    told = chat(url, version, "nothing_to_resume", "x")
    assert (told["status"], told["errors"], told["messages"]) == ("ready", [], [])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_cut_and_a_replay_in_the_same_chat(url: str, version: str, cut: str) -> None:
    """The SDK's own transport, and an application that calls `resumeStream` after a cut."""
    told = chat(url, version, "cut", "scenario:stall", CUT=cut)
    whole = STALLED
    assert told["before"]
    assert whole.startswith(told["before"])
    assert told["status"] == "ready"
    answers = [m for m in told["messages"] if m["role"] == "assistant"]
    texts = [p["text"] for p in answers[-1]["parts"] if p["type"] == "text"]
    assert len(answers) == 1
    if version == "5old" or (version == "5" and cut == "network"):
        # These go on in the message that they have, and can drop nothing of it.
        assert texts == [told["before"], whole]
    else:
        assert texts == [whole]


@pytest.mark.parametrize("version", ["5old", "5"])
def test_a_page_and_a_chat_that_was_cut_ask_the_same(url: str, version: str) -> None:
    """Why the server cannot help 5: the one needs the whole, the other the rest, and both send
    the same request."""
    told = chat(url, version, "same_request", "scenario:stall")
    assert told["mine"] == told["fresh"]


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_cut_and_a_cursor_in_the_same_chat(url: str, version: str) -> None:
    told = chat(url, version, "cut_with_cursor", TWO_TEXTS)
    assert told["text"] == truth(url, TWO_TEXTS)
    assert 0 < len(told["before"]) < len(told["text"])
    assert len([m for m in told["messages"] if m["role"] == "assistant"]) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_rest_is_no_stream_of_its_own_after_a_clean_end(url: str, version: str) -> None:
    """The chat took the end for the answer's: what comes then is a message of its own."""
    told = chat(url, version, "cut_with_cursor", TWO_TEXTS, CUT="end")
    answers = [m for m in told["messages"] if m["role"] == "assistant"]
    assert len(answers) == 2
    assert told["before"] + told["text"] == truth(url, TWO_TEXTS)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("version", ALL_VERSIONS)
@pytest.mark.parametrize("case", ["resumable_fetch", "our_transport"])
def test_with_ours_a_cut_is_never_seen(url: str, case: str, version: str, cut: str) -> None:
    told = chat(url, version, case, FAST, CUT=cut)
    assert (told["status"], told["errors"]) == ("ready", [])
    texts = [p["text"] for p in told["messages"][-1]["parts"] if p["type"] == "text"]
    assert texts == [truth(url, FAST)]
    methods = [ask["method"] for ask in told["asked"]]
    assert methods[0] == "POST"
    assert set(methods[1:]) == {"GET"}, "cut at least once, and asked once"


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_reloaded_page_on_our_fetch_is_whole_over_cuts(url: str, version: str) -> None:
    told = chat(url, version, "resumable_reload", "scenario:stall")
    assert (told["status"], told["errors"]) == ("ready", [])
    assert told["text"] == STALLED
    assert len(told["asked"]) > 1


@pytest.mark.parametrize("version", ["6", "7"])
def test_our_transport_goes_on_after_an_approval(url: str, version: str) -> None:
    told = chat(url, version, "our_transport", "scenario:approval", CUT="end")
    assert (told["status"], told["errors"]) == ("ready", [])
    assert len(told["messages"]) == 2
    call = next(p for p in told["messages"][-1]["parts"] if p["type"] == "tool-delete_file")
    assert call["state"] == "output-available"
    run = told["messages"][-1]["metadata"]["tokenwire"]["run"]
    assert httpx.get(f"{url}/v1/runs/{run}").json()["state"] == "complete"


@pytest.mark.parametrize("version", ["6", "7"])
def test_an_answer_while_our_transport_resumes_counts(url: str, version: str) -> None:
    told = chat(url, version, "our_transport_resumed", "scenario:approval")
    assert (told["status"], told["errors"]) == ("ready", [])
    assert len(told["messages"]) == 2
    run = told["messages"][-1]["metadata"]["tokenwire"]["run"]
    assert httpx.get(f"{url}/v1/runs/{run}").json()["state"] == "complete"


@pytest.mark.parametrize("version", VERSIONS)
def test_our_transport_sends_what_the_tools_gave(url: str, version: str) -> None:
    told = chat(url, version, "our_transport_turns", "scenario:tool")
    assert (told["status"], told["errors"]) == ("ready", [])
    run = told["messages"][-1]["metadata"]["tokenwire"]["run"]
    kept = json.dumps(httpx.get(f"{url}/v1/runs/{run}").json()["input"])
    assert '"call_id"' in kept
    assert '"Paris"' in kept
    assert "Thanks!" in kept


@pytest.mark.parametrize("on_stop", ["cancel", "detach"])
def test_stop_on_our_transport(url: str, on_stop: str) -> None:
    prompt = "scenario:stall" if on_stop == "cancel" else FAST
    told = chat(url, "7", "our_transport_stop", prompt, ON_STOP=on_stop)
    assert (told["status"], told["errors"]) == ("ready", [])
    wanted = "cancelled" if on_stop == "cancel" else "complete"
    for _ in range(200):
        runs = httpx.get(f"{url}/v1/threads/{told['chat']}").json()["runs"]
        if [run["state"] for run in runs] == [wanted]:
            break
        time.sleep(0.05)
    assert [run["state"] for run in runs] == [wanted]


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("case", ["approval", "denial"])
@pytest.mark.parametrize("compat", ["own", "none"])
def test_approvals(url: str, version: str, case: str, compat: str) -> None:
    env = {"COMPAT": "none"} if compat == "none" else {}
    told = chat(url, version, case, "scenario:approval", **env)
    assert (told["status"], told["errors"]) == ("ready", [])
    assert len(told["messages"]) == 2, "the answer goes on in the same message"
    call = next(p for p in told["messages"][-1]["parts"] if p["type"].startswith("tool-"))
    assert call["state"] == ("output-available" if case == "approval" else "output-denied")
    assert kinds(told).count("text") >= 1


@pytest.mark.parametrize("version", ["6", "7"])
def test_a_page_loaded_anew_goes_on_with_the_stored_conversation(url: str, version: str) -> None:
    told = chat(url, version, "stored", "scenario:approval", COMPAT="none")
    assert (told["status"], told["errors"]) == ("ready", [])
    roles = ["user", "assistant"] * 3
    assert [message["role"] for message in told["messages"]] == roles
    assert told["stored"] == roles


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tool_that_the_page_runs(version: str) -> None:
    need_node()

    @tool(executor="client")
    def locate() -> dict[str, str]:
        """Tell where the person is."""
        raise NotImplementedError

    with serving(tools=ToolSet([*demo_tools(), locate])) as server:
        told = chat(server.url, version, "client_tool", "Please locate me.")
        assert (told["status"], told["errors"]) == ("ready", [])
        assert len(told["messages"]) == 2
        call = next(p for p in told["messages"][-1]["parts"] if p["type"] == "tool-locate")
        assert (call["state"], call["output"]) == ("output-available", {"city": "Lyon"})
        run = told["messages"][-1]["metadata"]["tokenwire"]["run"]
        shown = httpx.get(f"{server.url}/v1/runs/{run}").json()
        assert shown["state"] == "complete"
        assert json.dumps(shown["messages"]).count('"Lyon"') == 1


def test_the_websocket_transport(url: str) -> None:
    told = chat(url, "7", "websocket", "scenario:tool")
    assert (told["status"], told["errors"]) == ("ready", [])
    assert "tool-get_weather" in kinds(told)
