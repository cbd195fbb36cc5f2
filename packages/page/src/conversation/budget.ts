/* A budget that is used up, or nearly so, in a person's words, with the moment of its new start in
their own time. */

export interface BudgetState {
  /** `principal/day`, `tenant/month`, `thread`, `run`. */
  name: string;
  unit: "tokens" | "dollars";
  left: number;
  most: number;
  /** Unix seconds; none for good. */
  resets?: number | null;
}

const DAY_MS = 86_400_000;

/** Of several that are used up, the one that is so for longest. */
export function holding(budgets: BudgetState[]): BudgetState | undefined {
  const until = ({ resets }: BudgetState) => resets ?? Infinity;
  return budgets.filter(({ left }) => left <= 0).sort((a, b) => until(b) - until(a))[0];
}

/** `today at 18:00`, `tomorrow at 02:00`, `on 1 December at 00:00`. */
export function momentWords(seconds: number, now = Date.now(), locale?: string): string {
  const at = new Date(seconds * 1000);
  const time = at.toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" });
  // Noon, so that a day of 23 or 25 hours counts as one.
  const noon = (ms: number) => new Date(ms).setHours(12, 0, 0, 0);
  const days = Math.round((noon(at.getTime()) - noon(now)) / DAY_MS);
  if (days === 0) return `today at ${time}`;
  if (days === 1) return `tomorrow at ${time}`;
  return `on ${at.toLocaleDateString(locale, { day: "numeric", month: "long" })} at ${time}`;
}

function nameWords(name: string): string {
  const [whose, period] = name.split("/");
  if (whose === "thread") return "this conversation's budget";
  if (whose === "run") return "the budget of this answer";
  const of = whose === "tenant" ? "your organisation's budget" : "your budget";
  return period === "month" ? `${of} for this month` : period === "day" ? `${of} for today` : of;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function whatNext({ name, resets }: BudgetState, now?: number, locale?: string): string {
  if (resets) return ` It starts anew ${momentWords(resets, now, locale)}.`;
  if (name === "thread") return " Start a new conversation to go on.";
  return "";
}

/** Why a question was not answered. */
export function usedUpWords(budget: BudgetState, now?: number, locale?: string): string {
  return `${capital(nameWords(budget.name))} is used up.${whatNext(budget, now, locale)}`;
}

/** Why an answer ends in its middle. */
export function stoppedWords(budget: BudgetState | undefined, now?: number, locale?: string): string {
  if (!budget) return "The answer stops here, as a budget is used up. What was written is saved.";
  const why = `The answer stops here: ${nameWords(budget.name)} is used up.`;
  return `${why}${whatNext(budget, now, locale)} What was written is saved.`;
}

/** That little is left. */
export function nearWords(budget: BudgetState, now?: number, locale?: string): string {
  const share = budget.most > 0 ? Math.max(1, Math.round((budget.left / budget.most) * 100)) : 0;
  return `About ${share} % of ${nameWords(budget.name)} is left.${whatNext({ ...budget, name: budget.resets ? budget.name : "" }, now, locale)}`;
}

/** For a server that says no more than how many milliseconds to wait. */
export function waitWords(ms: number | undefined, now = Date.now(), locale?: string): string {
  // A day is the most that it says.
  const isKnown = ms !== undefined && ms < DAY_MS - 60_000;
  const then = isKnown ? ` Try again ${momentWords((now + ms) / 1000, now, locale)}.` : "";
  return `Your budget is used up.${then}`;
}
