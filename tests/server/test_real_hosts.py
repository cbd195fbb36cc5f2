"""Litestar, Django and Quart as they are, each with its own login, and all routes under a prefix of
theirs; Flask, whose answers come from an iterator."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.node import need_node, run_node
from support.server import simulator

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)
NUMBERS = "".join(f"{n} " for n in range(1, 91))
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
}
SLOW = "scenario:slow?rate=300"
FRIEND = "http://friend.example"


class Host:
    """One host: its address, and the one behind a proxy that takes ``/team`` off."""

    def __init__(self, name: str, ports: list[int]) -> None:
        self.name, self.ports = name, ports
        self.url, self.behind = (f"http://127.0.0.1:{port}" for port in (ports[0], ports[-1]))
        self.ai = self.url + "/ai"

    @contextmanager
    def sign_in(self, user: str) -> Iterator[httpx.Client]:
        with httpx.Client(timeout=60, headers={"origin": self.url}) as client:
            answer = client.post(f"{self.url}/login", params={"name": user})
            assert answer.status_code == 204, answer.text
            yield client


def need_hosts() -> None:
    if not (ROOT / ".venv-hosts" / ".installed").exists():
        pytest.skip("the environment of frameworks is not there (make .venv-hosts/.installed)")


@contextmanager
def running(name: str) -> Iterator[Host]:
    need_hosts()
    script = ROOT / "tests" / "support" / "hosts" / f"{name}_host.py"
    process = subprocess.Popen(
        [ROOT / ".venv-hosts" / "bin" / "python", script, simulator().server.url + "/v1"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield Host(name, json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.fixture(scope="module", params=["litestar", "django", "quart"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with running(request.param) as started:
        yield started


@pytest.fixture(scope="module")
def ann(host: Host) -> Iterator[httpx.Client]:
    with host.sign_in("ann") as client:
        yield client


def cookie_of(client: httpx.Client) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


def test_the_hosts_login_decides(host: Host, ann: httpx.Client) -> None:
    assert httpx.get(f"{host.ai}/v1/models").status_code == 401
    made = ann.post(f"{host.ai}/v1/runs", json={"prompt": SLOW})
    assert made.status_code == 201, made.text
    run = made.json()["id"]
    assert "run-end" in ann.get(host.url + made.json()["events"]).text
    assert ann.get(httpx.URL(host.url).join(made.headers["location"])).status_code == 200
    with host.sign_in("bob") as bob:
        assert bob.get(f"{host.ai}/v1/runs/{run}").status_code == 404
    assert httpx.get(f"{host.ai}/v1/runs/{run}").status_code == 401
    stale = {"cookie": cookie_of(ann)[:-3] + "xyz"}
    assert httpx.get(f"{host.ai}/v1/models", headers=stale).status_code == 401


def test_the_host_keeps_its_own_routes(host: Host) -> None:
    assert httpx.get(f"{host.url}/own").json() == {"own": True}
    assert httpx.get(f"{host.url}/nothing").status_code == 404
    assert httpx.get(f"{host.url}/aiming").status_code in (401, 404)  # Litestar's mount takes it
    assert httpx.post(f"{host.url}/own").status_code in (200, 403, 405)


def test_the_page_is_below_the_slash(host: Host) -> None:
    answer = httpx.get(f"{host.url}/ai?x=1")
    assert (answer.status_code, answer.headers["location"]) == (307, "/ai/?x=1")
    assert httpx.get(f"{host.url}/ai/").status_code == 200


def test_what_the_login_raises_is_its_answer(host: Host) -> None:
    with host.sign_in("barred" if host.name != "django" else "ann") as client:
        query = "?barred=1" if host.name == "django" else ""
        answer = client.get(f"{host.ai}/v1/models{query}")
        assert (answer.status_code, "you are barred" in answer.text) == (403, True)


def test_paths_lead_nowhere_else(host: Host) -> None:
    for path in (
        "//v1/runs",
        "/v1//threads",
        "/%76%31/threads",
        "/assets/%2e%2e/v1/threads",
        "/assets/..%2fv1%2fthreads",
        "/livez%2f..%2fv1/threads",
        "/assets/v1/threads",
        "/v1/models/x/assets/y",
    ):
        assert httpx.get(host.ai + path).status_code in (401, 404), path


def test_a_socket_has_its_user(host: Host, ann: httpx.Client) -> None:
    address = host.ai.replace("http", "ws") + "/ws"
    with connect(address, additional_headers={"Cookie": cookie_of(ann)}) as socket:
        socket.send(json.dumps({"op": "start", "id": 1, "request": {"prompt": SLOW}}))
        text = ""
        while True:
            events = [x["event"] for x in json.loads(socket.recv(timeout=60)).get("events", [])]
            text += "".join(e["text"] for e in events if e["type"] == "text-delta")
            if any(e["type"] == "run-end" for e in events):
                break
    assert text == NUMBERS
    with pytest.raises(InvalidStatus), connect(address):
        pass


def test_other_origins(host: Host, ann: httpx.Client) -> None:
    """Litestar's own CORS decides; around the others it is ours, which allows none."""
    answer = httpx.get(f"{host.ai}/v1/models", headers={"origin": FRIEND})
    allowed = answer.headers.get_list("access-control-allow-origin")
    assert (answer.status_code, allowed) == (401, [FRIEND] if host.name == "litestar" else [])
    made = ann.post(f"{host.ai}/v1/runs", json={"prompt": "x"}, headers={"origin": FRIEND})
    assert made.status_code == (201 if host.name == "litestar" else 403)


