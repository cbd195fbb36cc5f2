"""Push notification configurations of a task: made, read, listed and removed by their owner.

Always true: an address is checked against ``--a2a-push`` before it is stored, and again before each
call; a caller sees its own configurations only, and no credentials of them.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from tokenwire.errors import GoneError, InputError, NotFoundError
from tokenwire.relay.push.deliveries import PushDeliveries
from tokenwire.relay.push.notes import PushConfig
from tokenwire.relay.webhooks.post import Targets
from tokenwire.server.routes.a2a.errors import no_push
from tokenwire.server.routes.a2a.tasks import Caller, find
from tokenwire.server.state import State
from tokenwire.wire.fields import Fields

__all__ = [
    "create_config",
    "delete_config",
    "get_config",
    "list_configs",
    "open_push",
    "parse_config",
]

OPTION = "--a2a-push"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
#: Characters of a token and of credentials.
_MOST = 4096


def open_push(state: State) -> None:
    """Send push notifications, where the settings name who may be called. Raises `ConfigError`."""
    if not state.settings.a2a_push:
        return

    async def may_read(run: str, principal: str) -> bool:
        try:
            await state.runs.info(run, principal=principal)
        except (NotFoundError, GoneError):
            return False
        return True

    targets = Targets(state.settings.a2a_push, option=OPTION)
    state.push = PushDeliveries(state.store, targets, may_read)
    state.runs.worker.push_with(state.push)


def _deliveries(caller: Caller) -> PushDeliveries:
    if caller.state.push is None:
        raise no_push()
    return caller.state.push


def parse_config(caller: Caller, fields: Fields) -> PushConfig:
    """A configuration of the caller's. Raises `InputError`, and
    ``PushNotificationNotSupportedError`` where the server sends none."""
    targets = _deliveries(caller).targets
    url = fields.need("url")
    refused = targets.check(url)
    if refused is not None:
        raise fields.fail("url", f"may not be called: {refused}")
    name = fields.text("id") or f"push_{secrets.token_hex(12)}"
    if len(name) > 256 or not name.isprintable() or "/" in name:
        raise fields.fail("id", "must have at most 256 printable characters, and no slash")
    login = fields.object("authentication") or Fields({})
    scheme = login.text("scheme") or ""
    if scheme and not _SCHEME.fullmatch(scheme):
        raise login.fail("scheme", "is no name of an authentication scheme")
    return PushConfig(
        id=name,
        url=url,
        principal=caller.principal,
        token=_value(fields, "token"),
        scheme=scheme,
        credentials=_value(login, "credentials"),
    )


def _value(fields: Fields, name: str) -> str:
    value = fields.text(name) or ""
    if len(value) > _MOST or any(not " " <= c <= "~" for c in value):
        raise fields.fail(name, f"must have at most {_MOST} visible ASCII characters")
    return value


async def create_config(caller: Caller, task: str, fields: Fields) -> dict[str, Any]:
    """Add a configuration, or replace the caller's of the same id. A task that has ended is told of
    at once. Raises `NotFoundError`, `InputError`."""
    info = await find(caller, task)
    config = parse_config(caller, fields)
    await _deliveries(caller).put(info.id, config)
    return config.shown(info.id)


async def get_config(caller: Caller, task: str, name: str) -> dict[str, Any]:
    """One of the caller's. Raises `NotFoundError` for a task, `InputError` for a configuration,
    that is not there."""
    return (await _one(caller, task, name)).shown(task)


async def list_configs(caller: Caller, task: str) -> dict[str, Any]:
    """All of the caller's, in one page."""
    info = await find(caller, task)
    configs = await _deliveries(caller).configs(info.id, caller.principal)
    return {"configs": [config.shown(info.id) for config in configs], "nextPageToken": ""}


async def delete_config(caller: Caller, task: str, name: str) -> dict[str, Any]:
    """Remove one of the caller's; it is no error where there is none."""
    info = await find(caller, task)
    await _deliveries(caller).remove(info.id, caller.principal, name)
    return {}


async def _one(caller: Caller, task: str, name: str) -> PushConfig:
    info = await find(caller, task)
    for config in await _deliveries(caller).configs(info.id, caller.principal):
        if config.id == name:
            return config
    raise InputError("the task has no push notification configuration of this id", field="id")
