"""Every code block of README and docs: Python runs, shell commands exist, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tokenwire.server.configuration import settings_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
PAGES += [ROOT / "examples" / "app" / "README.md"]
BLOCK = re.compile(r"^(```+)([a-z]*)([^\n]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


MOST_COLUMNS = 100


def prose(text: str):
    """The numbered lines of a page that are no table, code block, heading or lone address."""
    fence, above = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        indented = line.startswith("    ") and (not above.strip() or above.startswith("    "))
        above = line
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or line.strip() == fence):
            fence = "" if fence else mark[1]
        elif not (fence or mark or indented) and not line.lstrip().startswith(("|", "#", "<!--")):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_of_prose_end_at_a_hundred_columns(page):
    lines = list(prose(page.read_text(encoding="utf-8")))
    assert lines
    assert not [n for n, line in lines if len(line) > MOST_COLUMNS and " " in line.strip()]


def test_the_width_is_that_of_prose_alone():
    wide = "a word " * 20
    code = f"```sh\n{wide}\n```\n- {wide}\n````\n```\n{wide}\n````"
    text = f"short\n{wide}\n| {wide} |\n{code}\n{wide}\n\n    {wide}"
    assert [n for n, line in prose(text) if len(line) > MOST_COLUMNS] == [2, 7, 12]


def blocks(language: str):
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, match in enumerate(BLOCK.finditer(text), 1):
            if match[2] == language:
                name = f"{page.relative_to(ROOT)}:{number}"
                yield pytest.param(match[3].strip(), match[4], id=name)


@pytest.mark.parametrize(("mark", "code"), list(blocks("python")))
def test_python_blocks_run(mark, code, tmp_path):
    """A block marked ``needs: NAME`` uses something that a test machine has not (a key, a server);
    it must at least compile."""
    compile(code, "block", "exec")
    if mark.startswith("needs:"):
        assert len(mark) > len("needs: ")
        return
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "error::SyntaxWarning"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def commands(code: str) -> list[list[str]]:
    joined = code.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        line = line.strip().removeprefix("$ ")
        if line and not line.startswith("#"):
            found.append(shlex.split(line, comments=True))
    return found


@pytest.mark.parametrize(("mark", "code"), list(blocks("sh")))
def test_shell_blocks_name_targets_and_options_that_exist(mark, code):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(code):
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if not words:
            continue
        if words[0] == "make":
            for word in words[1:]:
                if "=" not in word and not word.startswith("-"):
                    assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), word
        elif words[0] == "tokenwire":
            check_tokenwire(words[1:])


HELP: dict[str, str] = {}


def help_of(*command: str) -> str:
    key = " ".join(command)
    if key not in HELP:
        HELP[key] = ""
        # Rare options of the server are in its second help.
        for flag in ["--help", "--help-limits"] if key == "serve" else ["--help"]:
            done = subprocess.run(
                [sys.executable, "-m", "tokenwire", *command, flag],
                capture_output=True,
                text=True,
                timeout=60,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"},
            )
            assert done.returncode == 0, f"tokenwire {key}: {done.stderr}"
            HELP[key] += done.stdout
    return HELP[key]


def check_tokenwire(words: list[str]) -> None:
    if not words or words[0].startswith("-"):
        return
    text = help_of(words[0])
    for word in words[1:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in text, f"tokenwire {words[0]} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        assert (page.parent / target).exists(), target


#: Options of other programs that the pages mention.
OTHERS = {"--no-sweep", "--no-agents", "--budget-kills", "--streams"}
OTHERS |= {"--native", "--what", "--pauses"}  # the benchmarks'
OTHERS |= {"--tokenwire-record", "--tokenwire-record-mode"}  # pytest's


def test_options_that_the_pages_mention_exist():
    """In prose and tables, by their bare name: an option of the past is found here."""
    commands = ["serve", "chat", "inspect", "simulate", "models", "tail", "waiting"]
    commands += ["rotate-secret", "doctor", "budgets"]
    known = set(re.findall(r"--[a-z][a-z-]+", " ".join(map(help_of, commands))))
    known |= {row.flag for row in settings_table()}  # secrets are flags, which no help advises
    known |= {
        f"--{'no-' * no}{flag.removeprefix('--').removeprefix('no-')}"
        for flag in known
        for no in (0, 1)
    }
    mentioned = {
        (str(page.relative_to(ROOT)), flag)
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for code in re.findall(r"`(--[^`]+)`", page.read_text(encoding="utf-8"))
        for flag in re.findall(r"(?:^|\s)(--[a-z][a-z-]+)", code)
    }
    assert len(mentioned) > 30
    assert sorted((page, flag) for page, flag in mentioned if flag not in known | OTHERS) == []


ANCHOR = re.compile(r"\[[^\]]*\]\(([^)#\s]*)#([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as the sites that show Markdown make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text).strip().lower()) for text in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_headings_lead_somewhere(page):
    for target, name in ANCHOR.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert name in anchors(page.parent / target if target else page), f"{target}#{name}"
