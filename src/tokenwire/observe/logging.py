"""Facts and errors as log lines on standard error: plain, one line each, without content.

Always true: a line contains no prompt, answer, key or query string; control characters of foreign
text are escaped, so that nobody can forge a line.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from tokenwire.observe.facts import Fact, FellBack, FollowerGone, Retried, RunEnded, TakenOver
from tokenwire.observe.hooks import observe
from tokenwire.observe.redact import redact

__all__ = ["LineFormatter", "log_facts", "setup"]

_log = logging.getLogger("tokenwire.run")


class LineFormatter(logging.Formatter):
    """``12:00:00 info tokenwire.access GET / 200 3 ms``, redacted and on one line; a traceback
    follows indented, redacted too."""

    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        when = self.formatTime(record, self.datefmt)
        text = redact(record.getMessage())
        line = f"{when} {record.levelname.lower()} {record.name} {_inert(text)}"
        if record.exc_info:
            trace = redact(self.formatException(record.exc_info))
            line += "".join(f"\n    {_inert(part)}" for part in trace.splitlines())
        return line


def _inert(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def setup(level: str = "info") -> None:
    """Write ``tokenwire`` and ``uvicorn`` logs to standard error; called by commands only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    for name, least in (("tokenwire", level), ("uvicorn.error", "warning")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(least.upper())


def log_facts() -> Any:
    """Log the important facts. Returns a function that stops it."""
    return observe(_write)


def _write(fact: Fact) -> None:
    if isinstance(fact, RunEnded):
        level = logging.WARNING if fact.outcome in ("error", "interrupted") else logging.INFO
        _log.log(
            level,
            "run %s %s%s after %.1f s, %d events",
            fact.run,
            fact.outcome,
            f" ({fact.code})" if fact.code else "",
            fact.seconds,
            fact.events,
        )
    elif isinstance(fact, Retried):
        _log.warning(
            "run %s: %s (%s), retry in %.1f s", fact.run, fact.provider, fact.code, fact.pause
        )
    elif isinstance(fact, FellBack):
        _log.warning("run %s: %s failed (%s), falling back", fact.run, fact.model, fact.code)
    elif isinstance(fact, TakenOver):
        _log.warning("run %s taken over: %s, epoch %d", fact.run, fact.how, fact.epoch)
    elif isinstance(fact, FollowerGone) and fact.why == "slow":
        _log.warning("run %s: disconnected a slow reader (%s)", fact.run, fact.wire)
