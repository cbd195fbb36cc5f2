"""The real command in a process of its own, with pipes or on a terminal."""

from __future__ import annotations

import http.server
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tokenwire"]
#: Long enough for a busy machine; nothing waits for it in vain.
PATIENCE = 60.0


def environment(**extra: str) -> dict[str, str]:
    """No keys, no settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return {**kept, "PYTHONPATH": path, "TERM": "xterm", "LANG": "C.UTF-8", **extra}


def run(
    *words: str, stdin: str | bytes | None = None, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end, with pipes."""
    return subprocess.run(
        [*COMMAND, *words],
        input=stdin.decode() if isinstance(stdin, bytes) else stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(**extra),
        cwd=ROOT,
        check=False,
    )


class Terminal:
    """The command on a pseudo-terminal: what it shows, and keys to press."""

    def __init__(self, *words: str, **extra: str) -> None:
        self.shown = ""
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(COLUMNS="100", LINES="40", **extra),
            cwd=ROOT,
            start_new_session=True,
            # The terminal must be the controlling one for Ctrl-C to become a signal.
            preexec_fn=lambda: _take_terminal(0),
        )
        os.close(slave)

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def press_until_end(self, keys: str) -> int:
        """Press again each second until the program has ended; its exit code."""
        for _ in range(int(PATIENCE)):
            self.press(keys)
            try:
                return self.process.wait(1)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"{keys!r} does not end it: {self.shown!r}")

    def wait_for(self, text: str, *, after: int = 0) -> int:
        """Read until ``text`` was shown after place ``after``; the place behind it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown[after:]:
            assert time.monotonic() < deadline, f"never shown: {text!r} in {self.shown!r}"
            assert self._read(), f"the program ended before {text!r}: {self.shown!r}"
        return self.shown.index(text, after) + len(text)

    def finish(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.master], [], [], PATIENCE)
        try:
            data = os.read(self.master, 65536) if ready else b""
        except OSError:  # how Linux says that the other side is closed
            data = b""
        self.shown += data.decode("utf-8", "replace")
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def _take_terminal(descriptor: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
    # Who runs the tests in the background of a script ignores Ctrl-C, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def background(*words: str, **extra: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves: the process, and the first line that it printed."""
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**extra),
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield process, line
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        if process.stdout is not None:
            drain.join(PATIENCE)
            process.stdout.close()


@contextmanager
def model_that_says(*pieces: str | dict[str, Any], cut: bool = False) -> Iterator[str]:
    """A compatible server with one answer, of texts or whole deltas; its name for ``--model``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for piece in pieces:
                delta = piece if isinstance(piece, dict) else {"content": piece}
                self._send({"index": 0, "delta": delta})
            if not cut:
                self._send({"index": 0, "delta": {}, "finish_reason": "stop"})
                self.wfile.write(b"data: [DONE]\n\n")

        def _send(self, choice: dict[str, Any]) -> None:
            chunk = {"object": "chat.completion.chunk", "choices": [choice]}
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1#fake"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
