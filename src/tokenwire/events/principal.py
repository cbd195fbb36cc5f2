"""Principals: who acts, for which tenant, with which roles, within which limits.

Always true: two principals have the same name only if they have the same id and the same tenant;
the name of one without a tenant is its id, so what was stored before there were tenants is theirs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Self

from tokenwire.errors import ConfigError
from tokenwire.events.names import TENANT_END, names_of, principal_fault

__all__ = ["ROLES", "Principal", "PrincipalLimits", "is_listed", "parts_of"]

#: What a role permits: ``read``: own runs and conversations; ``write``: start, send, cancel,
#: rename; ``approve``: decide about tool calls that wait for a person; ``admin``: erase, and
#: everything else.
ROLES = frozenset({"read", "write", "approve", "admin"})


_BUDGET = re.compile(r"(?:day|month)=\$?[0-9]{1,15}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class PrincipalLimits:
    """Limits of one principal, or of all principals of a tenant together; None: the server's
    settings. ``runs``: that are at work at a time; ``waiting_runs``: that wait for a person;
    ``starts_per_minute``: of runs; ``tokens_per_day``: of models, in and out, from midnight UTC on;
    ``budgets``: a day's and a month's, such as ``day=200000`` (tokens) and ``month=$5``, each in
    place of the server's for the same. Raises `ConfigError` for what is none of that."""

    runs: int | None = None
    waiting_runs: int | None = None
    starts_per_minute: int | None = None
    tokens_per_day: int | None = None
    budgets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "budgets":
                continue
            if value is not None and (type(value) is not int or value < 0):
                raise ConfigError(f"the limit '{name}' must be a count, or None")
        object.__setattr__(self, "budgets", tuple(self.budgets))
        for text in self.budgets:
            if not isinstance(text, str) or not _BUDGET.fullmatch(text):
                raise ConfigError("a budget of limits is written as day=200000 or month=$5")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts. ``id`` and ``tenant``: 1 to 200 printable characters without spaces around them;
    principals of different tenants never see each other, whatever their ids. ``roles``: some of
    ``read``, ``write``, ``approve`` and ``admin``; None permits everything, an empty collection
    nothing. ``limits``: of this principal; ``tenant_limits``: of its whole tenant, which needs a
    tenant. Raises `ConfigError` for what is not valid."""

    id: str
    tenant: str | None = None
    roles: frozenset[str] | None = None
    limits: PrincipalLimits | None = None
    tenant_limits: PrincipalLimits | None = None

    def __post_init__(self) -> None:
        if fault := principal_fault(self.id):
            raise ConfigError(f"the id of a principal {fault}")
        if self.tenant is not None and (fault := principal_fault(self.tenant)):
            raise ConfigError(f"the tenant of a principal {fault}")
        if self.roles is not None:
            object.__setattr__(self, "roles", _checked_roles(self.roles))
        for value in (self.limits, self.tenant_limits):
            if value is not None and not isinstance(value, PrincipalLimits):
                raise ConfigError("the limits of a principal must be PrincipalLimits")
        if self.tenant_limits is not None and self.tenant is None:
            raise ConfigError("a principal without a tenant has no tenant_limits")

    @property
    def name(self) -> str:
        """What calls take as ``principal``, and what is stored: the id, with the tenant before it
        where there is one."""
        return self.id if self.tenant is None else self.tenant + TENANT_END + self.id

    @classmethod
    def of(cls, name: str) -> Self:
        """The principal with this `name`: its id and tenant. Raises `ConfigError`."""
        tenant, end, user = name.rpartition(TENANT_END)
        return cls(user, tenant if end else None)


def parts_of(name: str) -> tuple[str, str | None]:
    """Id and tenant of the principal with this `Principal.name`; the id is empty where everybody is
    one, the tenant None without one."""
    tenant, end, user = name.rpartition(TENANT_END)
    return user, tenant if end else None


def is_listed(name: str, principals: Collection[str | Principal]) -> bool:
    """Whether the principal with this `Principal.name` is one of ``principals``. A text is such a
    name, so an id alone is that of the principal without a tenant; of a `Principal` id and tenant
    count, and nothing else."""
    return name in principals or any(
        isinstance(one, Principal) and one.name == name for one in principals
    )


def _checked_roles(roles: Iterable[str]) -> frozenset[str]:
    try:
        names = frozenset(names_of(roles, "roles"))
    except TypeError as error:
        raise ConfigError(str(error)) from None
    unknown = sorted(names - ROLES)
    if unknown:
        raise ConfigError(f"unknown role {unknown[0][:80]!r}; choose of {', '.join(sorted(ROLES))}")
    return names
