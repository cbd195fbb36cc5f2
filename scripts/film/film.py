"""The moving picture of README: an answer streams into the page, the server is killed with -9 in
the middle of a sentence and started again, and the sentence goes on.

What the dead process had asked of the model died with it, so the next one asks again: the page
takes the open step back (`step-reset`) and writes it anew. The film shows that too.

    make film                       # docs/film.webp
    make film ARGS="--keep FOLDER"  # and every frame as a PNG

Always true: the page is the server's own in a real Chromium, and the server a real process; the
strip below the page shows the commands of this script as it runs them; a film is made only of a
run whose answer ended complete, whose words before the kill are the beginning of the answer, and
which is one turn with one answer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
ENCODER = ROOT / ".venv-docs" / "bin" / "python"
QUESTION = "How do I resume a stream after a crash?"
WIDTH, PAGE, STRIP = 720, 420, 92
RATE = 10  # tokens per second of the model, so that the eye can follow
#: Seconds between two frames, and the longest time that a frame that does not change is shown.
PACE, LONGEST = 0.1, 1.6
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_STRIP = """<!doctype html><meta charset="utf-8"><body style="margin:0;background:#16181d"><pre
style="margin:0;padding:10px 14px;color:#d5d9e0;font:13px/18px monospace"></pre>"""


class Process:
    """A `tokenwire` command that listens; `start` again keeps its port."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.folder = folder
        self.command = command
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tokenwire", *self.command, "--port", str(self.port)]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if match:
                self.port = int(match[1])
                break
        else:
            raise SystemExit(f"tokenwire {self.command[0]} did not start")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)


class Camera:
    """Pictures of page and strip and how long each pair is shown; an equal pair is one frame."""

    def __init__(self, page: Page, strip: Page, folder: Path) -> None:
        self.page = page
        self.strip = strip
        self.folder = folder
        self.frames: list[tuple[str, str, float]] = []
        self.lines: list[str] = []
        self._strip = ""
        self._last: tuple[bytes, str] = (b"", "")
        self._since = time.monotonic()
        strip.set_content(_STRIP)

    def say(self, line: str) -> None:
        self.lines = [*self.lines, line][-4:]
        self.strip.locator("pre").evaluate(
            "(pre, text) => { pre.textContent = text }", "\n".join(self.lines)
        )
        self._strip = f"strip-{len(self.frames):04}.png"
        (self.folder / self._strip).write_bytes(self.strip.screenshot())

    def take(self) -> None:
        begin = time.monotonic()
        picture = self.page.screenshot(animations="disabled", caret="hide")
        now = time.monotonic()
        if (picture, self._strip) != self._last:
            self.end(now)
            name = f"page-{len(self.frames):04}.png"
            (self.folder / name).write_bytes(picture)
            self.frames.append((name, self._strip, PACE))
            self._last, self._since = (picture, self._strip), now
        time.sleep(max(0.0, PACE - (time.monotonic() - begin)))

    def end(self, now: float) -> None:
        """The newest frame was shown until ``now``."""
        if self.frames:
            self.frames[-1] = (*self.frames[-1][:2], now - self._since)

    def hold(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.take()

    def until(self, condition: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            if time.monotonic() > end:
                raise SystemExit(f"waited in vain for {condition}")
            self.take()
        self.take()


def answer(page: Page) -> str:
    return page.locator(".answer .markdown").first.inner_text()


def shoot(page: Page, strip: Page, server: Process, folder: Path) -> list[tuple[str, str, float]]:
    """Plays the scene. Raises `SystemExit` where it is not what the film says."""
    page.goto(f"http://127.0.0.1:{server.port}")
    page.wait_for_selector("textarea")
    camera = Camera(page, strip, folder)
    typed = f"$ tokenwire {' '.join(server.command)}"
    camera.say(typed)
    camera.hold(0.6)
    page.locator("textarea").fill(QUESTION)
    camera.hold(0.6)
    page.keyboard.press("Enter")
    length = "(document.querySelector('.answer .markdown')?.innerText ?? '').length"
    camera.until(f"{length} > 150")
    assert server.process is not None
    camera.say(f"$ kill -9 {server.process.pid}    # in the middle of the sentence")
    server.kill()
    before = answer(page)
    camera.until("document.body.innerText.includes('Reconnecting')")
    camera.hold(1.2)
    camera.say(typed)
    server.start()
    camera.until(f"{length} > {len(before) + 5}")
    camera.say("# taken over: the open step is asked again, and the sentence goes on")
    camera.until("document.querySelector('.answer')?.dataset.state === 'complete'")
    camera.say("# one whole answer: not a word lost, not a word twice")
    camera.hold(1.5)
    whole = answer(page)
    if not whole.startswith(before.rstrip()) or page.locator(".answer").count() != 1:
        raise SystemExit(f"the sentence did not go on:\n{before}\n---\n{whole}")
    camera.end(time.monotonic())
    return [(*names, min(seconds, LONGEST)) for *names, seconds in camera.frames]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make docs/film.webp")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "film.webp")
    parser.add_argument("--keep", type=Path, help="folder for the frames as PNG")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("make film needs Chromium")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as play:
        folder = options.keep or Path(temporary) / "frames"
        folder.mkdir(parents=True, exist_ok=True)
        model = Process(Path(temporary), "simulate", "--rate", str(RATE))
        model.start()
        address = f"http://127.0.0.1:{model.port}/v1#demo"
        server = Process(Path(temporary), "serve", "--model", address, "--store", "sqlite:runs.db")
        browser = play.chromium.launch(executable_path=chromium, args=BROWSER)
        try:
            server.start()
            page, strip = (
                browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
                for height in (PAGE, STRIP)
            )
            frames = shoot(page, strip, server, folder)
        finally:
            server.kill()
            model.kill()
            browser.close()
        (folder / "frames.json").write_text(json.dumps(frames))
        subprocess.run(
            [ENCODER, Path(__file__).with_name("encode.py"), folder, options.out], check=True
        )
    seconds = sum(length for *_, length in frames)
    size = options.out.stat().st_size
    print(f"{options.out}: {size:,} bytes, {len(frames)} frames, {seconds:.0f} s")


if __name__ == "__main__":
    main()
