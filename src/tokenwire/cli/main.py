"""The command ``tokenwire``: its subcommands, each imported on use.

Always true: ``--help`` and a wrong option cost no more than this file's imports; every command
exits with 0, 1 (failure), 2 (wrong usage) or 130 (Ctrl-C), and never with a traceback.
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
from tokenwire.errors import ConfigError

__all__ = ["app", "main"]

app = typer.Typer(
    name="tokenwire",
    help="Deliver a language model's answer while it is being written.\n\n"
    "Try 'tokenwire serve' and open the page, or 'tokenwire chat' here: the model 'demo' needs "
    "no key and no network.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(is_on: bool) -> None:
    if is_on:
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
        # A command reports errors itself; only a server writes logs.
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
            help="Prompt; without it, a conversation starts. '-' reads standard input.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            envvar="TOKENWIRE_MODEL",
            help="Model; repeat to add fallbacks.",
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent",
            metavar="MODULE:NAME",
            help="Agent in place of a model: MODULE:NAME, FILE.py:NAME or a2a:URL.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="TEXT", help="System prompt.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="N", help="Sampling temperature, 0 to 2.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Maximum tokens to generate.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Random seed, where the provider supports one.")
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            "--tool",
            "-t",
            metavar="TOOL",
            help="Tool: MODULE:NAME, demo, mcp:COMMAND or mcp:URL; repeatable.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve every tool call.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print plain text, without rendering Markdown.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Pass terminal control characters through unescaped (unsafe)."),
    ] = False,
    reasoning: Annotated[bool, typer.Option(help="Print the model's reasoning.")] = True,
    stats: Annotated[
        bool, typer.Option(help="Print timing and token counts after each answer.")
    ] = False,
) -> None:
    """Talk with a model in the terminal.

    Ctrl-C cancels the answer; a second Ctrl-C exits.
    """
    from tokenwire.cli.chat import ChatOptions, run_chat

    options = ChatOptions(
        models=model or ["demo"],
        agent=agent,
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


@app.command(short_help="Decode recorded provider streams.")
@command
def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Recording; '-' reads standard input."),
    ],
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Protocol: chat, responses, messages, gemini, ..."),
    ] = None,
    framing: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Framing: sse, ndjson, jsonl, json-array or aws-eventstream."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object of facts per file.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Pass terminal control characters through unescaped (unsafe)."),
    ] = False,
) -> None:
    """Decode recorded provider streams and print their events, or their facts with --json.

    Family and framing default to a guess by the first bytes.
    """
    from tokenwire.cli.inspect import run_inspect

    raise SystemExit(run_inspect(files, family=family, framing=framing, as_json=as_json, raw=raw))


@app.command(short_help="Serve simulated models.")
@command
def simulate(
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port; 0 picks a free one.")] = 8900,
    ttft: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds to the first token.")
    ] = 0.25,
    rate: Annotated[
        float, typer.Option(metavar="N", help="Tokens per second; 0 is unlimited.")
    ] = 40.0,
    jitter: Annotated[
        float, typer.Option(metavar="N", help="Random spread of the gaps, 0 to 1.")
    ] = 0.4,
    tokens_per_chunk: Annotated[int, typer.Option(metavar="N", help="Tokens per chunk.")] = 1,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Random seed of answers, gaps and faults.")
    ] = 0,
    faults: Annotated[
        str,
        typer.Option(metavar="PLAN", help="Fault plan of every answer, such as cut-rst@512,crlf."),
    ] = "",
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", envvar="SIMULATOR_API_KEY", help="Key that requests must have."
        ),
    ] = None,
) -> None:
    """Serve simulated models over the providers' own wires.

    The prompt 'scenario:NAME' selects a scenario; 'GET /scenarios' lists the names.
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