def test_behind_a_proxy_that_takes_a_prefix_off(host: Host, ann: httpx.Client) -> None:
    made = ann.post(
        f"{host.behind}/ai/v1/runs", json={"prompt": "x"}, headers={"origin": host.behind}
    )
    assert made.status_code == 201, made.text
    assert made.json()["events"].startswith("/team/ai/v1/runs/")
    assert made.headers["location"].endswith(f"/team/ai/v1/runs/{made.json()['id']}")
    events = made.json()["events"].removeprefix("/team")
    assert "run-end" in ann.get(host.behind + events).text


@pytest.mark.node
def test_everybodys_clients(host: Host, ann: httpx.Client) -> None:
    need_node()
    told: dict[str, Any] = run_node("everyone.mjs", host.ai, cookie_of(ann), SLOW, seconds=150)
    assert told == dict.fromkeys(told, NUMBERS)
    assert len(told) == 6


def test_flask_streams_from_an_iterator() -> None:
    with running("flask") as flask, httpx.Client(timeout=120) as client:
        answer = client.post(f"{flask.url}/chat", json={"prompt": SLOW})
        assert answer.text == NUMBERS
        body = {"prompt": "scenario:slow?rate=2"}
        with client.stream("POST", f"{flask.url}/chat", json=body) as cut:
            assert next(cut.iter_text()).startswith("1")
        ended = client.get(f"{flask.url}/ended").json()
        assert ended == {"whole": 1, "cut": 1}


def blocks_for(mark: str) -> list[str]:
    page = (ROOT / "docs" / "guide" / "embed.md").read_text(encoding="utf-8")
    return re.findall(rf"^```python needs: {mark}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("mark", ["Litestar", "Django", "Quart", "Flask"])
def test_what_the_guide_says_of_a_framework_runs(mark: str, tmp_path: Path) -> None:
    """The block, and then one request to what it made, with and without its login."""
    need_hosts()
    (block,) = blocks_for(mark)
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    done = subprocess.run(
        [ROOT / ".venv-hosts" / "bin" / "python", "-m", "support.hosts.try_block", mark],
        cwd=tmp_path,
        env={**ENVIRONMENT, "DJANGO_SETTINGS_MODULE": "support.hosts.django_settings"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
