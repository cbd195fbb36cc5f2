"""A model call's key, where it changes while the process runs.

Always true: a cancel of the run ends the wait for a key; a static key costs nothing here.
"""

from __future__ import annotations

import asyncio

from tokenwire.contracts import fulfils
from tokenwire.errors import AuthenticationError, CancelledRunError
from tokenwire.providers.base import Call, Target
from tokenwire.providers.credentials.credential import Credential
from tokenwire.run.inbox import Inbox

__all__ = ["authorised", "is_rejected", "renewed", "signed"]

#: What AWS calls a signature with credentials that are over; its status is 403.
_EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException"})


async def authorised(target: Target, inbox: Inbox, *, rejected: bool = False) -> Target:
    """``target`` with a key that holds; ``rejected``: the one that it has was refused. Raises
    `AuthenticationError` and `CancelledRunError`."""
    credential = target.credential
    if not fulfils(credential, Credential):
        return target
    work = asyncio.ensure_future(credential.ready(target, rejected=rejected))
    release = inbox.on_cancel(lambda: _cancel(work))
    try:
        return await work
    except asyncio.CancelledError:
        work.cancel()
        if inbox.ends_calls:
            raise CancelledRunError("the run was cancelled") from None
        raise
    finally:
        release()


def signed(call: Call, target: Target) -> Call:
    """``call`` as it is sent."""
    credential = target.credential
    return credential.sign(call, target) if fulfils(credential, Credential) else call


async def renewed(target: Target, inbox: Inbox) -> tuple[Target, AuthenticationError | None]:
    """``target`` with a key in place of the one that was refused, or why there is none. Raises
    `CancelledRunError`."""
    try:
        return await authorised(target, inbox, rejected=True), None
    except AuthenticationError as error:
        return target, error


def is_rejected(target: Target, error: Exception) -> bool:
    """Whether the provider refused a key that changes before it accepted the request."""
    if target.credential is None:
        return False
    if not isinstance(error, AuthenticationError):
        return getattr(error, "provider_code", None) in _EXPIRED
    return error.status == 401 or error.provider_code in _EXPIRED


def _cancel(work: asyncio.Future[Target]) -> None:
    work.cancel()
