"""The budgets of one process, and what each of its runs may use by them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from tokenwire.errors import ConfigError, InputError
from tokenwire.relay.description import RunMeta, scope_of_run
from tokenwire.relay.spending.allowance import SLICE, RunAllowance
from tokenwire.relay.spending.budgets import Budget, budgets_of, run_budget
from tokenwire.relay.spending.settling import Settling

__all__ = ["Allowances"]


class Allowances:
    """The allowances of runs. ``settling``: None where usage is not counted, so that only a run's
    own budget holds, in tokens."""

    def __init__(
        self,
        settling: Settling | None = None,
        budgets: Iterable[Budget] = (),
        *,
        slice_tokens: int = SLICE,
    ) -> None:
        self._settling, self._budgets, self._slice = settling, list(budgets), slice_tokens
        self._open: weakref.WeakSet[RunAllowance] = weakref.WeakSet()

    @property
    def reserved_tokens(self) -> int:
        """Tokens that this process's runs have reserved in the store, and not used yet."""
        return sum(allowance.reserved_tokens for allowance in self._open)

    def checked(self, text: str | None) -> str | None:
        """The budget of a run, as `run_budget` reads it. Raises `InputError` for what is none, and
        for one in money where nothing is priced."""
        if text is None:
            return None
        try:
            budget = run_budget(text)
        except ConfigError as error:
            raise InputError(
                "'budget' must be tokens, such as 1000, or dollars, such as $0.05", field="budget"
            ) from error
        if budget.unit == "dollars" and self._settling is None:
            raise InputError("a budget in money needs the server's --usage", field="budget")
        return text

    def of(self, run: str, meta: RunMeta) -> RunAllowance | None:
        """What a run may use; None: as much as it does."""
        budgets = self._budgets if meta.budgets is None else budgets_of(meta.budgets)
        if self._settling is None:
            budgets = []
        own = [run_budget(meta.budget)] if meta.budget is not None else []
        if not budgets and not own:
            return None
        allowance = RunAllowance(
            self._settling,
            run,
            principal=meta.principal,
            thread=scope_of_run(meta),
            budgets=budgets,
            own=own,
            slice_tokens=self._slice,
        )
        self._open.add(allowance)
        return allowance
