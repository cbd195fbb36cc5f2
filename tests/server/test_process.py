"""``tokenwire serve`` as a process: how it starts, how it refuses, how it stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.free_ports import free_port
from support.process import Process, command, environment, refused, serving
from support.redis import need_redis, redis_server


def test_it_says_where_which_model_how_durable_and_who(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        said = "".join(process.lines)
        assert "http://127.0.0.1:" in said
        assert "demo" in said
        assert f"in {tmp_path}/tokenwire/runs.db; they survive kill -9 and a power cut (" in said
        assert "this machine only" in said
        assert httpx.get(process.url + "/healthz").json()["status"] == "ok"
        code, _, errors = process.stop(signal.SIGINT)
        assert code == 0
        assert "Traceback" not in errors


@pytest.mark.parametrize(("flags", "told"), [([], True), (["--tools", "demo"], False)])
def test_a_model_without_tools_is_told_of_with_the_way_to_some(
    tmp_path: Path, flags: list[str], told: bool
) -> None:
    with serving(tmp_path, "--model", "http://127.0.0.1:9/v1#m", *flags) as process:
        assert ("--tools" in "".join(process.lines)) is told
    with serving(tmp_path) as process:
        assert "--tools" not in "".join(process.lines)


def test_runs_are_kept_for_this_user_alone_unless_told_otherwise(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        run = httpx.post(process.url + "/v1/runs", json={"prompt": "scenario:slow"}).json()["id"]
        process.stop(signal.SIGKILL)
    assert (tmp_path / "tokenwire").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tokenwire" / "runs.db").stat().st_mode & 0o777 == 0o600
    with serving(tmp_path) as process:
        assert httpx.get(process.url + f"/v1/runs/{run}").status_code == 200
    with serving(tmp_path, TOKENWIRE_STORE="memory:", TOKENWIRE_STOER="sqlite:x") as process:
        assert "TOKENWIRE_STOER; did you mean TOKENWIRE_STORE?" in process.errors()
        assert "in memory; they survive a reader's disconnect (" in "".join(process.lines)
        assert httpx.get(process.url + f"/v1/runs/{run}").status_code == 404
    url = f"sqlite://{tmp_path}/other.db?synchronous=normal"
    with serving(tmp_path, TOKENWIRE_STORE=url) as process:
        assert f"in {tmp_path}/other.db; they survive kill -9 (" in "".join(process.lines)


@pytest.mark.redis
def test_the_start_says_what_a_run_in_redis_survives(tmp_path: Path) -> None:
    need_redis()
    with redis_server() as redis, serving(tmp_path, "--store", redis.url) as process:
        line = next(line for line in process.lines if line.startswith("  runs"))
        assert "they survive the loss of this machine; of Redis, a restart; a power cut" in line


def test_sigterm_with_open_streams_ends_in_time_and_tells_readers(tmp_path: Path) -> None:
    with serving(tmp_path, "--graceful-stop", "6") as process:
        head = {"accept": "text/event-stream"}
        body = {"prompt": "scenario:stall"}
        with httpx.stream("POST", process.url + "/v1/runs", json=body, headers=head) as answer:
            pieces = answer.iter_raw()
            seen = next(pieces)
            while b"text-delta" not in seen:
                seen += next(pieces)
            code, _, errors = process.stop()
            rest = seen + b"".join(pieces)
        assert code == 0
        assert b'"type":"reconnect"' in rest
        assert b'"reason":"drain"' in rest
        assert "Traceback" not in errors


def test_a_run_that_nobody_can_go_on_with_ends_as_interrupted(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'chat.db'}"
    with serving(tmp_path, "--store", store, "--graceful-stop", "3") as process:
        body = {"prompt": "scenario:text?rate=300"}
        run = httpx.post(process.url + "/v1/runs", json=body).json()["id"]
        whole = httpx.get(process.url + f"/v1/runs/{run}/events").text
        assert process.stop()[0] == 0
    with serving(tmp_path, "--store", store) as process:
        again = httpx.get(process.url + f"/v1/runs/{run}/events").text
        assert again == whole
        process.stop()


def test_a_second_signal_kills(tmp_path: Path) -> None:
    with serving(tmp_path, "--graceful-stop", "60", "--store", "memory:") as process:
        body = {"prompt": "scenario:stall"}
        run = httpx.post(process.url + "/v1/runs", json=body).json()["id"]
        assert run
        process.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.process.wait(timeout=1)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(timeout=30) == -signal.SIGTERM


def test_s1_another_address_needs_a_key_or_insecure(tmp_path: Path) -> None:
    line = refused(tmp_path, "--host", "0.0.0.0")
    assert "--api-key-file" in line
    assert "--insecure" in line
    keyed = {"TOKENWIRE_API_KEYS": "a-key-long-enough"}
    with serving(tmp_path, "--host", "0.0.0.0", **keyed) as process:
        url = process.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(url + "/v1/models").status_code == 401
        headers = {"authorization": "Bearer a-key-long-enough"}
        assert httpx.get(url + "/v1/models", headers=headers).status_code == 200
        assert "API key only" in "".join(process.lines)
    with serving(tmp_path, "--host", "0.0.0.0", "--insecure") as process:
        assert "ANYBODY" in "".join(process.lines)


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(tmp_path, "--port", str(port))
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "many"], "--port"),
        (["--port", "70000"], "65535"),
        (["--heartbeat", "0"], "--heartbeat"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--model", "nosuch:model"], "nosuch:model"),
        (["--model", "missing.gguf"], "missing.gguf"),
        (["--model", "openai:gpt-5"], "OPENAI_API_KEY"),
        (["--store", "cloud://x"], "cloud"),
        (["--store", "sqlite:/proc/nowhere/x.db"], "store"),
        (["--cors-origin", "*"], "*"),
        (["--cors-origin", "app.example"], "app.example"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--api-key-file", "missing.txt"], "missing.txt"),
        (["--durable-streams", "maybe"], "readwrite"),
        (["--workers", "2", "--store", "memory:"], "--store"),
        (["--tools", "nomodule:x"], "nomodule"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, flags: list[str], said: str) -> None:
    assert said in refused(tmp_path, *flags, OPENAI_API_KEY="")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tools", "nomodule:x"], "nomodule"),
        (["--tools", "mcp:false"], "MCP"),
        (["--agent", "nomodule:x"], "nomodule"),
        (["--store", "sqlite:/proc/nowhere/x.db"], "store"),
    ],
)
def test_with_workers_what_cannot_work_is_said_once_before_the_port_is_taken(
    tmp_path: Path, flags: list[str], said: str
) -> None:
    if "--store" not in flags:
        flags = [*flags, "--store", f"sqlite:{tmp_path / 'chat.db'}"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = ["--port", str(taken.getsockname()[1])]
        assert said in refused(tmp_path, "--workers", "3", *port, *flags)
        store = ["--store", f"sqlite:{tmp_path / 'chat.db'}"]
        assert "in use" in refused(tmp_path, "--workers", "3", *port, *store)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# mine\nme:a-key-long-enough\n")
    file.chmod(0o644)
    assert "chmod 600" in refused(tmp_path, "--api-key-file", str(file))
    file.chmod(0o600)
    with serving(tmp_path, "--api-key-file", str(file)) as process:
        assert httpx.get(process.url + "/v1/models").status_code == 401


def test_two_workers_share_a_store_and_one_address(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'chat.db'}"
    with serving(tmp_path, "--workers", "2", "--store", store) as process:
        for _ in range(6):
            body = {"prompt": "scenario:text?rate=300"}
            answer = httpx.post(process.url + "/v1/runs", json=body)
            run = answer.json()["id"]
            assert "run-end" in httpx.get(process.url + f"/v1/runs/{run}/events").text
        code, _, errors = process.stop()
        assert code == 0, errors


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_are_replaced_and_end_with_their_parent(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'chat.db'}"
    with serving(tmp_path, "--workers", "2", "--store", store) as process:
        wait_until(lambda: len(workers_of(process)) == 2)
        children = workers_of(process)
        os.kill(children[0], signal.SIGKILL)
        wait_until(lambda: len(workers_of(process)) == 2 and workers_of(process) != children)
        wait_until(lambda: httpx.get(process.url + "/healthz").status_code == 200)
        left = workers_of(process)
        process.process.kill()
        wait_until(lambda: not any(alive(child) for child in left))


def workers_of(process: Process) -> list[int]:
    number = process.process.pid
    text = Path(f"/proc/{number}/task/{number}/children").read_text()
    return [int(child) for child in text.split()]


def alive(number: int) -> bool:
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_it_serves_also_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    port = free_port()
    unread, ours = os.pipe()
    os.close(unread)
    process = subprocess.Popen(
        command("--port", str(port), "--store", "memory:"),
        cwd=tmp_path,
        env=environment(),
        stdout=ours,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(ours)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.05)
        process.terminate()
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
