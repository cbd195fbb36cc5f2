/* Events to the state of a run so far; the same reading as Python's `events/fold.py`.

Always true: a published state never changes again, and what an event did not touch is the same
object in the next state, so a renderer compares by identity; names and ids that a model made up
are keys of a `Map` or of an object without a prototype, never of a plain object. */

import { bare, patched } from "./json-patch.js";
import type { ControlEvent, DataEvent, ErrorEvent, FinishEvent, RunBudgetEvent, RunEvent, StepResetEvent } from "./events.generated.js";

/** Who speaks or works; with a `parent`, on behalf of another agent. */
export interface Agent {
  id: string;
  name?: string;
  parent?: string;
}

export interface PartState {
  part: number;
  /** text, reasoning, refusal, tool-call, provider-result, file, opaque */
  kind: string;
  step: number;
  choice: number;
  text: string;
  /** open, complete, truncated, invalid, discarded */
  status: string;
  /** What its start, attributes and end told: name, call_id, citations, arguments, ... */
  attrs: Record<string, unknown>;
  /** Who speaks, in a run of several agents; with `parent` it is not the answer itself. */
  agent?: Agent;
}

export interface StepState {
  step: number;
  /** model: a call of a model; agent: what an agent says itself; task: its work, without parts. */
  kind: string;
  name?: string;
  /** Whose work it is, in a run of several agents. */
  agent?: Agent;
  attempt: number;
  dialect?: string;
  provider?: string;
  model?: string;
  parts: PartState[];
  finish?: Partial<FinishEvent>;
  usage: Record<string, number>;
  status: string;
  /** What people said after its calls, while the answer was written: `id` of the turn, `text`. */
  steers?: ControlEvent[];
  /** Its provider keeps the response. */
  resumable?: boolean;
}

export interface ToolState {
  call_id: string;
  name: string;
  started: boolean;
  done: boolean;
  content?: unknown;
  /** The code of its failure; `content` is then the message. */
  error?: string;
  output: string;
  fraction?: number;
  progress?: string;
  approval_id?: string;
  approved?: boolean;
  approval_arguments?: unknown;
  approval_reason?: string;
}

/** A fact of the application; one with an `id` replaces that of the same name and id. */
export interface DataState {
  name: string;
  id: string | undefined;
  payload: unknown;
}

export interface RunState {
  run: string;
  thread?: string;
  model?: string;
  metadata?: Record<string, unknown>;
  time: number;
  seq: number;
  steps: StepState[];
  /** Tokens of attempts that were started again. */
  spent: Record<string, number>;
  /** An attempt was lost before its provider counted its tokens; at the end, that the run cost more
   * than `usageOf` says, or may have. */
  usage_unknown: boolean;
  tools: ReadonlyMap<string, ToolState>;
  /** In the order of their first values. */
  data: readonly DataState[];
  /** The state that an agent shares. */
  shared?: unknown;
  progress?: { fraction?: number; message?: string };
  /** The budget that is nearly used up, or that ended the run. */
  budget?: Partial<RunBudgetEvent>;
  error?: Partial<ErrorEvent>;
  waiting: string[];
  cancel_requested: boolean;
  outcome?: string;
  end_reason?: string;
}

const PART =
  /^(text|reasoning|refusal|tool-call|provider-result|file|opaque)-(start|delta|end)$/;

export function emptyRun(): RunState {
  return {
    run: "",
    time: 0,
    seq: 0,
    steps: [],
    spent: {},
    usage_unknown: false,
    tools: new Map(),
    data: [],
    waiting: [],
    cancel_requested: false,
  };
}

/** Builds the states of one run. `apply` events in order, then take `state`. */
export class Fold {
  #state = emptyRun();
  /** What was copied since the last `state`: only these may be written to. */
  #fresh = new Set<object>();
  /** part -> [index of its step, index in it] */
  #where = new Map<number, [number, number]>();

  /** The state so far; it stays as it is. */
  get state(): RunState {
    this.#fresh.clear();
    return this.#state;
  }

