"""Settings of the simulator, as one value."""

from __future__ import annotations

import msgspec

from tokenwire.simulator.pace import Pace

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How the simulator behaves where a request or a scenario does not say otherwise."""

    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = 0
    #: Seconds from the request to the first token.
    ttft: float = 0.0
    #: Tokens a second; 0 is as fast as the reader takes them.
    rate: float = 0.0
    #: Spread of the gaps, 0 to 1.
    jitter: float = 0.0
    #: Tokens joined into one chunk.
    tokens_per_chunk: int = 1
    #: Answers, ids, gaps and faults are drawn from it.
    seed: int = 0
    #: A fault plan for every answer, such as ``cut-rst@512,crlf``.
    faults: str = ""
    #: Refuse requests that do not bring this key.
    api_key: str | None = None
    #: Names that ``GET /v1/models`` lists; any name is answered.
    models: tuple[str, ...] = ("demo", "demo-small")

    @property
    def pace(self) -> Pace:
        """The rhythm part."""
        return Pace(
            ttft=self.ttft,
            rate=self.rate,
            jitter=self.jitter,
            tokens_per_chunk=self.tokens_per_chunk,
        )
