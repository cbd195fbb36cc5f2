"""Links by which one call is approved or denied, wherever they were sent.

Always true: a link is for one approval of one run with the very arguments that it was made for, and
dead for any other; it ends with the membership by which it was made; it decides once, by compare
and swap, in whichever process and however often it is opened; its decision is one of the answers to
the approval, of which the first one counts; a decision that a crash interrupted is the same when it
is made again.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal

import msgspec

from tokenwire.errors import ConflictError, GoneError, InputError, NotFoundError, RoleError
from tokenwire.events.model import ApprovalAnswer
from tokenwire.events.principal import parts_of
from tokenwire.events.state import ToolState
from tokenwire.log.base import Store
from tokenwire.relay.commands import counting, is_stop
from tokenwire.relay.runs import Runs
from tokenwire.relay.waiting.deciders import Deciders, Reach
from tokenwire.relay.waiting.entry import arguments_hash
from tokenwire.run.expiry import EXPIRED

__all__ = [
    "LINK_SECONDS",
    "MOST_LINK_SECONDS",
    "Choice",
    "Link",
    "LinkState",
    "LinkView",
    "Links",
    "forget_links",
]

#: Seconds for which a link counts unless its maker says otherwise, and at most.
LINK_SECONDS, MOST_LINK_SECONDS = 86_400, 7 * 86_400
#: Links of one approval.
MOST_LINKS = 100
#: Seconds after which a decision that was not recorded may be made again.
_RETRY_SECONDS = 10.0
_KIND = "approval-link"
#: Links that one sweep looks at.
_MOST_SWEPT = 100_000

Choice = Literal["approve", "deny"]
#: ``open``: it may decide; ``done``: it just did; ``used``: it did before; ``decided``: somebody
#: else did, or nobody in time; ``changed``: the approval is for another call now; ``gone``: the run
#: has ended or was erased, or who made the link may not decide any more.
LinkState = Literal["open", "done", "used", "revoked", "expired", "decided", "changed", "gone"]


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A link as the store has it. ``digest``: of the call (`arguments_hash`); ``choice``: what it
    decides, None where its reader chooses; ``principal``: for whom it decides; ``member``: of which
    membership, None in a link from before links named one; ``maker``: who made it, for the log;
    ``key``, ``sealed``: the credential of its maker, where one may end; ``issued``, ``ends``,
    ``used_at``: Unix seconds. ``decision``: what it decided; ``is_done``: and that this is
    recorded."""

    id: str
    run: str
    approval: str
    digest: str
    choice: Choice | None = None
    principal: str = ""
    member: str | None = None
    maker: str = ""
    key: bytes = b""
    sealed: bytes = b""
    issued: float
    ends: float
    is_revoked: bool = False
    used_at: float = 0.0
    decision: Choice | None = None
    reason: str | None = None
    is_done: bool = False
    #: Chosen by who changes it: of two that write equal bytes, both would win.
    nonce: str = ""

    @property
    def by(self) -> str:
        """Who decides, for the log: the maker, and which link."""
        name = f"link {self.id[:12]}"
        return f"{self.maker} ({name})" if self.maker else name


class LinkView(msgspec.Struct, kw_only=True):
    """What the reader of a link may see: the call, who asks, and the ``state``. ``decision``: what
    was decided, where that is known; ``by``: by whom; ``is_taken``: the run has it, and does not
    end without it; ``model``: what asks, for ``user``."""

    link: Link
    state: LinkState
    tool: str = ""
    arguments: Any = None
    reason: str | None = None
    model: str = ""
    user: str = ""
    decision: Literal["approve", "deny", "expired"] | None = None
    by: str | None = None
    is_taken: bool = False


