"""The settings of the server: one typed table with defaults, groups and descriptions.

Always true: every setting is one field here; flags, environment variables, keys of the file and the
reference page are made from it (`tokenwire.server.configuration`).
"""

# ruff: noqa: RUF009 - `_set` is `dataclasses.field` with the columns of the table
from __future__ import annotations

import ipaddress
import typing
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from tokenwire.errors import ConfigError
from tokenwire.events.names import names_of
from tokenwire.providers.routing.aliases import aliases_of

__all__ = ["Settings", "is_loopback"]


def _set(
    default: Any,
    group: str,
    text: str,
    *,
    unit: str = "",
    secret: bool = False,
    rare: bool = False,
) -> Any:
    metadata = {"group": group, "help": text, "unit": unit, "secret": secret, "rare": rare}
    if isinstance(default, list):
        return field(
            default_factory=lambda: list(typing.cast(list[Any], default)),
            metadata=metadata,
            repr=not secret,
        )
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(kw_only=True)
class Settings:
    """All settings, with their defaults. ``None``: depends on other settings, as described. A text
    for a list is its one item. Raises `ConfigError` for a list of anything but texts."""

    host: str = _set(
        "127.0.0.1", "Server", "Address to listen on. Any but loopback requires an API key."
    )
    port: int = _set(8765, "Server", "Port to listen on; 0 picks a free one.")
    workers: int = _set(1, "Server", "Worker processes. More than one requires a shared store.")
    model: list[str] = _set(
        ["demo"],
        "Models and runs",
        "Model to serve; repeatable. The first is the default; no other model is served.",
    )
    alias: list[str] = _set(
        [],
        "Models and runs",
        "Alias to serve: NAME=MODEL; repeatable. Requests name it as a model, and its model only "
        "where --model serves that as well.",
    )
    unknown_fields: Literal["pass", "drop", "refuse"] = _set(
        "pass",
        "Models and runs",
        "Policy for fields of OpenAI's and Anthropic's requests that tokenwire has no use for; "
        "pass them to a provider that has them, drop them, or refuse the request.",
        rare=True,
    )
    agent: list[str] = _set(
        [],
        "Models and runs",
        "Agent: MODULE:NAME, FILE.py:NAME, a2a:URL (a remote one of A2A); TITLE= in "
        "front titles it; repeatable. Requests name it as a model; the first is the default.",
    )
    store: str | None = _set(
        None,
        "Models and runs",
        "Store: memory:, sqlite:FILE, postgresql://HOST/DB, redis://HOST. Default of the command: "
        "tokenwire/runs.db in the user's data folder (XDG_DATA_HOME, else ~/.local/share).",
    )
    on_end: str | None = _set(None, "Models and runs", "Called with each ended run.")
    prepare: str | None = _set(
        None,
        "Models and runs",
        "Called in each run before the model; MODULE:NAME of a function of the RunContext, which "
        "returns the model's conversation.",
    )
    before_start: str | None = _set(
        None,
        "Models and runs",
        "Called before each run; MODULE:NAME of a function of the StartRequest, which may change "
        "or refuse it.",
    )
    before_tool: str | None = _set(
        None,
        "Models and runs",
        "Called before each tool; MODULE:NAME of a function of the CallRequest, which may change, "
        "refuse or answer the call.",
        rare=True,
    )
    after_tool: str | None = _set(
        None,
        "Models and runs",
        "Called after each tool; MODULE:NAME of a function of the CallRequest and the CallResult, "
        "which may change the result.",
        rare=True,
    )
    webhook: list[str] = _set(
        [],
        "Models and runs",
        "URL for signed events of runs; run.ended, run.waiting, approval.decided and "
        "approval.expired. Repeatable.",
    )
    webhook_links: bool = _set(
        False,
        "Models and runs",
        "Approval links in run.waiting; who gets the call may decide it. Requires --public-url.",
        rare=True,
    )
    webhook_secrets: list[str] = _set(
        [],
        "Models and runs",
        "Secrets that sign them; whsec_BASE64, several while one is replaced. Prefer the "
        "environment variable to the flag.",
        secret=True,
    )
    retention: float = _set(
        86400.0,
        "Models and runs",
        "Time to keep a conversation; from its last use, or from the end of a run without one.",
        unit="s",
    )
    usage: bool = _set(
        False,
        "Models and runs",
        "Count what runs use and cost, in the store; route /v1/usage. Prices need the extra "
        "'prices'.",
        rare=True,
    )
    budget: list[str] = _set(
        [],
        "Models and runs",
        "Budget, by what is counted with --usage, which it implies: principal/day=200000 (tokens), "
        "tenant/month=$100, thread=$2. Repeatable.",
        rare=True,
    )
    unpriced: Literal["refuse", "pass"] = _set(
        "refuse",
        "Models and runs",
        "A start with a model without a price where a budget in dollars holds; refuse it, or let "
        "it pass: its tokens then count for no dollars.",
        rare=True,
    )
    price: list[str] = _set(
        [],
        "Models and runs",
        "Price of a model: PROVIDER/MODEL=IN/OUT, dollars for a million tokens; before that of the "
        "table. Repeatable; every process of a store needs the same.",
        rare=True,
    )
    operator: list[str] = _set(
        [],
        "Access",
        "Principal that may set budgets and read everybody's usage; the name of an API key or user "
        "without a tenant. Who has the role admin by name may, too. Repeatable.",
        rare=True,
    )
    budget_slice: int = _set(
        1000,
        "Models and runs",
        "Tokens that a run reserves of its budgets at a time; of one in money their price.",
        rare=True,
    )
    usage_zone: str = _set(
        "UTC",
        "Models and runs",
        "Time zone of the days and months of usage; a name as Europe/Berlin.",
        rare=True,
    )
    tools: list[str] = _set(
        [],
        "Models and runs",
        "Tool: MODULE:NAME, demo, mcp:COMMAND, mcp:URL. NAME is a tool or a list; repeatable.",
    )
    history: str = _set(
        "all",
        "Models and runs",
        "Turns of a thread that a model gets; all, last:TURNS or tokens:NUMBER.",
    )
    while_busy: Literal["queue", "reject", "interrupt", "steer", "parallel"] = _set(
        "parallel",
        "Models and runs",
        "A new turn of a busy thread; queue, reject, interrupt, steer or parallel.",
    )
    on_disconnect: str = _set(
        "continue",
        "Models and runs",
        "Policy when no reader is left; continue, stop, or stop:SECONDS to wait first.",
    )
    durable_streams: Literal["off", "read", "readwrite"] = _set(
        "read", "Models and runs", "Durable Streams routes under /ds."
    )
    durable_streams_webhooks: list[str] = _set(
        [],
        "Models and runs",
        "Hosts that webhooks may call; HOST (https at a public address), HOST:PORT or HOST:* "
        "(also http and private addresses). Default: none.",
        rare=True,
    )
    durable_streams_webhook_key: str | None = _set(
        None,
        "Models and runs",
        "PEM file of the key that signs webhooks; Ed25519, readable by its owner only. Default: a "
        "generated key in the store.",
        rare=True,
    )
    a2a_push: list[str] = _set(
        [],
        "Models and runs",
        "Hosts that push notifications of A2A may call; HOST (https at a public address), "
        "HOST:PORT or HOST:* (also http and private addresses), * (every public host). "
        "Default: none, and no push notifications.",
        rare=True,
    )
    compat: Literal["common", "5", "6", "7"] = _set(
        "6", "Models and runs", "AI SDK release to write for; 7 reads 6, too."
    )
    chat_get: Literal["auto", "on", "off"] = _set(
        "auto",
        "Models and runs",
        "Route GET /chat/stream?prompt=; auto: on loopback without keys only.",
    )

    api_key_file: str | None = _set(
        None,
        "Access",
        "File of API keys, read again when it changes; readable by its owner only, lines KEY, "
        "NAME:KEY or NAME:sha256:HEX.",
    )
    api_keys: list[str] = _set(
        [],
        "Access",
        "API keys; in the same forms. Prefer the environment variable to the flag.",
        secret=True,
    )
    jwt_issuer: str | None = _set(
        None,
        "Access",
        "Issuer of JSON Web Tokens, exactly their 'iss'; API keys count beside them.",
    )
    jwt_audience: list[str] = _set(
        [], "Access", "Audience of this server in tokens (their 'aud'); needed with an issuer."
    )
    jwt_jwks: str | None = _set(
        None,
        "Access",
        "Key set of the issuer; a file or an address. Default: what its "
        "/.well-known/openid-configuration names.",
        rare=True,
    )
    jwt_claims: list[str] = _set(
        [],
        "Access",
        "Claims of tokens; principal=sub,tenant=org,roles=roles. Default: principal=sub.",
        rare=True,
    )
    insecure: bool = _set(False, "Access", "Serve beyond loopback without an API key.")
    allow_host: list[str] = _set(
        [], "Access", "Accepted Host header (loopback and --host always are)."
    )
    cors_origin: list[str] = _set(
        [], "Access", "Allowed CORS origin (https://app.example); exact match."
    )
    public_url: str | None = _set(
        None,
        "Access",
        "Address of this server in approval links, with its path prefix: https://host/prefix. "
        "Default: that of the request which makes the link.",
        rare=True,
    )
    trust_proxy: list[str] = _set([], "Access", "Trusted proxy (its X-Forwarded-For counts).")
    openapi: Literal["public", "key", "off"] = _set(
        "public", "Access", "Routes /openapi.json and /docs; key: with an API key only."
    )
    metrics: bool = _set(True, "Access", "Route /metrics; with API keys it requires one.")

    heartbeat: float = _set(15.0, "Streams and logs", "Keep-alive of idle streams.", unit="s")
    ping: float = _set(
        20.0,
        "Streams and logs",
        "Interval of WebSocket pings; also the timeout of each.",
        unit="s",
    )
    max_age: float = _set(
        240.0,
        "Streams and logs",
        "Maximum connection age (+-10 %); the client then reconnects.",
        unit="s",
    )
    retry_ms: int = _set(1000, "Streams and logs", "Clients' reconnect delay, in ms.", rare=True)
    graceful_stop: float = _set(10.0, "Streams and logs", "Longest graceful stop.", unit="s")

    connect_timeout: float = _set(5.0, "Deadlines", "Connecting to a provider.", unit="s")
    first_event_timeout: float = _set(
        60.0, "Deadlines", "Until a provider accepts a request (its response begins).", unit="s"
    )
    idle_timeout: float = _set(
        60.0, "Deadlines", "Between two signs of life in an answer: output, keep-alives.", unit="s"
    )
    keep_alive_timeout: float = _set(
        300.0, "Deadlines", "Without output: accepted and silent, or keep-alives only.", unit="s"
    )
    total_timeout: float = _set(600.0, "Deadlines", "One whole answer.", unit="s")
    wait_timeout: float = _set(604800.0, "Deadlines", "A run's wait for an approval.", unit="s")
    approval_timeout: float | None = _set(
        None,
        "Deadlines",
        "Until an approval ends as denied, expired; a tool or a run may have a shorter time. "
        "Default: wait_timeout, which ends the run.",
        unit="s",
    )
    hook_timeout: float = _set(
        10.0, "Deadlines", "One call of before_start, before_tool or after_tool.", unit="s"
    )
    header_deadline: float = _set(10.0, "Deadlines", "Receiving a request's headers.", unit="s")
    body_deadline: float = _set(30.0, "Deadlines", "Receiving a request's body.", unit="s")
    jwt_leeway: float = _set(
        60.0, "Deadlines", "Difference of clocks that tokens allow for, at most 300 s.", unit="s"
    )
    long_poll_timeout: float = _set(
        30.0, "Deadlines", "A long poll's wait for new records.", unit="s"
    )
    write_deadline: float = _set(
        30.0,
        "Deadlines",
        "Sending to a reader that does not read; it is then disconnected.",
        unit="s",
    )

    header_limit: int = _set(16384, "Limits", "Size of the request line and headers.", unit="B")
    header_fields: int = _set(100, "Limits", "Header fields of a request.")
    body_limit: int = _set(1 << 20, "Limits", "Size of a request body.", unit="B")
    media_limit: int = _set(
        8 << 20,
        "Limits",
        "Size of a request's files as base64, in addition to body_limit.",
        unit="B",
    )
    json_depth: int = _set(64, "Limits", "Nesting depth of a JSON body.")
    message_limit: int = _set(1000, "Limits", "Messages of a request.")
    prompt_limit: int = _set(256 << 10, "Limits", "Size of one text of a prompt.", unit="B")
    connections: int = _set(10000, "Limits", "Open connections per process.")
    connections_per_ip: int = _set(
        100,
        "Limits",
        "Open connections per address; loopback and trusted proxies are exempt.",
    )
    readers_per_run: int | None = _set(
        None, "Limits", "Concurrent readers per run. Default: 32 with API keys, unlimited without."
    )
    readers_per_principal: int | None = _set(
        None,
        "Limits",
        "Concurrent streams per principal. Default: 20 with API keys, unlimited without.",
    )
    runs: int = _set(1000, "Limits", "Concurrent runs per process.")
    max_lag: float = _set(
        0.25,
        "Limits",
        "Event loop delay above which, for over two seconds, new runs are rejected; 0 is no limit.",
        unit="s",
    )
    runs_per_principal: int | None = _set(
        None,
        "Limits",
        "Concurrent runs per principal. Default: 4 with API keys, unlimited without.",
    )
    waiting_runs: int = _set(10_000, "Limits", "Runs per process that wait for an approval.")
    waiting_runs_per_principal: int | None = _set(None, "Limits", "The same; 20 with API keys.")
    starts_per_minute: int | None = _set(
        None,
        "Limits",
        "Run starts per minute and principal. Default: 30 with API keys, unlimited without.",
    )
    tokens_per_day: int | None = _set(
        None, "Limits", "Model tokens per day (UTC) and principal, in and out. Default: unlimited."
    )
    runs_per_tenant: int | None = _set(
        None, "Limits", "Concurrent runs of a tenant's principals together. Default: unlimited."
    )
    starts_per_tenant: int | None = _set(
        None, "Limits", "Run starts per minute of a tenant's principals. Default: unlimited."
    )
    tokens_per_tenant: int | None = _set(
        None, "Limits", "Model tokens per day (UTC) of a tenant's principals. Default: unlimited."
    )
    starts_burst: int = _set(10, "Limits", "Burst of run starts within that rate.")
    bad_attach_per_minute: int = _set(
        30, "Limits", "Requests for unknown runs or invalid cursors per minute and address."
    )
    run_events: int = _set(
        200_000, "Limits", "Events per run; at the limit the run ends with an error."
    )
    buffer_per_connection: int = _set(
        16 << 20, "Limits", "Bytes that may wait, unread or unsent, on one connection.", unit="B"
    )
    buffer_per_client: int | None = _set(
        None,
        "Limits",
        "Bytes waiting, per client. Default: 64 MiB with API keys, 128 MiB (an address) without.",
        unit="B",
    )
    wrong_keys_per_minute: int = _set(
        30, "Limits", "Wrong API keys per minute and address; beyond it the answer is 429."
    )
    run_bytes: int = _set(64 << 20, "Limits", "Size of one run in the log, with files.", unit="B")
    run_steps: int = _set(10, "Limits", "Model calls per run.")
    run_tool_calls: int = _set(50, "Limits", "Tool calls per run.")
    run_tools_at_once: int = _set(8, "Limits", "Concurrent tool calls per run.")
    durable_streams_count: int = _set(10_000, "Limits", "Durable Streams per principal.")
    durable_streams_bytes: int = _set(
        1 << 30, "Limits", "Size of a principal's Durable Streams.", unit="B"
    )
    socket_buffer: int = _set(256 << 10, "Limits", "Kernel send buffer per connection.", unit="B")

    log_level: Literal["debug", "info", "warning", "error"] = _set(
        "info", "Streams and logs", "Least level to log on standard error."
    )
    otel: bool = _set(
        False, "Streams and logs", "Record OpenTelemetry spans and metrics; with the process's SDK."
    )
    otel_send_to: list[str] = _set(
        [],
        "Streams and logs",
        "Provider whose requests carry the trace's ids ('traceparent'), or * for all; repeatable. "
        "Requires --otel.",
        rare=True,
    )
    otel_baggage: bool = _set(
        False,
        "Streams and logs",
        "Pass a caller's W3C baggage on to tools, agents and the providers of --otel-send-to.",
        rare=True,
    )
    otel_chunks: bool = _set(
        False,
        "Streams and logs",
        "Record the time between chunks as a metric of OpenTelemetry; some µs of each chunk.",
        rare=True,
    )
    access_log: bool = _set(
        True, "Streams and logs", "Log one line per request; without its query string."
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.default_factory is not MISSING:  # a text would be read letter by letter
                try:
                    setattr(self, item.name, names_of(getattr(self, item.name), item.name))
                except TypeError as error:
                    raise ConfigError(str(error)) from None
        #: Alias -> model.
        self.aliases = aliases_of(self.alias)
        if self.aliases:
            models = [] if self.model == ["demo"] else self.model
            self.model = list(dict.fromkeys([*models, *self.aliases]))

    @property
    def loopback(self) -> bool:
        """Whether the server is reachable from this machine only."""
        return is_loopback(self.host)

    @property
    def drain_seconds(self) -> int:
        """For how long requests may end when the server stops: half of the grace, as the end of
        the runs has the other half."""
        return max(1, int(self.graceful_stop / 2) - 1)


def is_loopback(host: str) -> bool:
    """Whether an address or a name is of this machine."""
    bare = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"
