/* What a scripted run says, as the events of a run.

Always true: the events follow the order of the protocol (`ORDER`), whatever the script; ids, times
and cursors are the same in each run of the same script. */

import type { ErrorEvent, RunEvent } from "../core/events.generated.js";

/** Text that the model writes, or one of the pieces that the functions of this module make. */
export type Piece = string | Reasoning | Call | Failure | Pause | Events;

interface Reasoning {
  readonly kind: "reasoning";
  readonly text: string;
}
interface Call {
  readonly kind: "call";
  readonly name: string;
  readonly arguments: unknown;
  readonly options: CallOptions;
}
interface Failure {
  readonly kind: "failure";
  readonly message: string;
  readonly code: string;
}
interface Pause {
  readonly kind: "pause";
}
interface Events {
  readonly kind: "events";
  readonly events: readonly RunEvent[];
}

/** How a call of a tool goes on. */
export interface CallOptions {
  /** What the tool returns; `null` unless given. */
  result?: unknown;
  /** The tool fails with this text. */
  error?: string;
  /** A person must approve it first: the run waits for the decision. */
  needsApproval?: boolean;
  /** The page has the tool: the run waits for its result. */
  inPage?: boolean;
}

/** Reasoning that the model shows. */
export function reasoning(text: string): Piece {
  return { kind: "reasoning", text };
}

/** A call of the tool `name`. What follows in the script is the model's next step. */
export function call(name: string, args: unknown = {}, options: CallOptions = {}): Piece {
  return { kind: "call", name, arguments: args, options };
}

/** The provider fails here, in the middle of the answer; the run ends as `error`. */
export function failure(message = "the model is tired", code = "server_error"): Piece {
  return { kind: "failure", message, code };
}

/** The model is silent until `ScriptedServer.resume` is called: for tests of what is shown meanwhile. */
export function pause(): Piece {
  return { kind: "pause" };
}

/** Events of a run of your own, as they are: a script has this alone. Their order is not checked. */
export function events(list: readonly RunEvent[]): Piece {
  return { kind: "events", events: list };
}

/** What a run must wait for on its way. */
export interface Outside {
  /** Resolves when the test lets the model go on. */
  resumed(): Promise<void>;
  /** The decision about an approval, or the result of a tool of the page. */
  answer(id: string): Promise<Record<string, unknown>>;
  /** Whether somebody cancelled the run, and why. */
  cancelled(): { reason?: string } | undefined;
}

/** What each step uses. */
const USAGE = { input_tokens: 3, output_tokens: 5 };

/** Performs a script: `say` gets each event, without `seq`. */
export async function perform(
  script: readonly Piece[],
  run: { id: string; thread?: string; model?: string },
  say: (event: RunEvent) => void,
  outside: Outside,
): Promise<void> {
  const first = script[0];
  if (typeof first === "object" && first.kind === "events") {
    for (const event of first.events) say(event.type === "run-start" ? { ...event, run: run.id } : event);
    return;
  }
  await new Performance(run, say, outside).perform(script);
}

class Performance {
  #step = 0;
  #inStep = false;
  #part = -1;
  #calls = 0;
  /** The text part that is open, and its length so far. */
  #open: { kind: "text" | "reasoning"; size: number } | undefined;
  #pending: { id: string; call: Call }[] = [];

  constructor(
    readonly run: { id: string; thread?: string; model?: string },
    readonly say: (event: RunEvent) => void,
    readonly outside: Outside,
  ) {}

