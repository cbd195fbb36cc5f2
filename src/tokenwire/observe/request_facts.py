"""What a model is asked with, for observers: options and address, and nothing of what it is asked.

Always true: no prompt, no stop text, no key and no path or query of an address is in it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from tokenwire.events.request import Request

__all__ = ["RequestFacts", "request_facts"]

_PORTS = {"http": 80, "https": 443}


class RequestFacts(msgspec.Struct, kw_only=True, frozen=True):
    """``output``: ``json`` for an answer with a schema, else ``text``; ``reasoning``: the effort,
    where it is one and no number of tokens; ``provider``, ``address`` (a host) and ``port``: of the
    first model of the run; None where the run has none, or its address is no URL."""

    output: str = "text"
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    reasoning: str | None = None
    provider: str | None = None
    address: str | None = None
    port: int | None = None


def request_facts(
    request: Request, *, provider: str | None = None, base_url: str = ""
) -> RequestFacts:
    """The facts of ``request`` to the model of ``provider`` at ``base_url``."""
    address, port = host_and_port(base_url)
    return RequestFacts(
        output="text" if request.output is None else "json",
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        seed=request.seed,
        reasoning=request.reasoning if isinstance(request.reasoning, str) else None,
        provider=provider,
        address=address,
        port=port,
    )


def host_and_port(url: str) -> tuple[str | None, int | None]:
    """Where ``url`` leads; None for what it does not say, or for what is no URL."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is no number, a broken IPv6 address
        return None, None
