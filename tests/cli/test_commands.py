"""The other commands: help, inspect, simulate, models, tail, doctor."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import tokenwire
from support.cli import COMMAND, PATIENCE, ROOT, background, environment, run
from support.corpus import CORPUS, differences, needs_corpus, recordings
from tokenwire.cli import doctor

COMMANDS = ["serve", "chat", "inspect", "simulate", "models", "tail", "doctor"]
CHAT = (
    'data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,'
    '"delta":{"role":"assistant","content":"Hi\\u001b[2J"}}]}\n\n'
    'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","function":'
    '{"name":"f","arguments":"{\\"a\\":1}"}}]}}]}\n\n'
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}\n\n'
    "data: [DONE]\n\n"
)


# --- help ------------------------------------------------------------------------------------


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"tokenwire \d+\.\d+\.\d+\n", done.stdout)


def test_help_lists_every_command_and_each_has_its_own() -> None:
    assert all(name in run("--help").stdout for name in COMMANDS)
    for name in COMMANDS:
        done = run(name, "--help")
        assert done.returncode == 0
        assert "sage: tokenwire" in done.stdout


@pytest.mark.parametrize("words", [["nonsense"], ["chat", "--nonsense"], ["inspect"], ["tail"]])
def test_a_wrong_command_line_is_2(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_help_imports_no_server_and_no_model() -> None:
    program = (
        "import sys; sys.argv = ['tokenwire', '--help']\n"
        "from tokenwire.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'starlette', 'pydantic', 'rich.markdown', 'uvicorn', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == "[]\n"


# --- inspect ---------------------------------------------------------------------------------


def test_inspect_prints_the_facts_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "one.sse"
    file.write_text(CHAT)
    done = run("inspect", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    facts: dict[str, Any] = json.loads(done.stdout)
    assert list(facts)[:8] == [
        "text",
        "reasoning",
        "refusal",
        "tool_calls",
        "finish_reason",
        "usage",
        "error",
        "complete",
    ]
    assert facts["text"] == "Hi\x1b[2J"
    assert facts["tool_calls"] == [
        {"id": "t1", "name": "f", "arguments": {"a": 1}, "arguments_raw": '{"a":1}'}
    ]
    assert facts["usage"]["input_tokens"] == 3
    assert (facts["finish_reason"], facts["error"], facts["complete"]) == ("tool_calls", None, True)


def test_inspect_reads_standard_input_and_many_files(tmp_path: Path) -> None:
    file = tmp_path / "one.sse"
    file.write_text(CHAT)
    piped = run("inspect", "--family", "chat", "--framing", "sse", "--json", "-", stdin=CHAT)
    assert json.loads(piped.stdout)["complete"] is True
    both = run("inspect", "--json", str(file), str(file))
    assert both.stdout == piped.stdout * 2
    events = run("inspect", str(file))
    assert events.stdout.splitlines()[0].startswith("response-start")
    assert "tool-call-end" in events.stdout
    assert "\x1b" not in events.stdout


@pytest.mark.parametrize(
    ("content", "options", "code", "told"),
    [
        (b"", [], 1, "empty"),
        (b"hello there", [], 1, "--family"),
        (b"\x00\x01\x02" * 99, [], 1, "--family"),
        (bytes(range(1, 256)) * 99, ["--family", "chat", "--framing", "sse"], 1, "no event"),
        (b"<html>no</html>", ["--family", "chat"], 1, "file: "),
        (CHAT.encode(), ["--family", "nonsense"], 2, "choose one of chat"),
        (CHAT.encode(), ["--framing", "nonsense"], 2, "choose one of sse"),
        (None, [], 1, "No such file"),
    ],
)
def test_inspect_says_what_it_cannot_read(
    tmp_path: Path, content: bytes | None, options: list[str], code: int, told: str
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    done = run("inspect", *options, str(file))
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_gives_every_file_its_line_also_one_that_it_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "one.sse"
    file.write_text(CHAT)
    done = run("inspect", "--json", str(file), str(tmp_path / "none"), str(tmp_path), str(file))
    assert done.returncode == 1
    good, missing, folder, again = map(json.loads, done.stdout.splitlines())
    assert good == again
    assert list(missing) == list(good)
    assert missing["error"]["message"] == "No such file or directory"
    assert folder["error"]["code"] == "unreadable"
    assert (missing["text"], missing["complete"]) == ("", False)
    assert done.stderr.count("tokenwire: ") == 2


def test_inspect_of_an_html_page_tells_of_the_error(tmp_path: Path) -> None:
    file = tmp_path / "page"
    file.write_text("<html>Bad gateway</html>")
    facts = json.loads(run("inspect", "--family", "chat", "--json", str(file)).stdout)
    assert (facts["complete"], facts["text"]) == (False, "")
    assert facts["error"] is not None


@needs_corpus
@pytest.mark.parametrize("told", [False, True], ids=["guessed", "told"])
def test_inspect_finds_the_facts_of_every_recording(told: bool) -> None:
    from tokenwire.cli.inspect import inspect_bytes
    from tokenwire.providers.summary import facts

    wrong: dict[str, Any] = {}
    for recording in recordings():
        family, framing = (recording.family, recording.framing) if told else (None, None)
        found = inspect_bytes(recording.raw, family=family, framing=framing)
        differs = differences(recording.expected, facts(found.events))
        if differs or found.unreadable:
            wrong[recording.file] = differs or found.unreadable
    assert wrong == {}


@needs_corpus
def test_family_and_framing_of_every_recording_are_guessed() -> None:
    from tokenwire.cli.guess import guess_family, guess_framing

    for entry in json.loads((CORPUS / "manifest.json").read_text())["recordings"]:
        data = (CORPUS / entry["file"]).read_bytes()
        framing = guess_framing(data)
        lines = ("ndjson", "jsonl")  # the same lines; only a name tells them apart
        assert framing == entry["framing"] or {framing, entry["framing"]} <= set(lines)
        assert guess_family(data, framing) == entry["family"], entry["file"]


# --- simulate, models, doctor ------------------------------------------------------------------


def test_simulate_serves_and_stops_at_ctrl_c() -> None:
    with background("simulate", "--port", "0", "--rate", "0", "--ttft", "0") as (process, line):
        url = line.split()[-1]
        with urllib.request.urlopen(f"{url}/scenarios", timeout=PATIENCE) as answer:
            names = [s["name"] for s in json.load(answer)["scenarios"]]
        assert {"text", "slow", "tool", "error", "approval"} <= set(names)
        asked = run("chat", "-m", f"{url}/v1#any", "scenario:slow")
        assert asked.stdout.startswith("1 2 3")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) in (0, 130)


@pytest.mark.parametrize(
    "options",
    [
        ["--faults", "nonsense"],
        ["--jitter", "2"],
        ["--rate", "-1"],
        ["--port", "99999"],
        ["--tokens-per-chunk", "0"],
    ],
)
def test_simulate_refuses_what_makes_no_sense(options: list[str]) -> None:
    done = run("simulate", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr


def test_simulate_says_when_its_port_is_taken() -> None:
    with background("simulate", "--port", "0") as (_, line):
        port = line.strip().rsplit(":", 1)[1]
        done = run("simulate", "--port", port)
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_models_tells_what_is_missing_and_shows_no_key() -> None:
    bare = run("models")
    assert "demo" in bare.stdout
    assert "set OPENAI_API_KEY" in bare.stdout
    with_key = run("models", "--json", OPENAI_API_KEY="sk-secret-value")
    infos = {info["name"]: info for info in json.loads(with_key.stdout)}
    assert infos["openai"]["configured"] is True
    assert "sk-secret-value" not in with_key.stdout


def test_doctor_looks_at_everything(tmp_path: Path) -> None:
    done = run("doctor", "--json", "--store", f"sqlite:{tmp_path}/doctor.db")
    found = {f["what"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 0, [f for f in found.values() if f["state"] == "broken"]
    assert found["demo model"]["state"] == "ok"
    assert found["store"]["state"] == "ok"
    lane = found["express lane"]["detail"]
    assert lane.startswith(("native ", "pure Python; tokenwire-speedups: "))
    assert (found["tokenwire_speedups"]["state"] == "missing") is lane.endswith(": not installed")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    told = inspect.getsource(doctor)
    for extra, needs in project["project"]["optional-dependencies"].items():
        assert f'("{extra}", ' in told, f"doctor does not look for {needs}"
    assert {"google.auth", "botocore", "azure.identity"} <= found.keys()
    for name in ("google.auth", "botocore"):
        assert found[name]["state"] == "ok"
        assert re.match(r"\d+\.", found[name]["detail"]), "its version"
    bad = run("doctor", "--store", "nonsense:")
    assert bad.returncode == 1
    assert "BROKEN   store" in bad.stdout


# --- tail ------------------------------------------------------------------------------------


def start_run(url: str, prompt: str) -> str:
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": prompt}]})
    request = urllib.request.Request(
        f"{url}/v1/runs", body.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["id"]


def test_reading_a_store_creates_no_file(tmp_path: Path) -> None:
    """A path with a typo is an error, and leaves nothing behind."""
    for folder in (tmp_path, tmp_path / "none" / "deeper"):
        missing = f"sqlite:{folder}/typo.db"
        tail = run("tail", "A" * 22, "--store", missing)
        assert (tail.returncode, "no store file at" in tail.stderr) == (2, True)
        assert "no store yet" in run("doctor", "--store", missing).stdout
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    empty = run("tail", "A" * 22, "--store", f"sqlite:{tmp_path}/file")
    assert (empty.returncode, (tmp_path / "file").stat().st_size) == (2, 0)
    odd = run("doctor", "--store", f"sqlite:{tmp_path}/file/x.db")
    assert (odd.returncode, "is not a writable folder" in odd.stdout) == (1, True)


def test_tail_names_the_run_that_a_store_lacks(tmp_path: Path) -> None:
    async def main() -> None:
        store = tokenwire.open_store(f"sqlite:{tmp_path}/runs.db")
        await store.start()
        await store.close()

    asyncio.run(main())
    done = run("tail", "A" * 22, "--store", f"sqlite:{tmp_path}/runs.db")
    assert (done.returncode, done.stderr) == (1, f"tokenwire: no run '{'A' * 22}' in this store\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("words", [["chat", "scenario:empty"], ["models"], ["doctor", "--json"]])
def test_a_closed_stream_is_no_error(words: list[str], closed: str) -> None:
    line = f'"{sys.executable}" -m tokenwire {" ".join(words)} </dev/null {closed}'
    done = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, check=False)
    assert (done.returncode, b"Error" in done.stderr) == (0, False)


def test_tail_follows_by_the_server_and_in_the_store(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    with background("serve", "--port", "0", "--store", store, "--model", "demo") as (_, line):
        url = re.findall(r"http://[\d.:]+", line)[0]
        run_id = start_run(url, "scenario:slow")
        text = run("tail", run_id, "--url", url)
        assert (text.returncode, text.stdout.split()[:3]) == (0, ["1", "2", "3"])
        assert text.stdout.split()[-1] == "90"
        events = run("tail", run_id, "--url", url, "--json").stdout
        lines = [json.loads(e) for e in events.splitlines()]
        assert [e["seq"] for e in lines] == list(range(1, len(lines) + 1))
        assert lines[-1]["type"] == "run-end"
        later = run("tail", run_id, "--url", url, "--json", "--after", "5").stdout.splitlines()
        assert json.loads(later[0])["seq"] == 6
        failed = start_run(url, "scenario:error")
        assert run("tail", failed, "--url", url).returncode == 1
        unknown = run("tail", "A" * 22, "--url", url)
        assert unknown.returncode == 1
        assert "Traceback" not in unknown.stderr
    stored = run("tail", run_id, "--store", store, "--json")
    assert stored.stdout == events


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["../etc", "--url", "http://127.0.0.1:9"], 2),
        (["A" * 22, "--url", "http://127.0.0.1:9"], 1),
        (["A" * 22, "--url", "file:///etc/passwd"], 2),
        (["A" * 22, "--store", "nonsense"], 2),
        (["A" * 22, "--store", "memory:"], 2),
    ],
)
def test_tail_says_what_it_cannot_follow(words: list[str], code: int) -> None:
    done = run("tail", *words)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("tokenwire: ")
    assert "Traceback" not in done.stderr


def test_the_module_is_the_command() -> None:
    assert COMMAND[1:] == ["-m", "tokenwire"]
    assert (ROOT / "src" / "tokenwire" / "__main__.py").exists()
