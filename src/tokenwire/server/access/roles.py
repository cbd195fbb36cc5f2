"""Which role a request needs: by its method, unless the wire that serves its path says otherwise.

Always true: what no rule names needs `write`, or `admin` where it erases, so a new route is closed
to readers until it says that it only reads.
"""

from __future__ import annotations

import re

from tokenwire.server.edge.auth import Identity, Role

__all__ = ["RoleRules"]

_PARAMETER = re.compile(r"\\\{[a-z]+(:path)?\\\}")
_BY_METHOD: dict[str, Role] = {"GET": "read", "DELETE": "admin"}


class RoleRules:
    """The rules of one server."""

    def __init__(self) -> None:
        self._rules: list[tuple[str, re.Pattern[str], tuple[Role, ...]]] = []

    def add(self, method: str, path: str, *roles: Role) -> None:
        """Requests of ``path``, as routes write it, need one of ``roles``; with several, the route
        checks what its body does. Without any, everybody may send them."""
        pattern = _PARAMETER.sub(lambda m: ".+" if m[1] else "[^/]+", re.escape(path))
        self._rules.append((method, re.compile(pattern), roles))

    def of(self, method: str, path: str) -> tuple[Role, ...]:
        """The roles of which a request needs one."""
        method = "GET" if method == "HEAD" else method
        for rule_method, pattern, roles in self._rules:
            if rule_method == method and pattern.fullmatch(path):
                return roles
        return (_BY_METHOD.get(method, "write"),)

    def check(self, identity: Identity, method: str, path: str) -> None:
        """Raise `RoleError` unless the principal may send such a request."""
        if identity.roles is None or method == "OPTIONS":
            return
        roles = self.of(method, path)
        if roles and not any(identity.permits(role) for role in roles):
            identity.require(roles[0])
