"""Durable Streams' published suite, on every store."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from support import process as process_support
from support.node import HERE, need_node
from support.redis import need_redis, redis_server

pytestmark = pytest.mark.node


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "kind", ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)]
)
def test_the_published_suite(tmp_path: Path, kind: str) -> None:
    """All of it, its optional part too; on the stores that can be shared against two workers."""
    need_node()
    report = tmp_path / "report.json"
    with contextlib.ExitStack() as stack:
        store = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path / 'suite.db'}"}.get(kind, "")
        if kind == "redis":
            need_redis()
            store = stack.enter_context(redis_server()).url
        flags = {
            "--store": store,
            "--workers": "1" if kind == "memory" else "2",
            "--durable-streams": "readwrite",
            "--durable-streams-webhooks": "127.0.0.1:*",
            "--limit": "long_poll_timeout=0.5",
        }
        server = stack.enter_context(
            process_support.serving(
                tmp_path, "--no-access-log", *(word for pair in flags.items() for word in pair)
            )
        )
        subprocess.run(
            ["node_modules/.bin/vitest", "run", "--reporter=json", f"--outputFile={report}"],
            cwd=HERE,
            env={**os.environ, "CONFORMANCE_TEST_URL": f"{server.url}/ds"},
            capture_output=True,
            timeout=380,
            check=False,
        )
    told = json.loads(report.read_text())
    failed = [
        a["fullName"]
        for f in told["testResults"]
        for a in f["assertionResults"]
        if a["status"] == "failed"
    ]
    assert failed == []
    assert told["numPassedTests"] == 338
