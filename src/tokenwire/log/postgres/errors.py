"""What an error of PostgreSQL or of the connection to it amounts to.

Always true: an error that passes (a restart, a failover, a deadlock) is tried again by `Link`; what
somebody must change is a `ConfigError` at the start, and later the store's failure.
"""

from __future__ import annotations

from tokenwire.errors import (
    ConfigError,
    LogError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
)

__all__ = ["judge"]

#: SQLSTATEs that pass: serialization and deadlocks, no room for connections or memory, shutdowns,
#: a server that is a standby (now), statements that an administrator cancelled.
PASSING_STATES = {
    *("40001", "40P01", "53200", "53300", "57P01", "57P02", "57P03", "57P05", "57014"),
    *("25006", "25P03", "55P03", "25P02", "08P01", "26000", "XX000", "58000"),
}
FULL = {"53100", "53000"}
DAMAGED = {"XX001", "XX002"}
REFUSED = {
    "28000": "the user",
    "28P01": "the user or password",
    "3D000": "the name of the database, which does not exist",
}


def judge(error: Exception, *, started: bool) -> Exception:
    """The error when it passes (connections lost, a server that goes down, comes up, is overloaded
    or finds a deadlock); raises what it means otherwise."""
    import asyncpg  # an extra: `open_store` says when it is missing

    state = str(getattr(error, "sqlstate", None) or "")
    if state in FULL:
        raise StoreFullError("PostgreSQL has no space left for new records") from error
    if state in DAMAGED:
        raise StoreDamagedError(
            "PostgreSQL reports damaged data; restore it from a backup", sqlstate=state
        ) from error
    kind: type[LogError] | type[ConfigError] = StoreUnavailableError if started else ConfigError
    if state in REFUSED:
        raise kind(f"PostgreSQL refused {REFUSED[state]}") from error
    if state == "42501":
        raise kind(
            f"the PostgreSQL user lacks a right that a store needs: {str(error)[:120]}"
        ) from error
    passing = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    if isinstance(error, passing) or state in PASSING_STATES or state.startswith("08"):
        return error
    if isinstance(error, asyncpg.PostgresError):
        raise StoreUnavailableError(
            f"PostgreSQL refused a statement ({state}): {str(error)[:120]}"
        ) from error
    raise error
