"""A disk that takes its time with every flush: answers come slower, whole and in order."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from support.process import serving
from tokenwire.events.codec import decode
from tokenwire.events.fold import fold
from tokenwire.framing.sse import SSEDecoder
from tokenwire.simulator import samples

#: Loaded before the C library: each flush sleeps, and leaves a mark that it did.
SLOW = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int slow(const char *name, int file) {
  int mark = open(getenv("SLOW_MARKS"), O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (mark >= 0 && write(mark, ".", 1) == 1) close(mark);
  usleep(100000);
  return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}
int fsync(int file) { return slow("fsync", file); }
int fdatasync(int file) { return slow("fdatasync", file); }
"""


@pytest.fixture
def slow_disk(tmp_path: Path) -> dict[str, str]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a slow flush with")
    source, library = tmp_path / "slow.c", tmp_path / "slow.so"
    source.write_text(SLOW)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library), "SLOW_MARKS": str(tmp_path / "marks")}


def test_answers_wait_for_the_disk_and_are_whole(tmp_path: Path, slow_disk: dict[str, str]) -> None:
    store = f"sqlite:{tmp_path / 'chat.db'}"
    with serving(tmp_path, "--store", store, **slow_disk) as process:
        before = (tmp_path / "marks").stat().st_size
        prompts = ["scenario:text?rate=2000", "scenario:slow?rate=500", "scenario:tool"]
        answers = [
            httpx.post(process.url + "/v1/runs", json={"prompt": prompt}, timeout=30)
            for prompt in prompts
        ]
        found = []
        for answer in answers:
            url = f"{process.url}/v1/runs/{answer.json()['id']}/events"
            decoder = SSEDecoder()
            frames = decoder.feed(httpx.get(url, timeout=60).content) + decoder.finish()
            events = [decode(frame.data) for frame in frames]
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            found.append(fold(events))
        assert [state.outcome for state in found] == ["complete"] * 3
        assert found[0].text == samples.MARKDOWN
        assert found[1].text == "".join(f"{number} " for number in range(1, 91))
        assert (tmp_path / "marks").stat().st_size > before + 5
