"""``tokenwire chat``: with pipes and on a terminal, Ctrl-C, control characters, tools, failures."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.cli import COMMAND, PATIENCE, ROOT, Terminal, environment, model_that_says, run
from tokenwire.cli.terminal import inert

EVIL = "a\x1b]52;c;cm0gLXJm\x07b\x1b[2Jc\x9b31md\u202eflip\r\n"


def test_into_a_pipe_goes_the_answer_and_nothing_else() -> None:
    done = run("chat", "scenario:slow")
    numbers = " ".join(map(str, range(1, 91)))
    assert (done.returncode, done.stdout.split()) == (0, numbers.split())
    assert done.stderr == ""


def test_the_prompt_may_come_from_standard_input_or_both() -> None:
    assert run("chat", stdin="scenario:slow").stdout.startswith("1 2 3")
    assert run("chat", "-", stdin="scenario:slow").stdout.startswith("1 2 3")
    both = run("chat", "explain this", stdin="the piped part")
    assert (both.returncode, "explain this" in both.stdout) == (0, True)
    empty = run("chat", stdin="")
    assert (empty.returncode, empty.stdout) == (2, "")
    assert "no prompt" in empty.stderr


def test_bytes_that_are_no_text() -> None:
    options = {"capture_output": True, "timeout": PATIENCE, "env": environment(), "cwd": ROOT}
    piped = subprocess.run([*COMMAND, "chat"], input=b"\xff\xfe", **options, check=False)
    assert (piped.returncode, b"not UTF-8" in piped.stderr) == (2, True)
    words = [*COMMAND, "chat", b"caf\xe9"]
    named = subprocess.run(words, stdin=subprocess.DEVNULL, **options, check=False)
    assert (named.returncode, "caf\ufffd" in named.stdout.decode()) == (0, True)


@pytest.mark.parametrize("to_file", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_a_model_in_a_pipe_acts_on_no_terminal_behind_it(
    tmp_path: Path, raw: bool, to_file: bool
) -> None:
    """``chat | tee`` shows it on a terminal; a file takes it exactly, and so does ``--raw``."""
    with model_that_says(EVIL, "end") as model, open(tmp_path / "out", "w+b") as file:
        done = subprocess.run(
            [*COMMAND, "chat", *(["--raw"] if raw else []), "-m", model, "hi"],
            stdin=subprocess.DEVNULL,
            stdout=file if to_file else subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            env=environment(),
            cwd=ROOT,
            check=True,
        )
        file.seek(0)
        text = (file.read() if to_file else done.stdout).decode()
    if raw or to_file:
        assert text == EVIL + "end\n"
    else:
        assert text == inert(EVIL) + "end\n"
        assert not any(char in text for char in "\x1b\x07\x9b\u202e\r")


@pytest.mark.parametrize("plain", [False, True])
def test_control_characters_of_a_model_are_shown_and_do_nothing(plain: bool) -> None:
    words = ["chat", "-m"]
    with model_that_says(EVIL, "the end") as model:
        options = ["--plain"] if plain else []
        with Terminal(*words, model, *options, "hi") as terminal:
            terminal.press("")
            assert terminal.finish() == 0
            shown = terminal.shown
    assert "\x1b]52" not in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    assert "\x1b[2Jc" not in shown
    assert "\u241b]52" in shown
    assert "<U+202E>" in shown
    assert "the end" in shown


def test_raw_lets_them_through_when_asked() -> None:
    with (
        model_that_says(EVIL) as model,
        Terminal("chat", "-m", model, "--raw", "--plain", "x") as t,
    ):
        assert t.finish() == 0
        assert "\x1b]52;c;cm0gLXJm\x07" in t.shown


def test_markdown_is_drawn_on_a_terminal() -> None:
    with model_that_says(
        "# Title\n\nSome **bold", "** text, `code` and <b>tags</b>.\n\n", "- one\n- two\n"
    ) as m:
        terminal = Terminal("chat", "-m", m, "hi")
        with terminal:
            assert terminal.finish() == 0
    final = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.shown)
    assert "**bold**" not in final.split("Some")[-1]
    assert "Title" in final
    assert "<b>tags</b>" in final
    assert "• one" in final


def test_the_first_ctrl_c_stops_the_answer_and_the_conversation_goes_on() -> None:
    with Terminal("chat", "--plain") as terminal:
        place = terminal.wait_for("> ")
        terminal.press("scenario:slow\n")
        place = terminal.wait_for("1 2 3", after=place)
        terminal.press("\x03")
        place = terminal.wait_for("[stopped]", after=place)
        place = terminal.wait_for("> ", after=place)
        terminal.press("scenario:slow\n")
        place = terminal.wait_for("89 90", after=place)
        place = terminal.wait_for("> ", after=place)
        terminal.press("/bye\n")
        assert terminal.finish() == 0


def test_ctrl_c_ends_a_single_question_with_130() -> None:
    with Terminal("chat", "--plain", "scenario:slow") as terminal:
        terminal.wait_for("1 2 3")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert "[stopped]" in terminal.shown
        assert "^C" not in terminal.shown  # it would be written into the answer
        assert "Traceback" not in terminal.shown


def test_ctrl_c_at_the_prompt_leaves() -> None:
    with Terminal("chat") as terminal:
        terminal.wait_for("> ")
        # The line editor may not listen yet when its prompt is already there.
        assert terminal.press_until_end("\x03") == 0


def test_a_tool_that_asks_shows_its_arguments_and_takes_the_answer() -> None:
    with Terminal("chat", "--plain", "scenario:approval") as terminal:
        place = terminal.wait_for("delete_file with")
        terminal.wait_for("Run it? [y/N]", after=place)
        assert '"path"' in terminal.shown
        terminal.press("y\n")
        assert terminal.finish() == 0
        assert "simulated" in terminal.shown
    with Terminal("chat", "--plain", "scenario:approval") as terminal:
        terminal.wait_for("Run it? [y/N]")
        terminal.press("\n")
        assert terminal.finish() == 0
        assert "denied" in terminal.shown


def test_a_tool_that_asks_gets_a_no_when_nobody_is_there() -> None:
    done = run("chat", "scenario:approval")
    assert done.returncode == 0
    assert "rejected: no terminal" in done.stderr
    assert run("chat", "--yes", "scenario:approval").stderr.count("delete_file") >= 1


def test_tools_are_told_beside_the_answer() -> None:
    done = run("chat", "scenario:tool")
    assert done.returncode == 0
    assert "get_weather" in done.stderr
    assert "Paris" in done.stdout


def test_tools_of_a_file_beside_you(tmp_path: Path) -> None:
    (tmp_path / "my_tools.py").write_text(
        "def get_weather(city: str) -> str:\n    return 'frogs in ' + city\n"
    )
    words = ["chat", "-m", "demo", "-t", "my_tools:get_weather", "scenario:tool"]
    done = subprocess.run(
        [COMMAND[0], "-P", *COMMAND[1:], *words],  # -P: as the installed command starts
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, "frogs in Paris" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["-m", "nonsense", "hi"], 2, "nonsense"),
        (["-m", "openai:gpt-5", "hi"], 2, "OPENAI_API_KEY"),
        (["-m", "http://127.0.0.1:9/v1#x", "hi"], 1, "127.0.0.1"),
        (["-m", "no/such/file.gguf", "hi"], 2, "gguf"),
        (["-t", "nothing", "hi"], 2, "MODULE:NAME"),
        (["scenario:error"], 1, "tokenwire: "),
        (["--temperature", "warm", "hi"], 2, "--temperature"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_failures_are_one_line_that_says_what_to_do(words: list[str], code: int, told: str) -> None:
    done = run("chat", *words)
    assert told in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_cut_answer_is_no_success() -> None:
    with model_that_says("half an ans", cut=True) as model:
        done = run("chat", "-m", model, "hi")
    assert done.stdout == "half an ans\n"
    assert done.returncode == 1
    assert done.stderr != ""


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    process = subprocess.Popen(
        [*COMMAND, "chat", "scenario:long"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10)
    process.stdout.close()
    assert (process.wait(PATIENCE), process.stderr.read()) == (0, b"")
    process.stderr.close()