  apply(event: RunEvent): void {
    const run = this.#own(this.#state, (copy) => (this.#state = copy));
    if (event.seq) run.seq = event.seq;
    switch (event.type) {
      case "run-start":
        run.run = event.run;
        run.time = event.time ?? 0;
        copy(event, run, "thread", "model", "metadata");
        break;
      case "run-end":
        run.outcome = event.outcome;
        set(run, "end_reason", event.reason);
        run.usage_unknown = event.usage_unknown ?? false;
        run.waiting = [];
        break;
      case "run-wait":
        run.waiting = event.pending;
        break;
      case "step-start": {
        run.waiting = [];
        let index = run.steps.findIndex((step) => step.step === event.step);
        if (index < 0) index = this.#newStep(event.step);
        const step = this.#step(index);
        step.attempt = event.attempt ?? 1;
        step.kind = event.kind ?? "model";
        copy(event, step, "name", "agent", "provider", "dialect", "model");
        break;
      }
      case "response-start":
        if (event.model) this.#lastStep().model = event.model;
        this.#lastStep().resumable = event.resumable ?? false;
        break;
      case "step-end": {
        const index = run.steps.findLastIndex((step) => step.step === event.step);
        (index < 0 ? this.#lastStep() : this.#step(index)).status = event.status;
        break;
      }
      case "step-reset":
        this.#reset(event);
        break;
      case "usage": {
        const step = this.#lastStep();
        const usage = { ...step.usage };
        for (const [name, count] of Object.entries(event)) {
          if (!name.endsWith("_tokens")) continue;
          usage[name] = event.mode === "increment" ? (usage[name] ?? 0) + count : count;
        }
        step.usage = usage;
        break;
      }
      case "finish":
        if (!event.choice) this.#lastStep().finish = without(event);
        break;
      case "part-attr":
        this.#attr(event.part, event.name, event.value);
        break;
      case "control":
        if (event.command === "cancel") run.cancel_requested = true;
        else if (
          event.id !== undefined &&
          event.text !== undefined &&
          run.steps.some(({ kind }) => kind !== "task")
        ) {
          this.#lastStep().steers = [...(this.#lastStep().steers ?? []), event];
        }
        break;
      case "data":
        this.#data(event);
        break;
      case "state":
        set(run, "shared", patched(run.shared, event.snapshot, event.patch));
        break;
      case "error":
      case "progress":
      case "budget":
        (run as unknown as Record<string, unknown>)[event.type] = without(event);
        break;
      default:
        if ("part" in event) this.#part(event as AnyPart);
        else if ("call_id" in event) this.#toolEvent(event as ToolEvent);
    }
  }

  #own<T extends object>(value: T, put: (copy: T) => void): T {
    if (this.#fresh.has(value)) return value;
    const copy = (Array.isArray(value) ? [...value] : { ...value }) as T;
    this.#fresh.add(copy);
    put(copy);
    return copy;
  }

  #data({ name, id, payload = null, transient }: DataEvent): void {
    if (transient) return; // for those who listen now
    const data = this.#own(this.#state.data as DataState[], (copy) => (this.#state.data = copy));
    const at = id === undefined ? -1 : data.findIndex((one) => one.id === id && one.name === name);
    data.splice(at < 0 ? data.length : at, 1, { name, id, payload });
  }

  #newStep(number: number): number {
    const steps = this.#own(this.#state.steps, (copy) => (this.#state.steps = copy));
    return steps.push({ step: number, kind: "model", attempt: 1, parts: [], usage: {}, status: "open" }) - 1;
  }

  #step(index: number): StepState {
    const steps = this.#own(this.#state.steps, (copy) => (this.#state.steps = copy));
    return this.#own(steps[index]!, (copy) => (steps[index] = copy));
  }

  /** The newest step that may hold parts. */
  #last(): number {
    const index = this.#state.steps.findLastIndex((step) => step.kind !== "task");
    return index < 0 ? this.#newStep(1) : index;
  }

  #lastStep(): StepState {
    return this.#step(this.#last());
  }

  #reset(event: StepResetEvent): void {
    const discard = event.discard_parts ?? [];
    const index = this.#state.steps.findIndex((step) => step.step === event.step);
    if (index < 0) return;
    const step = this.#step(index);
    const gone = discard.length ? discard : step.parts.map(({ part }) => part);
    const keeps = ({ part }: PartState) => !gone.includes(part);
    this.#state.steps.forEach(({ parts }, number) => {
      if (parts.every(keeps)) return; // (a reset may name a part of another step)
      const other = this.#step(number);
      other.parts = parts.filter(keeps);
      other.parts.forEach((part, at) => this.#where.set(part.part, [number, at]));
    });
    gone.forEach((part) => this.#where.delete(part));
    if (!step.resumable) {
      // Paid for all the same; a response that its provider keeps is read again, and counted then.
      const run = this.#state;
      run.usage_unknown ||= event.reason !== "refused" && step.kind === "model" && !Object.keys(step.usage).length;
      run.spent = sum(run.spent, step.usage);
    }
    step.usage = {};
    step.status = "open";
    delete step.finish;
  }

  #open(number: number): PartState | undefined {
    const where = this.#where.get(number);
    if (!where) return undefined;
    const step = this.#step(where[0]);
    if (step.parts[where[1]]?.part !== number) return undefined;
    const parts = this.#own(step.parts, (copy) => (step.parts = copy));
    return this.#own(parts[where[1]]!, (copy) => (parts[where[1]] = copy));
  }

  #part(event: AnyPart): void {
    const [, kind, moment] = PART.exec(event.type) ?? [];
    if (!kind) return; // of a newer version
    if (moment === "start") {
      const step = this.#lastStep();
      const parts = this.#own(step.parts, (copy) => (step.parts = copy));
      const { part, step: number = 0, choice = 0, agent } = event;
      const attrs = bare(without(event, "part", "step", "choice", "agent"));
      this.#where.set(part, [this.#last(), parts.length]);
      const state: PartState = { part, kind, step: number, choice, text: "", status: "open", attrs };
      if (agent) state.agent = agent;
      parts.push(state);
      return;
    }
    const part = this.#open(event.part);
    if (!part) return;
    if (moment === "delta") part.text += event.text ?? "";
    else if (moment === "end") {
      part.status = event.status ?? "complete";
      part.text = event.text ?? part.text;
      for (const name of ["arguments", "error", "content"] as const) {
        if (event[name] !== undefined) describe(part, name, event[name]);
      }
    }
  }

  #attr(number: number, name: string, value: unknown): void {
    const part = this.#open(number);
    if (!part) return;
    const old = part.attrs;
    // What is of another kind than its attribute's is replaced.
    const items = (from: unknown) => (Array.isArray(from) ? (from as unknown[]) : []);
    const fields = (from: unknown) => typeof from === "object" && !Array.isArray(from) && from;
    if (name === "citation") describe(part, "citations", [...items(old.citations), value]);
    else if (name === "logprobs" && Array.isArray(value)) {
      describe(part, name, [...items(old[name]), ...items(value)]);
    } else if (name === "meta" && fields(value)) {
      describe(part, name, { ...fields(old[name]), ...fields(value) });
    } else describe(part, name === "tool_name" ? "name" : name, value);
  }

  #toolEvent(event: ToolEvent): void {
    const run = this.#state;
    const tool: ToolState = {
      ...{ call_id: event.call_id, name: "", started: false, done: false, output: "" },
      ...run.tools.get(event.call_id),
    };
    if ("name" in event && event.name) tool.name = event.name;
    switch (event.type) {
      case "tool-start":
        tool.started = true;
        break;
      case "tool-progress":
        set(tool, "fraction", event.fraction);
        set(tool, "progress", event.message);
        break;
      case "tool-output":
        tool.output += event.text;
        break;
      case "tool-result":
      case "tool-error": {
        const failed = "code" in event;
        tool.done = true;
        tool.content = failed ? event.message : event.content;
        if (failed) tool.error = event.code;
        this.#settled(event.call_id);
        break;
      }
      case "approval-request":
        tool.approval_id = event.approval_id;
        tool.approval_arguments = event.arguments;
        set(tool, "approval_reason", event.reason);
        break;
      case "approval-answer":
        if (tool.approved === undefined) {
          tool.approved = event.approved; // the first answer wins
          set(tool, "approval_reason", event.reason);
          if (event.arguments !== undefined) tool.approval_arguments = event.arguments;
        }
        this.#settled(event.approval_id);
        break;
    }
    run.tools = new Map(run.tools).set(event.call_id, tool);
  }

  #settled(name: string): void {
    const run = this.#state;
    if (run.waiting.includes(name)) run.waiting = run.waiting.filter((item) => item !== name);
  }
}