  async perform(script: readonly Piece[]): Promise<void> {
    const { id, thread, model = "scripted" } = this.run;
    const named = thread === undefined ? {} : { thread };
    this.say({ type: "run-start", run: id, time: 1795000000000, ...named, model });
    this.#beginStep();
    for (const piece of script) {
      if (this.#isCancelled()) return;
      const isCall = typeof piece === "object" && piece.kind === "call";
      if (this.#pending.length && !isCall && !(await this.#tools())) return;
      if (typeof piece === "string") this.#delta("text", piece);
      else if (piece.kind === "reasoning") this.#delta("reasoning", piece.text);
      else if (piece.kind === "call") this.#call(piece);
      else if (piece.kind === "pause") await this.outside.resumed();
      else if (piece.kind === "failure") return this.#fail(piece);
      else throw new TypeError("events(...) stands alone in its script");
      await Promise.resolve(); // readers take what was said
    }
    if (this.#isCancelled()) return;
    if (this.#pending.length && !(await this.#tools())) return;
    this.#endStep("stop");
    const usage = { input_tokens: USAGE.input_tokens * this.#step, output_tokens: USAGE.output_tokens * this.#step };
    this.say({ type: "run-end", outcome: "complete", usage });
  }

  #beginStep(): void {
    const model = this.run.model ?? "scripted";
    this.#inStep = true;
    this.say({ type: "step-start", step: ++this.#step, provider: "scripted", model });
  }

  #endStep(reason: "stop" | "tool_calls"): void {
    this.#endPart("complete");
    this.#inStep = false;
    this.say({ type: "finish", reason });
    this.say({ type: "usage", ...USAGE });
    this.say({ type: "step-end", step: this.#step, status: "complete", terminal_seen: true });
  }

  #delta(kind: "text" | "reasoning", text: string): void {
    if (this.#open?.kind !== kind) {
      this.#endPart("complete");
      this.#open = { kind, size: 0 };
      this.say({ type: `${kind}-start`, part: ++this.#part, step: this.#step });
    }
    if (!text) return;
    this.#open.size += [...text].length;
    this.say({ type: `${kind}-delta`, part: this.#part, text });
  }

  #endPart(status: "complete" | "truncated"): void {
    if (!this.#open) return;
    const { kind, size } = this.#open;
    this.#open = undefined;
    this.say({ type: `${kind}-end`, part: this.#part, ...(status === "complete" ? {} : { status }), size });
  }

  #call(piece: Call): void {
    this.#endPart("complete");
    const id = `call_${++this.#calls}`;
    const part = ++this.#part;
    const text = JSON.stringify(piece.arguments) ?? "null";
    const executor = piece.options.inPage ? ({ executor: "client" } as const) : {};
    this.say({ type: "tool-call-start", part, step: this.#step, name: piece.name, call_id: id, ...executor });
    const half = Math.ceil(text.length / 2);
    for (const delta of [text.slice(0, half), text.slice(half)]) {
      if (delta) this.say({ type: "tool-call-delta", part, text: delta });
    }
    this.say({ type: "tool-call-end", part, arguments: piece.arguments, size: [...text].length });
    this.#pending.push({ id, call: piece });
  }

  /** The calls of a step, then the next step; false where the run was cancelled. */
  async #tools(): Promise<boolean> {
    this.#endStep("tool_calls");
    for (const { id, call } of this.#pending.splice(0)) {
      let { name, arguments: args } = call;
      const { result = null, error, needsApproval, inPage } = call.options;
      if (needsApproval) {
        const approval = `ap_${id}`;
        this.say({ type: "approval-request", approval_id: approval, call_id: id, name, arguments: args });
        this.say({ type: "run-wait", reason: "approval", pending: [approval] });
        const answer = await this.outside.answer(approval);
        if (this.#isCancelled()) return false;
        const approved = answer.approved === true;
        const more = typeof answer.reason === "string" ? { reason: answer.reason } : {};
        this.say({ type: "approval-answer", approval_id: approval, call_id: id, approved, ...more });
        if (!approved) {
          this.say({ type: "tool-error", call_id: id, code: "denied", message: "a person denied this call", name });
          continue;
        }
        args = answer.arguments ?? args;
      }
      if (inPage) {
        this.say({ type: "run-wait", reason: "client_tool", pending: [id] });
        const answer = await this.outside.answer(id);
        if (this.#isCancelled()) return false;
        this.say({ type: "tool-result", call_id: id, content: answer.content ?? null, name });
        continue;
      }
      this.say({ type: "tool-start", call_id: id, name, step: this.#step, arguments: args });
      if (error !== undefined) this.say({ type: "tool-error", call_id: id, code: "failed", message: error, name });
      else this.say({ type: "tool-result", call_id: id, content: result, name });
    }
    this.#beginStep();
    return true;
  }

  #fail({ message, code }: Failure): void {
    const afterOutput = this.#part >= 0 ? { after_output: true } : {};
    this.#endPart("truncated");
    const error: ErrorEvent = { type: "error", scope: "provider", code, message, ...afterOutput };
    this.say(error);
    this.say({ type: "step-end", step: this.#step, status: "error" });
    this.say({ type: "run-end", outcome: "error", reason: code });
  }

  /** Whether the run was cancelled, which ends it here. */
  #isCancelled(): boolean {
    const cancel = this.outside.cancelled();
    if (!cancel) return false;
    const reason = cancel.reason === undefined ? {} : { reason: cancel.reason };
    this.say({ type: "control", command: "cancel", ...reason });
    if (this.#inStep) {
      this.#endPart("truncated");
      this.say({ type: "step-end", step: this.#step, status: "cancelled" });
    }
    this.say({ type: "run-end", outcome: "cancelled", ...reason });
    return true;
  }
}
