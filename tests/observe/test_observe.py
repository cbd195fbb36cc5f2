"""Facts to observers, logs and metrics; and what never reaches any of them."""

from __future__ import annotations

import io
import logging

import pytest

from tokenwire.observe import facts, hooks, prometheus
from tokenwire.observe.logging import LineFormatter, log_facts, setup
from tokenwire.observe.redact import forget_secrets, keep_secret, redact

RUN_ENDED = facts.RunEnded("r1", "demo", "error", "network", 1.5, 7, 10, 20)


def test_an_observer_hears_facts_until_it_stops() -> None:
    heard: list[facts.Fact] = []
    stop = hooks.observe(heard.append)
    hooks.report(facts.RunStarted("r1", "demo"))
    stop()
    hooks.report(facts.RunStarted("r2", "demo"))
    assert heard == [facts.RunStarted("r1", "demo")]


def test_an_observer_that_fails_is_removed_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(fact: facts.Fact) -> None:
        raise ValueError("no")

    heard: list[facts.Fact] = []
    hooks.observe(broken)
    stop = hooks.observe(heard.append)
    hooks.report(facts.RunStarted("r1", "demo"))
    hooks.report(facts.RunStarted("r2", "demo"))
    stop()
    assert len(heard) == 2
    assert broken not in hooks._observers
    assert "removed" in caplog.text


def test_facts_have_no_room_for_content() -> None:
    for name in facts.__all__:
        fields = getattr(facts, name).__struct_fields__
        assert not {"text", "prompt", "content", "key", "arguments", "message"} & set(fields)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Incorrect API key provided: sk-proj-abc123DEF456", "abc123DEF456"),
        ("sk-ant-api03-AbCdEf_123-xyz is invalid", "AbCdEf"),
        ("Authorization: Bearer abc.def.ghi", "abc.def"),
        ('{"authorization": "Basic dXNlcjpwYXNz"}', "dXNlcjpwYXNz"),
        ("x-api-key=verysecretvalue", "verysecretvalue"),
        ('api_key: "verysecretvalue"', "verysecretvalue"),
        ("redis://user:hunter2@db.example/0", "hunter2"),
        ("https://token@host.example/x", "token"),
        ("AIzaSyA1234567890abcdefghij", "SyA12345"),
        ("ghp_abcdefghijklmnop1234", "abcdefghij"),
        ("cannot open /home/bella/projects/keys.txt", "bella"),
        ("cannot open /var/lib/tokenwire/chat.db: denied", "tokenwire"),
        (r"C:\Users\ann\keys.txt", "ann"),
    ],
)
def test_secrets_and_paths_are_taken_out(text: str, hidden: str) -> None:
    assert hidden not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "the run has 32 readers; try again in 5 s",
        "'prompt': expected a text",
        "unknown path; docs/reference/http.md lists the routes",
        "GET /v1/runs/abc/events",
        "skyscrapers and skeletons are risk-free",
        "12:30:00 and a/b/c",
        "model 'openai:gpt-5-mini' is not served here",
        "https://example.com/docs/page",
    ],
)
def test_ordinary_texts_stay(text: str) -> None:
    assert redact(text) == text


def test_known_secrets_are_taken_out_whole_and_texts_bounded() -> None:
    keep_secret("plain-words-secret")
    keep_secret("plain-words-secret-longer")
    keep_secret("short")
    try:
        assert redact("a plain-words-secret-longer b") == "a [redacted] b"
        assert "short" in redact("a short b")
    finally:
        forget_secrets()
    assert redact("x" * 600, most=500) == "x" * 499 + "…"


def test_log_lines_are_one_line_redacted_and_inert() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger("tokenwire.test-lines")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("path %s key %s", "/x\r\nforged\x1b[31m\u202e", "sk-abcdefghijkl")
    try:
        raise ValueError("sk-abcdefghijkl\nforged")
    except ValueError:
        logger.exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(r"path /x\r\nforged\x1b[31m\u202e key [redacted]")
    assert "sk-abc" not in stream.getvalue()
    assert all(line.startswith("    ") for line in lines[2:])


def test_facts_worth_a_line_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    setup("info")
    stop = log_facts()
    try:
        hooks.report(RUN_ENDED)
        hooks.report(facts.Retried("r1", "demo", "m", "network", 1, 0.5))
        hooks.report(facts.FollowerGone("r1", "native", "slow", 3, 1.0))
        hooks.report(facts.FollowerGone("r1", "native", "end", 3, 1.0))
    finally:
        stop()
        for name in ("tokenwire", "uvicorn.error"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
            logger.setLevel(logging.NOTSET)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "warning tokenwire.run run r1 error (network) after 1.5 s, 7 events" in lines[0]


def test_metrics_count_facts_and_bound_their_labels() -> None:
    pytest.importorskip("prometheus_client")
    observer = prometheus.PrometheusObserver()
    observer(RUN_ENDED)
    observer(facts.FirstToken("r1", "demo", "demo", 0.3))
    observer(facts.RequestDone("GET", "/v1/runs/{run}", 200, 0.01))
    observer(facts.RequestDone("BREW", "other", 405, 0.01))
    for number in range(500):
        observer(facts.RunStarted("r", f"model-{number}"))
    text = observer.text().decode()
    assert 'runs_ended_total{code="network",model="demo",outcome="error"} 1.0' in text
    assert 'tokenwire_tokens_total{kind="output",model="demo"} 20.0' in text
    assert 'requests_total{method="other",route="other",status="405"} 1.0' in text
    assert 'tokenwire_runs_started_total{model="other"}' in text
    assert text.count("tokenwire_runs_started_total{") <= 51


def test_every_fact_is_counted_or_left_out_on_purpose() -> None:
    pytest.importorskip("prometheus_client")
    observer = prometheus.PrometheusObserver()
    known = {getattr(facts, name) for name in facts.__all__} - {facts.Fact}
    # An agent's answers are in the numbers of its run.
    assert set(observer._handlers) == known - {facts.AnswerStarted, facts.AnswerEnded}


def test_the_exposition_has_gauges() -> None:
    pytest.importorskip("prometheus_client")
    found = prometheus.exposition({"tokenwire_connections_open": 3})
    assert found is not None
    assert b"tokenwire_connections_open 3\n" in found[0]