class Links:
    """The links of the store of ``runs``. Methods raise `LogError`."""

    def __init__(self, runs: Runs) -> None:
        self._runs, self._store = runs, runs.store
        self._deciders = Deciders(runs.members)

    async def make(
        self,
        run: str,
        approval: str,
        *,
        principal: str,
        maker: str = "",
        choice: Choice | None = None,
        seconds: float = LINK_SECONDS,
        key: bytes = b"",
        sealed: bytes = b"",
        name: str | None = None,
        now: float | None = None,
    ) -> Link:
        """A new link for an open approval, good for ``seconds``; ``now``: of one that is made
        again under its ``name``, which is then the same. Raises `NotFoundError` for an unknown
        approval, `RoleError` for who may not decide, `ConflictError` for one that is decided, and
        `InputError`."""
        if not 1 <= seconds <= MOST_LINK_SECONDS:
            raise InputError(f"'ttl' must be 1 to {MOST_LINK_SECONDS} seconds", field="ttl")
        reach = await self.require(run, principal)
        fold = await self._runs.fold(run, principal=principal)
        tool = _tool(list(fold.tools.values()), approval)
        if tool is None:
            raise NotFoundError("this run has no such approval", what="approval")
        if tool.approved is not None or tool.done or fold.outcome is not None:
            raise ConflictError("this approval was already answered", reason="decided")
        issued = time.time() if now is None else now
        state = fold.approvals.get(approval)
        ends = issued + seconds
        if state is not None and state.expires is not None:
            ends = min(ends, state.expires / 1000)
        link = Link(
            id=name or secrets.token_hex(16),
            run=run,
            approval=approval,
            digest=arguments_hash(tool.name, tool.approval_arguments),
            choice=choice,
            principal=principal,
            member=reach.member,
            maker=maker,
            key=key,
            sealed=sealed,
            issued=issued,
            ends=ends,
            nonce=secrets.token_hex(8),
        )
        if now is None and len(await self.of(run, approval)) >= MOST_LINKS:
            raise InputError(f"an approval has at most {MOST_LINKS} links", most=MOST_LINKS)
        if await self._swap(None, link):
            return link
        return await self.get(run, link.id) or link

    async def require(self, run: str, principal: str) -> Reach:
        """How ``principal`` may decide about the run's approvals. Raises `RoleError` where it may
        not, `NotFoundError` where it does not see the run."""
        await self._runs.info(run, principal=principal)
        reach = await self._deciders.reach(await self._store.describe(run), principal)
        if reach is None:
            raise RoleError("this needs the role 'approve' in this conversation", role="approve")
        return reach

    async def get(self, run: str, name: str) -> Link | None:
        """The link called ``name`` of a run; None without one."""
        data = await self._store.document(_KIND, f"{run}.{name}")
        return None if data is None else msgspec.json.decode(data, type=Link)

    async def of(self, run: str, approval: str | None = None) -> list[Link]:
        """The links of a run, of one approval of it."""
        documents = await self._store.documents(_KIND, prefix=f"{run}.")
        links = [msgspec.json.decode(data, type=Link) for data in documents.values()]
        return [link for link in links if approval in (None, link.approval)]

    async def revoke(self, link: Link) -> None:
        """End a link that was not used."""
        current: Link | None = link
        while current is not None and not current.used_at and not current.is_revoked:
            revoked = msgspec.structs.replace(current, is_revoked=True, nonce=secrets.token_hex(8))
            if await self._swap(current, revoked):
                return
            current = await self.get(link.run, link.id)

    async def look(self, link: Link) -> LinkView:
        """What became of a link and of its call. Decides nothing."""
        try:
            fold = await self._runs.fold(link.run, principal=link.principal)
            info = await self._runs.info(link.run, principal=link.principal)
            reach = await self.require(link.run, link.principal)
        except (NotFoundError, GoneError, RoleError):
            return LinkView(link=link, state="gone")
        if link.member not in (None, reach.member):  # they were removed, and joined again
            return LinkView(link=link, state="gone")
        tool = _tool(list(fold.tools.values()), link.approval)
        if tool is None:
            return LinkView(link=link, state="gone")
        question = fold.approvals.get(link.approval)
        view = LinkView(
            link=link,
            state="open",
            tool=tool.name,
            arguments=tool.approval_arguments,
            reason=question.reason if question is not None else None,
            model=info.model,
            user=parts_of(info.principal)[0],
        )
        answer, is_cancelled = await self._answer(link)
        view.is_taken = tool.approved is not None
        if fold.outcome is not None and not view.is_taken:
            answer = None  # the run ended before it took what stands in its mailbox
        if answer is not None:
            view.decision = "approve" if answer.approved else "deny"
            if not answer.approved and answer.reason == EXPIRED:
                view.decision = "expired"
            view.by = answer.by
        has_ended = is_cancelled or fold.outcome is not None
        view.state = self._state(link, view, tool, has_ended=has_ended)
        if view.state == "open" and question is not None and question.expires is not None:
            view.state = "open" if time.time() * 1000 < question.expires else "expired"
        return view

    async def decide(
        self, link: Link, choice: Choice | None, *, reason: str | None = None
    ) -> LinkView:
        """Decide by a link, once; the state of the view is ``done`` where this call did it, else
        why it did not. Raises `InputError` without a choice, or for another than the link's."""
        choice = choice or link.choice
        if choice is None:
            raise InputError("say 'approve' or 'deny'", field="decision")
        if link.choice not in (None, choice):
            raise InputError(f"this link is to {link.choice} only", field="decision")
        if reason == EXPIRED:
            raise InputError(
                f"the reason '{EXPIRED}' is of no person; write another", field="reason"
            )
        view = await self.look(link)
        is_again = view.state == "used" and self._may_repeat(link, view)
        if view.state != "open" and not is_again:
            return view
        if is_again and link.decision != choice:
            return view
        claim = msgspec.structs.replace(
            link,
            used_at=time.time(),
            decision=choice,
            reason=link.reason if is_again else reason,
            nonce=secrets.token_hex(8),
        )
        if not await self._swap(link, claim):
            current = await self.get(link.run, link.id)
            return await self.look(current) if current is not None else view
        try:
            is_taken = await self._runs.approve(
                link.run,
                link.approval,
                approved=choice == "approve",
                by=claim.by,
                reason=claim.reason,
                principal=link.principal,
                member=link.member,
            )
        except ConflictError:
            await self._swap(claim, _done(claim))
            view = await self.look(claim)
            view.state = "decided" if view.decision is not None else "gone"
            return view
        except (NotFoundError, GoneError, RoleError):
            return LinkView(link=claim, state="gone")
        final = _done(claim)
        await self._swap(claim, final)
        view.link, view.state, view.decision, view.by = final, "done", choice, final.by
        view.is_taken = is_taken
        return view

    async def sweep(self) -> None:
        """Forget links that would have ended by now."""
        now = time.time() - 60
        for name, data in (await self._store.documents(_KIND, most=_MOST_SWEPT)).items():
            if msgspec.json.decode(data, type=Link).ends < now:
                await self._store.set_document(_KIND, name, None)

    # --- inside ----------------------------------------------------------------------------------

    def _state(self, link: Link, view: LinkView, tool: ToolState, *, has_ended: bool) -> LinkState:
        if link.is_revoked:
            return "revoked"
        is_over = has_ended or tool.done
        if link.used_at:
            is_lost = is_over and view.decision is None and tool.approved is None
            return "gone" if is_lost else "used"
        if arguments_hash(tool.name, tool.approval_arguments) != link.digest:
            # Edited arguments stand in the place of those that were asked about.
            return "decided" if view.decision is not None else "changed"
        if view.decision is not None or tool.approved is not None:
            return "decided"
        if is_over:
            return "gone"
        return "expired" if time.time() >= link.ends else "open"

    def _may_repeat(self, link: Link, view: LinkView) -> bool:
        """Whether a decision by this link was interrupted before it was recorded."""
        is_lost = not link.is_done and time.time() > link.used_at + _RETRY_SECONDS
        return is_lost and view.decision is None and time.time() < link.ends

    async def _answer(self, link: Link) -> tuple[ApprovalAnswer | None, bool]:
        """The answer that counts, which the run's owner may not have written yet; and whether the
        run was cancelled, or had waited too long, before there was one."""
        for command in counting(await self._store.commands(link.run)):
            if is_stop(command):
                return None, True
            if isinstance(command, ApprovalAnswer) and command.approval_id == link.approval:
                return command, False
        return None, False

    async def _swap(self, old: Link | None, new: Link) -> bool:
        data = None if old is None else msgspec.json.encode(old)
        name = f"{new.run}.{new.id}"
        return await self._store.swap_document(_KIND, name, data, msgspec.json.encode(new))


def _done(link: Link) -> Link:
    return msgspec.structs.replace(link, is_done=True, nonce=secrets.token_hex(8))


def _tool(tools: list[ToolState], approval: str) -> ToolState | None:
    return next((tool for tool in tools if tool.approval_id == approval), None)


async def forget_links(store: Store, run: str) -> None:
    """Erase the links of a run that is erased."""
    for name in await store.documents(_KIND, prefix=f"{run}."):
        await store.set_document(_KIND, name, None)
