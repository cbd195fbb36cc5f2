"""A key file that changes while the server runs: what counts then, and what is read of it when."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.errors import ConfigError, NotAuthenticatedError
from tokenwire.server.access.api_keys import KeyFile
from tokenwire.server.access.file_look import FileLook
from tokenwire.server.edge.auth import Auth
from tokenwire.server.settings import Settings

A, B, C = "first-key-of-some-length", "second-key-of-some-length", "third-key-of-some-length"


class Clock:
    """Both of a look's clocks, which the test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Subject:
    """An `Auth` of a key file, under clocks of the test."""

    def __init__(self, path: Path, *lines: str, fixed: tuple[str, ...] = ()) -> None:
        self.path, self.clock, self.wall = path, Clock(50.0), Clock(1e9)
        self.write(*lines)
        self.auth = Auth(fixed)
        self.auth._file = KeyFile(
            path,
            self.auth._fixed,
            look=lambda place: FileLook(place, clock=self.clock, wall=self.wall),
        )

    def write(self, *lines: str, mode: int = 0o600) -> None:
        """Other lines, as of now."""
        self.path.write_text("\n".join(lines))
        self.path.chmod(mode)
        os.utime(self.path, (self.wall.now, self.wall.now))

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.wall.now += seconds

    def names(self) -> list[str | None]:
        """Whose each of the three keys is."""
        return [self._name(key) for key in (A, B, C)]

    def _name(self, key: str) -> str | None:
        try:
            return asyncio.run(self.auth.check_key(key)).principal
        except NotAuthenticatedError:
            return None


def test_what_is_taken_out_counts_no_more_and_what_is_new_counts(tmp_path: Path) -> None:
    subject = Subject(tmp_path / "keys", f"ann:{A}", f"bob:{B}")
    assert subject.names() == ["ann", "bob", None]
    subject.write(f"bob:{B}", f"cat:{C}")
    subject.wait(0.5)  # it may be half of what is being written
    assert subject.names() == ["ann", "bob", None]
    subject.wait(2.0)
    assert subject.names() == [None, "bob", "cat"]
    subject.write(f"dan:{B}")
    subject.wait(2.0)
    assert subject.names() == [None, "dan", None]


def test_the_first_request_after_a_quiet_night_meets_the_new_file(tmp_path: Path) -> None:
    subject = Subject(tmp_path / "keys", f"ann:{A}", f"bob:{B}")
    assert subject.names()[0] == "ann"
    subject.write(f"bob:{B}")
    subject.wait(30_000.0)
    assert subject.names() == [None, "bob", None]


def test_a_clock_that_was_put_back_keeps_no_key_alive(tmp_path: Path) -> None:
    subject = Subject(tmp_path / "keys", f"ann:{A}", f"bob:{B}")
    assert subject.names()[0] == "ann"
    subject.write(f"bob:{B}")
    subject.wall.now -= 5000.0
    for _ in range(3):
        subject.clock.now += 1.0
        seen = subject.names()
    assert seen == [None, "bob", None]


def test_a_file_that_holds_no_key_any_more_lets_nobody_in(tmp_path: Path) -> None:
    subject = Subject(tmp_path / "keys", f"ann:{A}")
    subject.write("# nobody")
    subject.wait(5.0)
    assert subject.names() == [None, None, None]
    assert subject.auth.on, "without a key everybody would be let in"


def test_a_file_that_others_may_read_lets_nobody_in_and_one_that_is_gone_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subject = Subject(tmp_path / "keys", f"ann:{A}", f"cat:{C}")
    subject.write(f"ann:{A}", f"bob:{B}", mode=0o644)
    subject.wait(5.0)
    with caplog.at_level(logging.ERROR, logger="tokenwire.server"):
        assert subject.names() == ["ann", None, None], "cat is taken out, bob is not let in"
    assert "readable by other users" in caplog.text
    subject.path.chmod(0o600)
    subject.wait(5.0)
    assert subject.names() == ["ann", "bob", None]
    caplog.clear()
    subject.path.unlink()
    with caplog.at_level(logging.ERROR, logger="tokenwire.server"):
        for _ in range(5):
            subject.wait(5.0)
            assert subject.names() == ["ann", "bob", None]
    assert len(caplog.records) == 1, "once for each change"
    assert "cannot read the API key file" in caplog.text


@pytest.mark.parametrize("wrong", ["short", f"x:{C}", f"dan:{C} {B}", "\x1b:" + B])
def test_a_wrong_line_lets_nobody_in_and_keeps_nobody_who_left(
    wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subject = Subject(tmp_path / "keys", f"ann:{A}", f"bob:{B}", fixed=(C,))
    subject.write(f"bob:{B}", wrong)
    subject.wait(5.0)
    with caplog.at_level(logging.ERROR, logger="tokenwire.server"):
        names = subject.names()
    assert names[:2] == [None, "bob"]
    assert "is not usable" in caplog.text
    assert not any(key in caplog.text for key in (A, B, C))


def test_a_file_without_a_key_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# none\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no key"):
        Auth.from_settings(Settings(api_key_file=str(path)))
    path.write_text(A)
    with pytest.raises(ConfigError, match="listed twice"):
        Auth.from_settings(Settings(api_key_file=str(path), api_keys=[A]))


_FILES = st.lists(st.sampled_from([f"ann:{A}", f"bob:{B}", f"cat:{C}", "short", ""]), max_size=4)


@settings(max_examples=60, deadline=None)
@given(files=st.lists(st.tuples(_FILES, st.booleans()), min_size=1, max_size=6))
def test_whoever_is_let_in_stands_in_the_file(
    files: list[tuple[list[str], bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Once a file that can be read is at rest, only keys that it holds count; and all of them,
    where nothing in it is wrong."""
    subject = Subject(tmp_path_factory.mktemp("keys") / "keys", f"ann:{A}")
    for lines, is_mine in files:
        subject.write(*lines, mode=0o600 if is_mine else 0o644)
        subject.wait(3.0)
        names = subject.names()
        there = [f"{name}:{key}" in lines for name, key in (("ann", A), ("bob", B), ("cat", C))]
        assert all(is_there or name is None for name, is_there in zip(names, there, strict=True))
        is_whole = "short" not in lines and len({*filter(None, lines)}) == len(
            [*filter(None, lines)]
        )
        if is_mine and is_whole:
            assert [name is not None for name in names] == there
