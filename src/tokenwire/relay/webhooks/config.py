"""Who is called by webhooks, and one signed call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from tokenwire.errors import ConfigError, TokenwireError
from tokenwire.relay.webhooks.post import Targets, post
from tokenwire.relay.webhooks.signature import Signatures

__all__ = ["MakeLink", "Rejected", "Webhooks"]


#: The address of a link that decides about an approval: of a run, an approval, a principal, the
#: name of the link, and the Unix seconds of its message. Once more it is the same.
MakeLink = Callable[[str, str, str, str, float], Awaitable[str]]


class Rejected(TokenwireError):
    """The receiver did not accept a webhook. ``is_final``: it wants no more."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class Webhooks:
    """``urls``: addresses that receive every event; each vouches for its own host and port, private
    or not. ``secrets``: see `Signatures`. Raises `ConfigError`."""

    def __init__(self, urls: Sequence[str], secrets: Sequence[str]) -> None:
        self.urls = list(dict.fromkeys(urls))
        try:
            self._targets = Targets.of_urls(self.urls)
            problems = [problem for url in self.urls if (problem := self._targets.check(url))]
        except ValueError as error:
            problems = [str(error)]
        if problems:
            raise ConfigError(f"invalid webhook address: {problems[0]}")
        self._signatures = Signatures(secrets)
        #: Makes the links of a message that says what waits; None: it has none.
        self.links: MakeLink | None = None

    async def send(self, url: str, message: str, body: bytes) -> None:
        """Send one message under its id. Raises `NetworkError`, `ProtocolError`, `Rejected`."""
        if url not in self.urls:
            raise Rejected("the address is not among the webhooks of this process any more")
        headers = self._signatures.headers(message, body, time.time())
        status, _ = await post(self._targets, url, body, headers)
        if 200 <= status < 300:
            return
        hint = " (redirects are not followed)" if 300 <= status < 400 else ""
        raise Rejected(f"the receiver replied with status {status}{hint}", is_final=status == 410)
