"""The command ``tokenwire``: what it can do, each part imported when it is asked for.

Always true: ``--help`` and a wrong option cost no more than this file's imports; every command ends
with 0, 1 (it failed), 2 (it was asked wrongly) or 130 (Ctrl-C), and never with a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import tokenwire
from tokenwire.cli.terminal import command

__all__ = ["app", "main"]

app = typer.Typer(
    name="tokenwire",
    help="Bring a model's answer to people while it is being written.\n\n"
    "Try 'tokenwire serve' and open the page, or 'tokenwire chat' here: the model 'demo' needs "
    "no key and no network.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tokenwire {tokenwire.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand != "serve" and not os.environ.get("TOKENWIRE_DEBUG"):
        # What a person needs to know is in the command's own words; a server keeps a log.
        logging.getLogger("tokenwire").addHandler(logging.NullHandler())


@app.command(
    short_help="Serve models over HTTP, with the chat page.",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
@command
def serve(context: typer.Context) -> None:
    """Serve models over HTTP, with the chat page ('tokenwire serve --help' lists the settings)."""
    from tokenwire.cli.serve import run_serve

    raise SystemExit(run_serve(context.args))


@app.command(short_help="Talk with a model in the terminal.")
@command
def chat(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help="What to ask; without it, a conversation. '-' is standard input.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            envvar="TOKENWIRE_MODEL",
            help="Model; again: next if it fails.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="TEXT", help="System prompt.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="N", help="0 is calm, 2 is wild.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Most tokens of an answer.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Ask for a repeatable answer.")
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            "--tool", "-t", metavar="TOOL", help="MODULE:NAME, 'demo', or mcp:COMMAND or mcp:URL."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Say yes to every tool call that asks.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Text as it comes, without drawing Markdown.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Let control characters of the model act. Dangerous.")
    ] = False,
    reasoning: Annotated[bool, typer.Option(help="Show the model's reasoning, too.")] = True,
    stats: Annotated[bool, typer.Option(help="Tell times and tokens after an answer.")] = False,
) -> None:
    """Talk with a model in the terminal.

    Ctrl-C stops the answer; once more, it leaves.
    """
    from tokenwire.cli.chat import ChatOptions, run_chat

    options = ChatOptions(
        models=model or ["demo"],
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        tools=tool,
        yes=yes,
        plain=plain,
        raw=raw,
        reasoning=reasoning,
        stats=stats,
    )
    raise SystemExit(run_chat(prompt or [], options))


@app.command(short_help="Decode recorded streams of providers.")
@command
def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Recorded streams; '-' is standard input."),
    ],
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The protocol: chat, responses, messages, gemini, ..."),
    ] = None,
    framing: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="sse, ndjson, jsonl, json-array or aws-eventstream."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object with the facts for each file.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print control characters as they are.")
    ] = False,
) -> None:
    """Decode recorded streams of providers and print the events, or the facts with --json.

    Family and framing are guessed when they are not given.
    """
    from tokenwire.cli.inspect import run_inspect

    raise SystemExit(run_inspect(files, family=family, framing=framing, as_json=as_json, raw=raw))


@app.command(short_help="Serve simulated models.")
@command
def simulate(
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port; 0 takes a free one.")] = 8900,
    ttft: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds to the first token.")
    ] = 0.25,
    rate: Annotated[float, typer.Option(metavar="N", help="Tokens a second; 0 is at once.")] = 40.0,
    jitter: Annotated[float, typer.Option(metavar="N", help="Spread of the gaps, 0 to 1.")] = 0.4,
    tokens_per_chunk: Annotated[
        int, typer.Option(metavar="N", help="Tokens joined into a chunk.")
    ] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Draws answers, gaps and faults.")] = 0,
    faults: Annotated[
        str,
        typer.Option(metavar="PLAN", help="A fault plan for every answer: 'cut-rst@512,crlf'."),
    ] = "",
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", envvar="SIMULATOR_API_KEY", help="Refuse requests without this key."
        ),
    ] = None,
) -> None:
    """Serve simulated models over the true bytes of the providers' wires.

    The prompt 'scenario:NAME' picks what a model does; 'GET /scenarios' lists the names.
    """
    from tokenwire.cli.simulate import run_simulate

    run_simulate(
        host=host,
        port=port,
        ttft=ttft,
        rate=rate,
        jitter=jitter,
        tokens_per_chunk=tokens_per_chunk,
        seed=seed,
        faults=faults,
        api_key=api_key,
    )


@app.command(short_help="List what can be used here, and what is missing.")
@command
def models(
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON list.")] = False,
) -> None:
    """List the providers and models that can be used here, and what is missing for the others."""
    from tokenwire.cli.models import run_models

    run_models(as_json=as_json)


@app.command(short_help="Follow a run until it ends.")
@command
def tail(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    url: Annotated[
        str,
        typer.Option(metavar="URL", envvar="TOKENWIRE_URL", help="The server that has it."),
    ] = "http://127.0.0.1:8765",
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Read from this store instead: sqlite:FILE, redis://HOST."
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="OFFSET", help="Begin after this offset.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One event a line, as JSON, in place of the text.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Let control characters of the model act. Dangerous.")
    ] = False,
) -> None:
    """Follow a run: what it has said so far, then what it says, until it ends.

    A key for the server is taken from TOKENWIRE_API_KEY.
    """
    from tokenwire.cli.tail import run_tail

    raise SystemExit(run_tail(run, url=url, store=store, after=after, as_json=as_json, raw=raw))


@app.command(short_help="Check this machine.")
@command
def doctor(
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Try this store as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON list.")] = False,
) -> None:
    """Check this machine: what works, what is missing, and what to do about it."""
    from tokenwire.cli.doctor import run_doctor

    raise SystemExit(run_doctor(store=store, as_json=as_json))


def main() -> None:
    """Run the command line; the entry point."""
    # A name that cannot be encoded must not end the program.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    # Tools that are named MODULE:NAME may lie where the command was given; last, so that nothing
    # there takes the place of an installed package.
    with contextlib.suppress(OSError):
        sys.path.append(os.getcwd())
    app(prog_name="tokenwire")
