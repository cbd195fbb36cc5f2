"""Fields of a request that tokenwire has no use for: passed on, dropped or refused, by policy.

Always true: a field that chooses the model, the conversation, the tools, the way of the answer or
the address of a provider is refused, however it is spelled; what is passed has a plain name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from tokenwire.errors import InputError
from tokenwire.events.request import PassedFields
from tokenwire.wire.fields import Fields

__all__ = ["FIELD_NAME", "Policy", "passed_fields"]

#: What becomes of a field that tokenwire has no use for.
Policy = Literal["pass", "drop", "refuse"]

#: What a field that is passed on may be called.
FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
#: What the server decides alone, without case and punctuation: some providers ignore both.
_OURS = frozenset(
    "model models engine deployment deploymentid messages prompt prompts input inputs system "
    "instructions conversation conversationid previousresponseid functions functioncall "
    "responseformat n bestof numreturnsequences candidatecount background store "
    "route routes provider providers fallbacks plugins transforms extrabody extraheaders "
    "extraquery headers baseurl apibase apikey apitype apiversion organization project "
    "customllmprovider mockresponse chattemplate chattemplatekwargs contents generationconfig "
    "systeminstruction toolconfig modelid mcpservers container contextmanagement websearchoptions "
    "audio modalities echo suffix raw template context keepalive betas awsregionname "
    "vertexproject vertexlocation vertexcredentials timeout numretries".split()
)
_PREFIXES = ("stream", "tool", "litellm", "aws", "vertex", "azure")


def passed_fields(
    body: Fields,
    *,
    wire: str,
    own: Iterable[str],
    policy: Policy,
    harmless: dict[str, tuple[object, ...]],
) -> PassedFields | None:
    """The fields of ``body`` beside the ``own`` ones of the wire, as the policy wants them.
    ``harmless``: fields of the wire that tokenwire has no use for -> the values that ask for
    nothing. Raises `InputError`, with ``refuse`` for each field that asks for something."""
    names = sorted(name for name in set(body.value) - set(own) if body.has(name))
    for name in names:
        if policy == "refuse" and name in harmless:
            if body.raw(name) not in harmless[name]:
                raise body.fail(name, "is not supported here")
        elif policy == "refuse" or not FIELD_NAME.fullmatch(name):
            raise InputError(f"unknown field '{name[:80]}'", field=name[:80])
        elif _is_ours(name):
            raise body.fail(name, "is not supported here")
    if policy == "refuse" or not names:
        return None
    return PassedFields(
        wire=wire if policy == "pass" else "", fields={name: body.raw(name) for name in names}
    )


def _is_ours(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name.casefold())
    return plain in _OURS or plain.startswith(_PREFIXES)
