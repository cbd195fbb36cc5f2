/* A budget beside an answer: that it is nearly used up, ended the answer, or did not let it begin. */

import { stateOf, type RunState, type TokenwireError } from "@tokenwire/client";
import { useEffect, useState, type ReactNode } from "react";
import { client } from "../server.js";
import { holding, nearWords, stoppedWords, usedUpWords, waitWords, type BudgetState } from "./budget.js";

/** What an answer's events say of a budget. */
function budgetOf(state: RunState): BudgetState | undefined {
  const { budget } = state as RunState & { budget?: Partial<BudgetState> };
  return budget?.name && budget.unit ? { left: 0, most: 0, ...budget, name: budget.name, unit: budget.unit } : undefined;
}

/** Whether a budget ended this answer in its middle. */
export function isStopped(state: RunState): boolean {
  return stateOf(state) === "incomplete" && state.end_reason === "budget";
}

/** Why there is no answer, or no more of it. The server says when a budget starts anew. */
export function BudgetWords({ state, error }: { state: RunState; error: TokenwireError | undefined }): ReactNode {
  const told = error ? undefined : budgetOf(state);
  const used = useUsedUp(!told && (!error || error.retryAfter !== undefined));
  if (!error) return stoppedWords(told ?? used);
  if (error.retryAfter === undefined) return usedUpWords({ name: "thread", unit: "tokens", left: 0, most: 0 });
  return used ? usedUpWords(used) : waitWords(error.retryAfter);
}

export function NearBudget({ state }: { state: RunState }): ReactNode {
  const budget = budgetOf(state);
  if (!budget || budget.left <= 0 || isStopped(state)) return null;
  return (
    <p className="quiet-note" role="status">
      {nearWords(budget)}
    </p>
  );
}

function useUsedUp(isAsked: boolean): BudgetState | undefined {
  const [used, setUsed] = useState<BudgetState>();
  useEffect(() => {
    if (!isAsked) return undefined;
    let isCurrent = true;
    client.json("GET", "/v1/usage").then(
      (usage) => isCurrent && setUsed(holding((usage as { budgets?: BudgetState[] }).budgets ?? [])),
      () => {
        // What the refusal itself says is enough.
      },
    );
    return () => {
      isCurrent = false;
    };
  }, [isAsked]);
  return used;
}
