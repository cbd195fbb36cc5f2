"""The settings of the server: one typed table for flags, environment, file, defaults and docs.

Always true: every setting has one name, ``max_age``, from which its flag (``--max-age``), its
environment variable (``TOKENWIRE_MAX_AGE``) and its key in the TOML file (``max_age``) follow; a
flag wins over the environment, that over the file, that over the default; an unknown key or a bad
value is a `ConfigError` of one line that names the setting and where it came from.
"""

# ruff: noqa: RUF009 - `_set` is `dataclasses.field` with the columns of the table
from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenwire.errors import ConfigError

__all__ = ["CONFIG_FILE", "Setting", "Settings", "load_settings", "settings_table"]

CONFIG_FILE = "tokenwire.toml"
_PREFIX = "TOKENWIRE_"
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "k": 1 << 10, "m": 1 << 20, "b": 1}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _set(default: Any, group: str, text: str, *, unit: str = "", secret: bool = False) -> Any:
    metadata = {"group": group, "help": text, "unit": unit, "secret": secret}
    if isinstance(default, list):
        return field(
            default_factory=lambda: list(typing.cast(list[Any], default)),
            metadata=metadata,
            repr=not secret,
        )
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(kw_only=True)
class Settings:
    """All settings, with their defaults. ``None`` means "decided by the rest", as described."""

    host: str = _set(
        "127.0.0.1", "Where", "Address to listen on. Any other than loopback needs an API key."
    )
    port: int = _set(8765, "Where", "Port to listen on; 0 takes a free one.")
    workers: int = _set(1, "Where", "Processes. More than one needs a store that they share.")
    model: list[str] = _set(
        ["demo"],
        "What",
        "Model to serve; may be given several times. The first is the default, no other is served.",
    )
    store: str | None = _set(
        None,
        "What",
        "Where runs are kept: memory:, sqlite:FILE, redis://HOST. Default of the command: the file "
        "tokenwire/runs.db in the user's data folder (XDG_DATA_HOME, else ~/.local/share).",
    )
    retention: float = _set(86400.0, "What", "How long a run is kept after its end.", unit="s")
    tools: list[str] = _set(
        [],
        "What",
        "Tools that models may call: MODULE:NAME of a tool or list, demo, mcp:COMMAND or mcp:URL.",
    )
    on_disconnect: str = _set(
        "continue",
        "What",
        "When a run's last reader leaves: continue, stop, or stop:SECONDS to wait before.",
    )
    durable_streams: Literal["off", "read", "readwrite"] = _set(
        "read", "What", "The Durable Streams routes under /ds."
    )
    durable_streams_webhooks: list[str] = _set(
        [],
        "What",
        "Whom webhook subscriptions may call: HOST (https at a public address), or HOST:PORT and "
        "HOST:* (also http and private addresses). None are called by default.",
    )
    durable_streams_webhook_key: str | None = _set(
        None,
        "What",
        "PEM file of the Ed25519 key that signs webhooks, which only its owner may read. Default: "
        "one is made and kept in the store.",
    )
    long_poll_timeout: float = _set(30.0, "What", "How long a long-poll waits for news.", unit="s")
    compat: Literal["common", "5", "6", "7"] = _set(
        "common", "What", "Which release of the AI SDK the UI message stream is written for."
    )
    chat_get: Literal["auto", "on", "off"] = _set(
        "auto", "What", "GET /chat/stream?prompt=; auto is on only on loopback without keys."
    )

    api_key_file: str | None = _set(
        None,
        "Who",
        "File of API keys that only its owner may read; lines KEY, NAME:KEY or NAME:sha256:HEX.",
    )
    api_keys: list[str] = _set(
        [],
        "Who",
        "API keys in the same forms. Better in the environment than on the command line.",
        secret=True,
    )
    insecure: bool = _set(False, "Who", "Serve other addresses than loopback without a key.")
    allow_host: list[str] = _set(
        [], "Who", "Host name under which the server may be asked, beside loopback and --host."
    )
    cors_origin: list[str] = _set(
        [], "Who", "Origin (https://app.example) whose pages may ask, exactly."
    )
    trust_proxy: list[str] = _set(
        [], "Who", "Address of a reverse proxy whose X-Forwarded-For counts."
    )
    metrics: bool = _set(True, "Who", "Serve /metrics (with keys: to those who have one).")

    heartbeat: float = _set(
        15.0, "Streams", "Pause after which a quiet stream gets a comment.", unit="s"
    )
    ping: float = _set(
        20.0,
        "Streams",
        "Pause between pings of a WebSocket, and how long it may take to answer one.",
        unit="s",
    )
    max_age: float = _set(
        240.0, "Streams", "Age (+-10 %) at which a connection is asked to come back.", unit="s"
    )
    retry_ms: int = _set(1000, "Streams", "Milliseconds that readers wait before they come back.")
    graceful_stop: float = _set(10.0, "Streams", "How long a stop may take.", unit="s")

    connect_timeout: float = _set(5.0, "Deadlines", "To connect to a provider.", unit="s")
    first_event_timeout: float = _set(60.0, "Deadlines", "To a provider's first event.", unit="s")
    idle_timeout: float = _set(60.0, "Deadlines", "Between two events of a provider.", unit="s")
    total_timeout: float = _set(600.0, "Deadlines", "For one whole answer.", unit="s")
    header_deadline: float = _set(10.0, "Deadlines", "For a request's headers to arrive.", unit="s")
    body_deadline: float = _set(30.0, "Deadlines", "For a request's body to arrive.", unit="s")
    write_deadline: float = _set(
        30.0, "Deadlines", "For a reader that does not read; then it is let go.", unit="s"
    )

    header_limit: int = _set(16384, "Limits", "Request line and headers.", unit="B")
    header_fields: int = _set(100, "Limits", "Header fields of a request.")
    body_limit: int = _set(1 << 20, "Limits", "Request body.", unit="B")
    media_limit: int = _set(
        8 << 20, "Limits", "Files of a request, as base64; beside its body's limit.", unit="B"
    )
    json_depth: int = _set(64, "Limits", "Nesting of a JSON body.")
    message_limit: int = _set(1000, "Limits", "Messages of a request.")
    prompt_limit: int = _set(256 << 10, "Limits", "One text of a prompt.", unit="B")
    connections: int = _set(10000, "Limits", "Open connections of a process.")
    connections_per_ip: int = _set(
        100,
        "Limits",
        "Open connections of one address; loopback and trusted proxies are not counted.",
    )
    readers_per_run: int | None = _set(
        None, "Limits", "Readers of one run at once. Default: 32 with keys, unlimited without."
    )
    readers_per_principal: int | None = _set(
        None,
        "Limits",
        "Streams that one principal reads at once. Default: 20 with keys, unlimited without.",
    )
    runs: int = _set(1000, "Limits", "Runs of a process at once.")
    max_lag: float = _set(
        1.0,
        "Limits",
        "Lateness of the event loop above which no new run is started; 0 is no limit.",
        unit="s",
    )
    runs_per_principal: int | None = _set(
        None, "Limits", "Runs of one principal at once. Default: 4 with keys, unlimited without."
    )
    starts_per_minute: int | None = _set(
        None,
        "Limits",
        "Runs that one principal may start in a minute. Default: 30 with keys, unlimited without.",
    )
    starts_burst: int = _set(10, "Limits", "Runs that may be started at once within that rate.")
    bad_attach_per_minute: int = _set(
        30, "Limits", "Attempts at unknown runs or bad cursors of one address in a minute."
    )
    run_events: int = _set(200_000, "Limits", "Events of one run; then it ends as an error.")
    run_bytes: int = _set(
        64 << 20, "Limits", "Bytes that the log keeps of one run, pictures and all.", unit="B"
    )
    run_steps: int = _set(10, "Limits", "Calls of the model in one run, between which tools run.")
    run_tool_calls: int = _set(50, "Limits", "Tool calls of one run.")
    run_tools_at_once: int = _set(8, "Limits", "Tool calls of one run at the same time.")
    socket_buffer: int = _set(256 << 10, "Limits", "Kernel send buffer of a connection.", unit="B")

    log_level: Literal["debug", "info", "warning", "error"] = _set(
        "info", "Logs", "What is written to standard error."
    )
    otel: bool = _set(
        False, "Logs", "Make OpenTelemetry spans and metrics, for the SDK that the process set up."
    )
    access_log: bool = _set(True, "Logs", "One line a request, without its query string.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine."""
    bare = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


class Setting(typing.NamedTuple):
    """One row of the table."""

    name: str
    flag: str
    env: str
    type: Any
    default: Any
    group: str
    help: str
    unit: str
    secret: bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes, when these are few."""
        return typing.get_args(self.type) if typing.get_origin(self.type) is Literal else ()


def settings_table() -> list[Setting]:
    """Every setting, in order: the source of flags, documentation and checks."""
    hints = typing.get_type_hints(Settings)
    rows: list[Setting] = []
    for item in dataclasses.fields(Settings):
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        meta = item.metadata
        flag = "--" + item.name.replace("_", "-")
        rows.append(
            Setting(
                item.name,
                flag,
                _PREFIX + item.name.upper(),
                hints[item.name],
                default,
                meta["group"],
                meta["help"],
                meta["unit"],
                meta["secret"],
            )
        )
    return rows


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: str | Path | None = None,
) -> Settings:
    """Settings from flags (None: not given), environment, file and defaults, in that order.

    ``config`` names the TOML file, which must exist then; else ``TOKENWIRE_CONFIG``, else
    ``tokenwire.toml`` in the working directory when there is one.
    """
    environ = os.environ if environ is None else environ
    given = {k: v for k, v in (flags or {}).items() if v is not None and v != []}
    config = config or environ.get(_PREFIX + "CONFIG")
    from_file = _read_file(config)
    rows = {row.name: row for row in settings_table()}
    for names, where in (
        (given, "a flag"),
        (from_file, f"the settings file {config or CONFIG_FILE}"),
    ):
        for name in names:
            if name not in rows:
                raise _unknown(name, where, list(rows))
    values: dict[str, Any] = {}
    for name, row in rows.items():
        if name in given:
            values[name] = _value(row, given[name], row.flag)
        elif row.env in environ:
            values[name] = _value(row, environ[row.env], row.env)
        elif name in from_file:
            values[name] = _value(row, from_file[name], f"'{name}' in the settings file")
    return Settings(**values)


def _unknown(name: str, where: str, known: list[str]) -> ConfigError:
    close = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    hint = f"did you mean '{close[0]}'?" if close else "docs/reference/settings.md lists them all"
    return ConfigError(f"unknown setting '{name}' in {where}; {hint}")


def _read_file(config: str | Path | None) -> dict[str, Any]:
    path = Path(config) if config else Path(CONFIG_FILE)
    if not config and not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not valid TOML: {error}") from error


def _value(row: Setting, value: Any, source: str) -> Any:
    try:
        return _convert(row, value)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


def _convert(row: Setting, value: Any) -> Any:
    wanted = row.type
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        wanted = next(a for a in typing.get_args(wanted) if a is not type(None))
    if typing.get_origin(wanted) is Literal:
        choices = typing.get_args(wanted)
        if str(value) not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not '{value}'")
        return str(value)
    if wanted == list[str]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
            raise ValueError("must be a list of texts")
        return [item.strip() for item in items if item.strip()]
    if wanted is bool:
        return _boolean(value)
    if wanted in (int, float):
        return _number(row, wanted, value)
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {value!r}")
    if row.name == "on_disconnect" and not re.fullmatch(r"continue|stop|stop:\d{1,5}", value):
        raise ValueError(f"must be continue, stop or stop:SECONDS, not '{value}'")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in _TRUE:
        return True
    if str(value).lower() in _FALSE:
        return False
    raise ValueError(f"must be true or false, not '{value}'")


def _number(row: Setting, wanted: type, value: Any) -> int | float:
    factor: float = 1
    if isinstance(value, str):
        text = value.strip().lower().replace("_", "")
        units = {"s": _SECONDS, "B": _BYTES}.get(row.unit, {})
        for suffix in sorted(units, key=len, reverse=True):
            if text.endswith(suffix):
                factor, text = units[suffix], text[: -len(suffix)].strip()
                break
        try:
            value = float(text) if "." in text or wanted is float else int(text)
        except ValueError:
            raise ValueError(f"must be a number, not '{value}'") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {value!r}")
    number = wanted(value * factor)
    if wanted is int and number != value * factor:
        raise ValueError(f"must be a whole number, not {value!r}")
    if not number >= 0 or number == float("inf"):  # refuses NaN as well
        raise ValueError("must not be negative" if number < 0 else "must be a finite number")
    if row.name == "port" and number > 65535:
        raise ValueError("must be at most 65535")
    if number == 0 and row.name in _POSITIVE:
        raise ValueError("must be more than 0")
    return number


_POSITIVE = {
    "workers", "heartbeat", "max_age", "graceful_stop", "connect_timeout", "first_event_timeout",
    "idle_timeout", "total_timeout", "header_deadline", "body_deadline", "write_deadline",
    "header_limit", "header_fields", "body_limit", "media_limit", "json_depth", "message_limit",
    "prompt_limit", "connections", "connections_per_ip", "runs", "starts_burst", "socket_buffer",
    "run_events", "run_bytes", "run_steps", "run_tools_at_once",
}  # fmt: skip
