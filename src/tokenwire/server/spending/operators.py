"""Operators: who may read what everybody uses, and set budgets.

Always true: what permits everything to a principal (no roles at all) does not make it an operator,
so that nobody lifts a budget of their own; nor does a token for a browser, or a tenant's admin.
"""

from __future__ import annotations

from tokenwire.errors import ForbiddenError
from tokenwire.server.edge.auth import Identity
from tokenwire.server.state import State

__all__ = ["is_operator", "require_operator"]


def is_operator(state: State, identity: Identity) -> bool:
    """Whether the role ``admin`` or the setting ``operator`` names the principal; everybody is one
    on a server of this machine alone that has no keys."""
    if identity.grant is not None or identity.tenant is not None:
        return False
    if identity.roles is not None and "admin" in identity.roles:
        return True
    if identity.user:
        return identity.user in state.settings.operator and identity.permits("admin")
    is_own = state.hosted is None and not state.settings.insecure
    return is_own and not state.auth.on and identity.how == "open"


def require_operator(state: State, identity: Identity) -> None:
    """Raise `ForbiddenError` unless the principal is an operator."""
    if not is_operator(state, identity):
        raise ForbiddenError(
            "this is for operators: principals without a tenant that have the role 'admin' by "
            "name, or that --operator names"
        )
