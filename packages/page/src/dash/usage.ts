/* What principals and tenants used, as the server says it, and how a person reads it.

Always true: tokens without a price make a cost unknown, and are shown beside it; nothing unknown is
shown as nothing. */

export interface ModelUsage {
  calls: number;
  input_tokens?: number;
  output_tokens?: number;
  unsplit_tokens?: number;
  unreported_calls?: number;
  unpriced_tokens?: number;
  /** Beside the others: what no provider has reported, and what it may have cost. */
  estimated_tokens?: number;
  estimated_cost?: number;
  cost: number | null;
  known_cost: number;
}

export interface BudgetLeft {
  name: string;
  unit: "tokens" | "dollars";
  left: number;
  most: number;
  resets?: number;
}

export interface OwnerUsage {
  owner: string | null;
  tenant?: string;
  day: ModelUsage;
  month: ModelUsage;
  budgets?: BudgetLeft[];
}

export interface OwnerPage {
  day: string;
  today: string;
  zone: string;
  prices: string | null;
  owners: OwnerUsage[];
  next: string | null;
}

/** The share of a budget from which on it is near its end. */
const NEAR = 0.8;

export function tokensOf(usage: ModelUsage): number {
  const reported = (usage.input_tokens ?? 0) + (usage.output_tokens ?? 0) + (usage.unsplit_tokens ?? 0);
  return reported + (usage.estimated_tokens ?? 0);
}

/** `12.5k`, with `≈` where some of it is an estimate. */
export function tokensText(usage: ModelUsage): string {
  const text = tokensOf(usage).toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
  return usage.estimated_tokens ? `≈ ${text}` : text;
}

export function dollars(amount: number): string {
  const places = amount === 0 || amount >= 1 ? 2 : amount >= 0.01 ? 3 : 6;
  return `$${amount.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: places })}`;
}

/** What is known of a cost, and that there is more where that is so. */
export function costText(usage: ModelUsage): string {
  const [amount, estimated] = [usage.known_cost + (usage.estimated_cost ?? 0), usage.estimated_tokens ?? 0];
  const isWhole = usage.cost !== null || (!usage.unpriced_tokens && estimated > 0 && !!usage.estimated_cost);
  const text = `${estimated ? "≈ " : ""}${dollars(amount)}`;
  if (isWhole) return text;
  return amount > 0 ? `${text} + unknown` : "unknown";
}

/** Why a cost is unknown or estimated; empty where it is known. */
export function whyUnknown(usage: ModelUsage): string {
  const reasons: string[] = [];
  const [tokens, calls, estimated] = [usage.unpriced_tokens ?? 0, usage.unreported_calls ?? 0, usage.estimated_tokens ?? 0];
  if (tokens) reasons.push(`${tokens.toLocaleString("en")} tokens without a price`);
  if (calls) reasons.push(`${calls.toLocaleString("en")} calls whose tokens were not reported`);
  if (estimated) reasons.push(`${estimated.toLocaleString("en")} tokens estimated`);
  return reasons.join(", ");
}

export function nameOf({ owner, tenant }: OwnerUsage): string {
  const name = owner === null ? "(older than names)" : owner || "everybody (no keys)";
  return tenant ? `${tenant} / ${name}` : name;
}

export type Nearness = "ok" | "near" | "over";

export function nearness({ left, most }: BudgetLeft): Nearness {
  if (left <= 0) return "over";
  return most - left >= most * NEAR ? "near" : "ok";
}

/** `1,200 of 200,000 tokens left`. */
export function leftText({ left, most, unit }: BudgetLeft): string {
  if (unit === "dollars") return `${dollars(left)} of ${dollars(most)} left`;
  return `${left.toLocaleString("en")} of ${most.toLocaleString("en")} tokens left`;
}

/** Those whose money or tokens matter most first. */
export function ranked(owners: OwnerUsage[]): OwnerUsage[] {
  return [...owners].sort(
    (a, b) => b.month.known_cost - a.month.known_cost || tokensOf(b.month) - tokensOf(a.month) || nameOf(a).localeCompare(nameOf(b)),
  );
}

/** The budgets that are near or used up, the nearest first. */
export function pressing(owners: OwnerUsage[]): { who: string; budget: BudgetLeft }[] {
  const all = owners.flatMap((owner) => (owner.budgets ?? []).map((budget) => ({ who: nameOf(owner), budget })));
  const share = ({ left, most }: BudgetLeft) => (most ? left / most : 0);
  return all.filter(({ budget }) => nearness(budget) !== "ok").sort((a, b) => share(a.budget) - share(b.budget));
}
