"""Facts as Prometheus metrics; `prometheus_client` is imported only on use.

Always true: labels come from closed or small sets; any other value becomes ``other``, so that no
request can create new series.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from tokenwire.observe.facts import (
    BudgetNear,
    BudgetRefused,
    ChunksCame,
    EndDelivered,
    Fact,
    FellBack,
    FirstToken,
    FollowerGone,
    FollowerOpened,
    RequestDone,
    Retried,
    RunBilled,
    RunEnded,
    RunLeft,
    RunStarted,
    StoreAppended,
    TakenOver,
    ToolRan,
    WebhookSent,
)
from tokenwire.observe.hooks import observe
from tokenwire.observe.tally import Tallies

__all__ = ["PrometheusObserver", "exposition", "start"]

_MOST_LABELS = 50
#: A fast model sends a chunk every few milliseconds, and many in one read.
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)

_lock = threading.Lock()
_observer: PrometheusObserver | None = None


class PrometheusObserver:
    """An observer with a metrics registry of its own."""

    def __init__(self) -> None:
        import prometheus_client as client

        self.registry = client.CollectorRegistry()
        self._values: dict[str, set[str]] = {}

        def counter(name: str, text: str, *labels: str) -> Any:
            return client.Counter(f"tokenwire_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str) -> Any:
            return client.Histogram(
                f"tokenwire_{name}", text, labels, registry=self.registry, buckets=_SECONDS
            )

        self._requests = counter("requests", "HTTP requests", "method", "route", "status")
        self._run_starts = counter("runs_started", "Runs started", "model")
        self._run_ends = counter("runs_ended", "Runs ended", "model", "outcome", "code")
        self._run_seconds = histogram("run_seconds", "Time of a run", "model")
        self._tokens = counter("tokens", "Tokens as reported", "model", "kind")
        self._cost = counter("cost_dollars", "What settled runs cost", "model")
        self._costs = counter("cost_by_kind_dollars", "The same by kind of token", "model", "kind")
        self._unpriced = counter("unpriced_tokens", "Tokens of settled runs without price", "model")
        self._billed_tokens = counter(
            "billed_tokens",
            "Tokens of settled runs; some kinds are parts of others",
            "model",
            "kind",
        )
        self._unreported = counter("unreported_calls", "Calls without any report", "model")
        self._refused = counter("budget_refused", "Starts refused by a budget", "budget", "unit")
        self._stopped = counter("budget_stopped", "Runs stopped in their middle", "budget")
        self._near = counter("budget_near", "Starts near a budget's end", "budget", "unit")
        self._first = histogram("first_token_seconds", "Call to first visible event", "model")
        # These two are observed for every token.
        self._gaps = Tallies("tokenwire_chunk_gap_seconds", "Between chunks", _GAPS, "model")
        appends = Tallies("tokenwire_store_append_seconds", "Time of a store's append", _SECONDS)
        self._append = appends.of()
        self._uncounted = 0
        for tallies in (self._gaps, appends):
            self.registry.register(tallies)
        self._unknown = counter(
            "runs_usage_unknown", "Runs of which not every token was reported", "model"
        )
        self._retries = counter("retries", "Model calls made again", "model", "code")
        self._fallbacks = counter("fallbacks", "Models given up", "model", "code")
        self._tools = histogram("tool_seconds", "Time of a tool", "name", "code")
        self._readers = counter("readers", "Readers that came", "wire", "resumed")
        self._departures = counter("readers_left", "Readers that left", "wire", "why")
        self._records = counter("store_records", "Records that the store accepted")
        self._deliveries = counter("ends_delivered", "Calls of on_end", "how")
        self._webhooks = counter("webhooks_sent", "Calls of webhooks", "event", "how")
        self._takeovers = counter("takeovers", "Runs taken over", "how")
        self._left = counter("runs_left", "Runs that this process left before their end", "why")
        self._handlers = self._by_fact()

    def _by_fact(self) -> dict[type[Fact], Callable[[Any], None]]:
        return {
            RequestDone: self._request,
            RunStarted: lambda f: self._run_starts.labels(self._label("model", f.model)).inc(),
            RunEnded: self._ended,
            RunBilled: self._billed,
            BudgetRefused: lambda f: self._refused.labels(f.budget, f.unit).inc(),
            BudgetNear: lambda f: self._near.labels(f.budget, f.unit).inc(),
            FirstToken: self._first_token,
            ChunksCame: self._chunks,
            Retried: lambda f: self._retries.labels(
                self._label("model", f.model), self._label("code", f.code)
            ).inc(),
            FellBack: lambda f: self._fallbacks.labels(
                self._label("model", f.model), self._label("code", f.code)
            ).inc(),
            ToolRan: lambda f: self._tools.labels(
                self._label("tool", f.name), self._label("code", f.code)
            ).observe(f.seconds),
            FollowerOpened: lambda f: self._readers.labels(
                self._label("wire", f.wire), str(f.resumed).lower()
            ).inc(),
            FollowerGone: self._departed,
            StoreAppended: self._appended,
            EndDelivered: lambda f: self._deliveries.labels(f.how).inc(),
            WebhookSent: lambda f: self._webhooks.labels(f.event, f.how).inc(),
            TakenOver: lambda f: self._takeovers.labels(f.how).inc(),
            RunLeft: lambda f: self._left.labels(f.why).inc(),
        }

    def __call__(self, fact: Fact) -> None:
        """Count one fact."""
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def text(self) -> bytes:
        """The metrics in the Prometheus text format."""
        import prometheus_client as client

        records, self._uncounted = self._uncounted, 0
        self._records.inc(records)
        return client.generate_latest(self.registry)

    def _request(self, fact: RequestDone) -> None:
        method = fact.method if fact.method in _METHODS else "other"
        route = self._label("route", fact.route)
        self._requests.labels(method, route, str(fact.status)).inc()

    def _first_token(self, fact: FirstToken) -> None:
        self._first.labels(self._label("model", fact.model)).observe(fact.first_token_seconds)

    def _ended(self, fact: RunEnded) -> None:
        model = self._label("model", fact.model)
        self._run_ends.labels(model, fact.outcome, self._label("code", fact.code or "")).inc()
        if fact.budget is not None:
            self._stopped.labels(self._label("budget", fact.budget)).inc()
        self._run_seconds.labels(model).observe(fact.seconds)
        self._unknown.labels(model).inc(fact.usage_unknown)
        self._tokens.labels(model, "input").inc(fact.input_tokens)
        self._tokens.labels(model, "output").inc(fact.output_tokens)

    def _billed(self, fact: RunBilled) -> None:
        model = self._label("model", fact.model)
        self._cost.labels(model).inc(fact.cost / 1e9)
        for kind, cost in fact.costs.items():
            self._costs.labels(model, kind).inc(cost / 1e9)
        self._unpriced.labels(model).inc(fact.unpriced_tokens)
        self._unreported.labels(model).inc(fact.unreported_calls)
        for kind, count in fact.tokens.items():
            self._billed_tokens.labels(model, kind).inc(count)

    def _chunks(self, fact: ChunksCame) -> None:
        self._gaps.of(self._label("model", fact.model)).observe_all(fact.chunk_gap_seconds)

    def _departed(self, fact: FollowerGone) -> None:
        self._departures.labels(self._label("wire", fact.wire), fact.why).inc()

    def _appended(self, fact: StoreAppended) -> None:
        self._append.observe(fact.seconds)
        self._uncounted += fact.records

    def _label(self, kind: str, value: str) -> str:
        values = self._values.setdefault(kind, set())
        if value not in values:
            if len(values) >= _MOST_LABELS:
                return "other"
            values.add(value)
        return value[:80]


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def start() -> PrometheusObserver | None:
    """Start counting, once per process; None if `prometheus_client` is not installed."""
    global _observer
    with _lock:
        if _observer is None:
            try:
                _observer = PrometheusObserver()
            except ModuleNotFoundError:
                return None
            observe(_observer)
        return _observer


def exposition(gauges: Mapping[str, float]) -> tuple[bytes, str] | None:
    """The text of all metrics with the present ``gauges``, and its media type."""
    observer = start()
    if observer is None:
        return None
    lines = [f"# TYPE {name} gauge\n{name} {float(value):g}\n" for name, value in gauges.items()]
    text = observer.text() + "".join(lines).encode()
    return text, "text/plain; version=0.0.4; charset=utf-8"
