"""Payloads that only say how a request gets on: queued, loading, running.

Always true: a payload that names an error, or a status of a failure, says no such thing.
"""

from __future__ import annotations

import re
from typing import Any

from tokenwire.providers.decoding.faults import FAILING
from tokenwire.providers.decoding.values import text_of

__all__ = ["says_life"]

#: A state in which a request waits or is worked on.
_BUSY = frozenset(
    "queued queueing in_queue queue waiting pending processing in_progress progress running loading"
    " starting started scheduled initializing initialising warming warming_up thinking working"
    " generating preparing accepted".split()
)
#: Kinds of payload that hold a state and no output.
_KIND = re.compile(r"(?:^|[_.:/])(?:status|progress|queued?)(?:\Z|[_.:/])")
_PING = re.compile(r"(?:^|[_.:/])(?:heartbeat|ping|keep_?alive)(?:\Z|[_.:/])")
_KINDS = ("type", "event", "object", "kind")
_TEXTS = ("message", "msg", "detail")
_STATES = ("status", "state", "code", *_TEXTS)
_NUMBERS = ("status", "code", "status_code", "statusCode", "http_status")


def says_life(event: str | None, value: dict[str, Any]) -> bool:
    """Whether a payload of an unknown form, in a frame named ``event``, says that the request is
    under way and nothing else."""
    if value.get("error") or value.get("errors"):
        return False
    if value.get("success") is False or value.get("ok") is False:
        return False
    if any(_is_failure(value.get(name)) for name in _NUMBERS):
        return False
    if any(FAILING.search(text_of(value.get(name))) for name in _TEXTS):
        return False  # prose of a failure, perhaps beside the state before it
    if not value or any(_plain(text_of(value.get(name))) in _BUSY for name in _STATES):
        return True
    kinds = [_plain(kind) for kind in (event or "", *(text_of(value.get(n)) for n in _KINDS))]
    if any(map(_PING.search, kinds)):
        return True
    states = [text_of(value.get(name)) for name in ("status", "state")]
    if any(states):  # a word that is none of the above: it may be that of a failure
        return False
    return any(map(_KIND.search, kinds))


def _plain(word: str) -> str:
    return re.sub(r"[\s\-]+", "_", word.strip().strip(".").lower()) if len(word) <= 40 else ""


def _is_failure(value: object) -> bool:
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and value.strip().isdecimal():
        number = int(value[:9])
    return number is not None and 400 <= number <= 599