type ToolEvent = Extract<RunEvent, { call_id: string }> & { part?: never };
interface AnyPart {
  type: string;
  part: number;
  step?: number;
  choice?: number;
  agent?: PartState["agent"];
  text?: string;
  status?: string;
  arguments?: unknown;
  error?: unknown;
  content?: unknown;
}

function describe(part: PartState, name: string, value: unknown): void {
  part.attrs = bare(part.attrs);
  part.attrs[name] = value;
}

/** Fields by the same names; one that the event does not have is dropped. */
function copy<K extends string>(
  event: { [name in K]?: unknown },
  target: { [name in K]?: unknown },
  ...names: K[]
): void {
  for (const name of names) set(target, name, event[name]);
}

function set<T extends object, K extends keyof T>(target: T, key: K, value: T[K]): void {
  if (value === undefined) delete target[key];
  else target[key] = value;
}

function without<T extends object>(event: T, ...more: string[]): Partial<T> {
  const left = ["type", "seq", "t", ...more];
  return Object.fromEntries(
    Object.entries(event).filter(([name]) => !left.includes(name)),
  ) as Partial<T>;
}

// --- reading a state ------------------------------------------------------------------------

/** `running`, `waiting`, or how it ended. */
export function stateOf(run: RunState): string {
  return run.outcome ?? (run.waiting.length ? "waiting" : "running");
}

/** All text of the first choice; of the root agent, where there are several. */
export function textOf(run: RunState): string {
  return run.steps
    .flatMap((step) => step.parts)
    .filter((part) => part.kind === "text" && part.choice === 0 && part.agent?.parent === undefined)
    .map((part) => part.text)
    .join("");
}

/** Token counts summed over the steps and over all of their attempts, where known. */
export function usageOf(run: RunState): Record<string, number> {
  return run.steps.reduce((total, { usage }) => sum(total, usage), run.spent);
}

function sum(total: Record<string, number>, more: Record<string, number>): Record<string, number> {
  const found = { ...total };
  for (const [name, count] of Object.entries(more)) found[name] = (found[name] ?? 0) + count;
  return found;
}

/** Why the last step's model stopped, in our word. */
export function finishReasonOf(run: RunState): string | undefined {
  return run.steps.findLast((step) => step.finish)?.finish?.reason;
}
