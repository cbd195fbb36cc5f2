"""A dialect of two parts: the function that builds its requests, and its decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenwire.errors import ProviderError
from tokenwire.events.request import Request
from tokenwire.providers.base import Call, Cursor, Target
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.failures import from_response

__all__ = ["PayloadDialect"]


class PayloadDialect:
    """`tokenwire.providers.base.Dialect` of a wire whose errors have the usual forms.

    ``name``: the dialect's; ``build``: a request as the wire's HTTP request; ``decoder``: the class
    of its decoders; ``resume``: the request that re-attaches to a response that the provider keeps,
    after a cursor; None where it keeps none.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[Request, Target], Call],
        decoder: type[PayloadDecoder],
        *,
        resume: Callable[[str, Cursor | None, Target], Call | None] | None = None,
    ) -> None:
        self.name = name
        self._build, self._decoder, self._resume = build, decoder, resume

    def build(self, request: Request, target: Target) -> Call:
        """The HTTP request that sends ``request`` and streams the answer."""
        return self._build(request, target)

    def decoder(
        self,
        *,
        step: int = 1,
        first_part: int = 0,
        quirks: frozenset[str] = frozenset(),
        content_type: str | None = None,
    ) -> PayloadDecoder:
        """A new decoder."""
        return self._decoder(
            step=step, first_part=first_part, quirks=quirks, content_type=content_type
        )

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The typed error of a non-2xx answer."""
        return from_response(status, headers, body)

    def resume(self, response_id: str, after: Cursor | None, target: Target) -> Call | None:
        """The request that re-attaches to a response; None where the provider keeps none."""
        return self._resume(response_id, after, target) if self._resume is not None else None
