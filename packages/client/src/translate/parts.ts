/* What a translation remembers of a run: its parts, what they used, and whether its end is one.
 *
 * Always true: a part's text is what its deltas said, until its end says otherwise. */

import type { RunEvent } from "../core/events.generated.js";

export type Of<T extends RunEvent["type"]> = Extract<RunEvent, { type: T }>;
export type Start = Extract<RunEvent, { type: `${string}-start`; part: number }>;
export type End = Extract<RunEvent, { type: `${string}-end`; part: number }>;

export interface Part {
  kind: string;
  callId: string;
  name: string;
  executor: string;
  text: string;
  /** How much of the text of a call was told. */
  sent: number;
  opened: boolean;
  payload: unknown;
  mediaType: string;
  url: string | undefined;
  /** Who speaks, where several agents do. */
  agent: { id: string; name?: string; parent?: string } | undefined;
  /** What came beside the text; what the provider must get back with it. */
  attrs: Record<string, unknown>;
}

/** What the starts of the several kinds tell, as far as it matters here. */
interface About {
  agent?: { id: string; name?: string; parent?: string };
  call_id?: string;
  name?: string;
  executor?: string;
  media_type?: string;
  url?: string;
  content?: unknown;
  payload?: unknown;
}

/** Parts whose text is shown as it grows. */
export const TEXT_KINDS = ["text", "refusal", "reasoning"];

/** The parts of a step. */
export class Parts {
  readonly open = new Set<number>();
  #known = new Map<number, Part>();

  /** A new step. */
  clear(): void {
    this.#known.clear();
    this.open.clear();
  }

  start(event: Start): Part {
    const about = event as About;
    const part: Part = {
      kind: event.type.slice(0, -"-start".length),
      callId: about.call_id ?? "",
      name: about.name ?? "",
      executor: about.executor ?? "server",
      text: "",
      sent: 0,
      opened: false,
      payload: about.content ?? about.payload,
      mediaType: about.media_type ?? "application/octet-stream",
      url: about.url,
      agent: about.agent,
      // Without a prototype: names come from outside.
      attrs: Object.create(null) as Record<string, unknown>,
    };
    this.#known.set(event.part, part);
    this.open.add(event.part);
    return part;
  }

  get(number: number): Part | undefined {
    return this.#known.get(number);
  }

  /** The part, while it may still grow. */
  growing(number: number): Part | undefined {
    return this.open.has(number) ? this.#known.get(number) : undefined;
  }

  end(number: number): Part | undefined {
    this.open.delete(number);
    return this.#known.get(number);
  }
}

/** The rest of a call's arguments that was not told yet. */
export function unsaid(part: Part): string {
  const rest = part.text.slice(part.sent);
  part.sent = part.text.length;
  return rest;
}

/** What the end of a text adds to its deltas; whether it contradicts them. */
export function atEnd(event: End, part: Part): { missing: string; fits: boolean } {
  const whole = event.text;
  const fits = whole === undefined || whole.startsWith(part.text);
  return { missing: whole !== undefined && fits ? whole.slice(part.text.length) : "", fits };
}

/** Tokens of a run, of all of its steps. */
export class Usage {
  #settled = new Map<string, number>();
  #step = new Map<string, number>();

  count(event: Of<"usage">): void {
    for (const [name, count] of Object.entries(event)) {
      if (!name.endsWith("_tokens") || typeof count !== "number") continue;
      const before = event.mode === "increment" ? (this.#step.get(name) ?? 0) : 0;
      this.#step.set(name, before + count);
    }
  }

  /** A step is over: the next one's counts are its own. */
  settle(): void {
    this.#settled = this.total();
    this.#step.clear();
  }

  /** The end of a run has the last word. */
  end({ usage }: Of<"run-end">): void {
    if (!usage || !Object.keys(usage).length) return;
    this.#settled = new Map(Object.entries(usage));
    this.#step.clear();
  }

  total(): Map<string, number> {
    const total = new Map(this.#settled);
    for (const [name, count] of this.#step) total.set(name, (total.get(name) ?? 0) + count);
    return total;
  }
}

/** Finish reasons after which an answer is not whole, although its wire ended in good order. */
const INCOMPLETE = ["length", "content_filter", "context_overflow", "malformed_tool_call", "pause"];
/** Finish reasons with which a provider reports that it failed. */
const FAILED = ["error", "cancelled", "malformed_tool_call"];
/** Reasons of an answer that a known limit ended. */
const CUT = ["length", "content_filter", "context_overflow", "refusal", "pause", "max_steps", "budget"];

/** `complete`: whole. `cut`: ended by a known limit. `failed`: an error to every reader. */
export type Ending = "complete" | "cut" | "cancelled" | "failed";

/** How a run ended; the same table as Python's `events/reasons.py`. */
export function endingOf(event: Of<"run-end">, finish: string, hasError: boolean): Ending {
  const { outcome, reason = "" } = event;
  if (outcome === "cancelled") return "cancelled";
  if (!["complete", "incomplete"].includes(outcome) || FAILED.includes(finish)) return "failed";
  if (outcome === "complete") return INCOMPLETE.includes(finish) ? "cut" : "complete";
  if (hasError) return "failed";
  return CUT.includes(reason) || CUT.includes(finish) ? "cut" : "failed";
}

/** The word for a cut answer: `length` for a limit of ours that these wires have no word for. */
export function cutReason(reason: string): string {
  return CUT.includes(reason) ? reason : "length";
}

export interface Failure {
  code: string;
  message: string;
}

/** Why a run that ended as `failed` has no answer; the same words as Python's `wire/failure.py`. */
export function failureOf(
  event: Of<"run-end">,
  finish: Of<"finish"> | undefined,
  error: Of<"error"> | undefined,
): Failure {
  if (error) return { code: error.code, message: error.message };
  if (finish && FAILED.includes(finish.reason)) {
    const { raw, reason, message } = finish;
    const text = message || `the provider ended the answer with '${raw || reason}'`;
    return { code: "provider_error", message: text };
  }
  const { outcome, reason } = event;
  return { code: outcome, message: `The answer ended early: ${reason || outcome}.` };
}

/** What a budget's event says of it. */
export function budgetOf({ name, unit, left, most, resets }: Of<"budget">): Record<string, unknown> {
  return clean({ name, unit, left, most, resets });
}

/** These wires have no null: a field that is not there is left out. */
export function clean(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  );
}
