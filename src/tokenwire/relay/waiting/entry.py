"""An approval that waits for a person, as the index of the store has it.

Always true: pure; an entry is made of the run's log alone, so that two owners of a run make the
same one; its name begins with the time of its question, so that names are in the order of time.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.state import ToolState
from tokenwire.relay.description import RunMeta

__all__ = ["Entry", "arguments_hash", "entries_of", "is_open"]


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A question to a person. ``approval``, ``call``: its ids in the ``run``; ``tool`` and
    ``arguments``: what would be called; ``reason``: why it is asked, if the run says; ``since`` and
    ``expires``: Unix milliseconds; ``seq``: the offset of the question in the run's log;
    ``principal``: whose run it is; ``scope``: the name of its conversation in the store."""

    run: str
    approval: str
    call: str
    tool: str
    arguments: Any = None
    reason: str | None = None
    since: int
    expires: int | None = None
    seq: int
    model: str
    principal: str = ""
    scope: str | None = None

    @property
    def name(self) -> str:
        """Its name in the order of time."""
        return f"{self.since:015d}.{self.run}.{self.approval}"


def is_open(fold: Fold, tool: ToolState) -> bool:
    """Whether a person may still decide about a call."""
    is_undecided = tool.approval_id is not None and tool.approved is None and not tool.done
    return is_undecided and fold.outcome is None


def entries_of(run: str, meta: RunMeta, scope: str | None, fold: Fold) -> list[tuple[Entry, bool]]:
    """The questions of a run, and whether each is open."""
    entries: list[tuple[Entry, bool]] = []
    for tool in fold.tools.values():
        state = fold.approvals.get(tool.approval_id or "")
        if tool.approval_id is None or state is None:
            continue
        entry = Entry(
            run=run,
            approval=tool.approval_id,
            call=tool.call_id,
            tool=tool.name,
            arguments=tool.approval_arguments,
            reason=state.reason,
            since=state.requested,
            expires=state.expires,
            seq=state.seq,
            model=meta.model,
            principal=meta.principal,
            scope=scope,
        )
        entries.append((entry, is_open(fold, tool)))
    return entries


def arguments_hash(tool: str, arguments: Any) -> str:
    """A digest of a call as a person was shown it: of the tool's name and its arguments."""
    data = msgspec.json.encode([tool, arguments], order="deterministic")
    return hashlib.sha256(data).hexdigest()