@app.command(short_help="List providers and models.")
@command
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the providers and models that work here, and what the others need."""
    from tokenwire.cli.models import run_models

    run_models(as_json=as_json)


@app.command(short_help="List what waits for a person, and decide about it.")
@command
def waiting(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Run to decide about; default: list all.")
    ] = None,
    approval: Annotated[
        str | None,
        typer.Argument(metavar="APPROVAL", help="Id of the approval, where the run has several."),
    ] = None,
    approve: Annotated[
        bool | None,
        typer.Option("--approve/--deny", help="Decision about the approval of RUN."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Reason, for the log and the model.")
    ] = None,
    thread: Annotated[
        str | None, typer.Option(metavar="THREAD", help="List this conversation only.")
    ] = None,
    tool: Annotated[str | None, typer.Option(metavar="TOOL", help="List this tool only.")] = None,
    url: Annotated[
        str, typer.Option(metavar="URL", envvar="TOKENWIRE_URL", help="Server to ask.")
    ] = "http://127.0.0.1:8765",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line instead of text.")
    ] = False,
) -> None:
    """List the tool calls and questions that wait for you, with their arguments, or decide about
    one: 'tokenwire waiting RUN --approve'.

    The API key of the server comes from TOKENWIRE_API_KEY.
    """
    from tokenwire.cli.waiting.inbox import run_waiting

    code = run_waiting(
        run,
        approval,
        url=url,
        approves=approve,
        reason=reason,
        thread=thread,
        tool=tool,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(short_help="List, set and clear a server's budgets.")
@command
def budgets(
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="list, show, set or clear.")
    ] = "list",
    whose: Annotated[
        str | None,
        typer.Argument(
            metavar="WHOSE",
            help="principal/ID, tenant/ID or thread/NAME; principal, tenant or thread: of all.",
        ),
    ] = None,
    amounts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="AMOUNT", help="day=200000 (tokens), 'month=$100', day=none; thread: all=..."
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="ID", help="Tenant of the principal.")
    ] = None,
    principal: Annotated[
        str | None, typer.Option(metavar="ID", help="Who began the conversation.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Reason, on record.")] = None,
    url: Annotated[
        str, typer.Option(metavar="URL", envvar="TOKENWIRE_URL", help="Server to ask.")
    ] = "http://127.0.0.1:8765",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's JSON instead of text.")
    ] = False,
) -> None:
    """List the budgets of a server, show or set those of one owner, or clear them: 'tokenwire
    budgets set principal/ann day=200000'. For operators.

    The API key of the server comes from TOKENWIRE_API_KEY.
    """
    from tokenwire.cli.budgets.budgets import run_budgets

    code = run_budgets(
        action,
        whose,
        amounts or [],
        tenant=tenant,
        principal=principal,
        reason=reason,
        url=url,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(short_help="Follow a run until it ends.")
@command
def tail(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")],
    url: Annotated[
        str,
        typer.Option(metavar="URL", envvar="TOKENWIRE_URL", help="Server of the run."),
    ] = "http://127.0.0.1:8765",
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Read this store instead of a server: sqlite:FILE, postgresql://HOST/DB, ...",
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Cursor of the last event received; start after it."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON event per line instead of text.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Pass terminal control characters through unescaped (unsafe)."),
    ] = False,
) -> None:
    """Follow a run: its events so far, then new ones, until it ends.

    The API key of the server comes from TOKENWIRE_API_KEY.
    """
    from tokenwire.cli.tail import run_tail

    raise SystemExit(run_tail(run, url=url, store=store, after=after, as_json=as_json, raw=raw))


@app.command(short_help="End all sessions of the page.")
@command
def rotate_secret(
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server's store; default: that of 'serve'."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="The server's settings file.")
    ] = None,
) -> None:
    """Replace the secret that signs sessions of the page and tokens that read one run.

    Everybody signs in again; running servers of the store follow within a second.
    """
    from tokenwire.cli.secret import run_rotate

    raise SystemExit(run_rotate(store, config))


@app.command(short_help="Check this machine, or the way to a server.")
@command
def doctor(
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="Server to reach; default: this machine.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Store to check as well.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="TOKENWIRE_API_KEY", help="Key or token of the server.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Length of the stream that tells whether streams are cut.")
    ] = 35.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Check this machine: what works, what is missing, and how to get it. With URL: whether
    streams of that server arrive here as they are sent, and what to change if not."""
    from tokenwire.cli.doctor import run_doctor
    from tokenwire.cli.path.run import run_path_doctor

    if url is None:
        raise SystemExit(run_doctor(store=store, as_json=as_json))
    if store is not None:
        raise ConfigError("--store is of this machine; leave it out with a URL")
    if not 0 <= seconds <= 300:
        raise ConfigError(f"--seconds must be from 0 to 300, not {seconds:g}")
    key = api_key or None
    raise SystemExit(run_path_doctor(url, api_key=key, seconds=seconds, as_json=as_json))


def main() -> None:
    """Run the command line; the entry point."""
    # A closed stream (`>&-`) takes what is written and drops it.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - to the end of the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - to the end of the process
    # A character that cannot be encoded must not end the program.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    # A tool MODULE:NAME may be in the working directory; last in the path, so that nothing there
    # shadows an installed package.
    with contextlib.suppress(OSError):
        sys.path.append(os.getcwd())
    app(prog_name="tokenwire")
