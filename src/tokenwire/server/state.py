"""What the routes of one server share: settings, keys, quotas, connections, runs, and the wires'
own words on errors and bodies."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tokenwire.observe.redact import keep_secret
from tokenwire.server.access.quotas import Quotas
from tokenwire.server.access.roles import RoleRules
from tokenwire.server.budget import Budget
from tokenwire.server.edge.auth import Auth
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.encoding.states import EncoderStates
from tokenwire.server.edge.identify import Identify
from tokenwire.server.edge.limits import Limits
from tokenwire.server.edge.problems import ErrorForm, native_form
from tokenwire.server.edge.sessions import Sessions
from tokenwire.server.hosted import Hosted
from tokenwire.server.recheck import Recheck
from tokenwire.server.settings import Settings
from tokenwire.server.spending.budgets import HEADER, Budgets
from tokenwire.server.tokens.approval_links import ApprovalLinks
from tokenwire.wire.own import OwnWire

if TYPE_CHECKING:
    from tokenwire.agents.spec import Agent
    from tokenwire.durable.service import DurableStreams
    from tokenwire.providers.registry import Registry
    from tokenwire.relay import Store
    from tokenwire.relay.conversation.conversations import Conversations
    from tokenwire.relay.push.deliveries import PushDeliveries
    from tokenwire.relay.remote.runs import RemoteRuns
    from tokenwire.relay.runs import Runs
    from tokenwire.relay.spending.settling import Settling
    from tokenwire.relay.threads import Threads
    from tokenwire.relay.waiting.inbox import Inbox
    from tokenwire.relay.waiting.links import Links
    from tokenwire.server.openapi.operation import Operation

__all__ = ["Service", "State"]


class Service(Protocol):
    """What a wire has running beside its requests."""

    async def start(self, store: Store) -> None:
        """Begin; ``store`` is open, and so are the runs."""
        ...

    async def stop(self) -> None:
        """End; store and runs are about to be closed."""
        ...


class State:
    """One server. ``runs``, ``threads``, ``producers``, ``conversations``, ``store`` and
    ``registry`` are there from the start of its lifespan.

    A wire's routes may say, before the server starts: ``error_forms`` (path prefix -> its error
    body), ``raw_bodies`` (path prefix -> most bytes; such bodies need not be JSON),
    ``media_paths`` (where bodies hold messages, which may hold files),
    ``request_id_names`` (path -> the header in which its clients look for the request's id),
    ``costly_paths`` (GETs that cost money and so need our own origin), and which headers its
    clients send (``cors_headers``, and ``cors_families``: how names begin that a client has many
    of) and read (``cors_exposed``) across origins, and ``own_tokens``
    (paths where ``Authorization`` is not a key but a token that the route itself checks), and
    ``roles`` (what its requests need where their method does not say it).
    """

    runs: Runs
    threads: Threads
    producers: RemoteRuns
    conversations: Conversations
    inbox: Inbox
    inbox_links: Links
    store: Store
    registry: Registry
    #: Set by the routes that serve it; one of `services` as well.
    durable: DurableStreams
    #: What counts what runs use; None where that is off.
    settling: Settling | None = None
    #: What sends A2A's push notifications; None where they are off.
    push: PushDeliveries | None = None

    def __init__(
        self, settings: Settings, *, auth: Auth | None = None, hosted: Hosted | None = None
    ) -> None:
        self.settings = settings
        #: What the application around this server answers for; None for a server by itself.
        self.hosted = hosted
        #: Agents by name; requests name them as they name models.
        self.agents: dict[str, Agent] = {}
        self.auth = auth or Auth.from_settings(settings)
        for key in settings.api_keys:
            keep_secret(key.rpartition(":")[2])
        self.budget = Budget(settings, keys_on=self.auth.on or hosted is not None)
        self.limits = Limits(settings, keys_on=self.auth.on or hosted is not None)
        self.budgets = Budgets(settings)
        self.quotas = Quotas(settings, keys_on=self.auth.on or hosted is not None)
        self.identify = Identify(
            self.auth, Sessions(self.auth), self.limits, hosted=hosted is not None
        )
        self.connections = Connections(
            heartbeat=settings.heartbeat,
            max_age=settings.max_age,
            write_deadline=settings.write_deadline,
            retry_ms=settings.retry_ms,
            max_lag=settings.max_lag,
        )
        self.encoder_states = EncoderStates()
        self.recheck = Recheck(self.connections, self.identify)
        #: No new runs: the server is stopping.
        self.draining = False
        self.public_paths = {"/", "/livez", "/healthz", "/favicon.ico", "/v1/session"}
        self.costly_paths = {"/chat/stream"}
        self.roles = RoleRules()
        self.own_tokens: list[re.Pattern[str]] = []
        #: How paths begin that are themselves the right to what they do: they need no key, and
        #: forms of any page may be sent there.
        self.link_paths: tuple[str, ...] = ()
        self.approval_links = ApprovalLinks(self.auth, self.identify.sessions, settings.public_url)
        self.error_forms: dict[str, ErrorForm] = {}
        #: Paths whose wire has a status of HTTP of its own for some errors.
        self.error_statuses: dict[str, dict[int, int]] = {}
        self.raw_bodies: dict[str, int] = {}
        self.media_paths = {"/v1/runs"}
        #: The same for paths with parameters, as routes write them.
        self.media_patterns: list[re.Pattern[str]] = []
        #: Paths whose bodies are small, and come from who has not shown a key yet.
        self.small_bodies = {"/v1/session": 12 << 10}
        self.request_id_names: dict[str, bytes] = {}
        self.cors_headers = (
            "Accept, Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, "
            "Tokenwire-Reader, X-Api-Key, X-Run-Id"
        )
        self.cors_families: set[str] = set()
        self.cors_exposed = f"Location, Retry-After, {HEADER}, Tokenwire-Run, X-Request-Id"
        #: Wires of the application's own, and of installed packages, by name.
        self.own_wires: dict[str, OwnWire] = {}
        #: Descriptions of routes that the table of `openapi` does not have: wires of others.
        self.described: dict[tuple[str, str], Operation] = {}
        #: Called when the server begins to stop, before connections are told.
        self.on_drain: list[Callable[[], None]] = []
        #: Started after the store was opened, stopped before it is closed.
        self.services: list[Service] = [self.encoder_states]

    @property
    def model(self) -> str:
        """The model of requests that name none."""
        return self.model_names[0]

    @property
    def model_names(self) -> list[str]:
        """What requests may name: agents, then models."""
        return [*self.agents, *(m for m in self.settings.model if m not in self.agents)]

    def form_for(self, path: str) -> ErrorForm:
        """How errors look under ``path``: the longest prefix wins."""
        prefixes = [prefix for prefix in self.error_forms if path.startswith(prefix)]
        return self.error_forms[max(prefixes, key=len)] if prefixes else native_form

    def raw_limit(self, path: str) -> int | None:
        """The most bytes of a body that need not be JSON; None where only JSON is taken."""
        prefixes = [prefix for prefix in self.raw_bodies if path.startswith(prefix)]
        return self.raw_bodies[max(prefixes, key=len)] if prefixes else None

    def body_limit(self, path: str) -> int:
        """The most bytes of a JSON body, its files aside."""
        most = self.settings.body_limit
        return min(most, self.small_bodies.get(path, most))

    def media_limit(self, path: str) -> int:
        """The bytes that files may add to a body."""
        takes = path in self.media_paths or any(p.fullmatch(path) for p in self.media_patterns)
        return self.settings.media_limit if takes else 0

    def drain(self) -> None:
        """No new runs; every reader is asked to come back."""
        if self.draining:
            return
        self.draining = True
        for hook in self.on_drain:
            hook()
        self.connections.drain()
