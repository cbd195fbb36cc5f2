/* What the events of a conversation amount to: pure.

Always true: the view after an event depends on the events up to it alone, and on the snapshot that
they follow; one that was told twice changes nothing; what no event touched is the same object. */

import type { TokenwireError } from "../core/errors.js";
import type { RunEvent } from "../core/events.generated.js";
import { Fold, type RunState } from "../core/fold.js";
import type { FeedOutcome, FeedTurn, MemberRole, RunningTurn, ThreadEvent } from "./events.js";

export interface ThreadState {
  /** Whether the snapshot was read: before, the rest says nothing. */
  isKnown: boolean;
  title: string | null;
  /** The run that the next turn continues. */
  head: string | null;
  /** The turns that wait, in the order in which they will be answered. */
  queue: FeedTurn[];
  running: RunningTurn[];
  /** The newest turns, oldest first. */
  turns: FeedOutcome[];
  /** Roles by ids; null where nobody was let in. */
  members: Record<string, MemberRole> | null;
  /** Who has it open. */
  presence: string[];
  /** Who types, and when they said so last (of the clock of this machine). */
  typing: Record<string, number>;
  /** What the runs say that are followed, with `runs`. */
  runs: ReadonlyMap<string, RunState>;
}

/** What a hook or a store shows. */
export interface ThreadView extends Omit<ThreadState, "typing"> {
  status: "idle" | "connecting" | "live" | "reconnecting" | "failed";
  /** Why the reading failed for good, or what the last cut was. */
  error?: TokenwireError;
  /** Who types. */
  typing: string[];
}

export const NOTHING: ThreadState = {
  isKnown: false,
  title: null,
  head: null,
  queue: [],
  running: [],
  turns: [],
  members: null,
  presence: [],
  typing: {},
  runs: new Map(),
};

/** The newest turns, and runs that have ended, that a view holds. */
const MOST_TURNS = 20;

export class ThreadFold {
  state = NOTHING;
  #folds = new Map<string, Fold>();

  apply(event: ThreadEvent, now: number): void {
    const before = this.state;
    if (event.type === "run-event") return this.#applyRun(event.run, event.event);
    const { [event.by ?? ""]: _, ...others } = before.typing;
    // Who did something has typed it.
    const typing = event.by && event.by in before.typing ? others : before.typing;
    this.state = { ...before, typing, ...changeOf(event, before, now) };
    if (event.type === "reset") this.#folds.clear();
    if (event.type === "run-reset" || event.type === "run-erased") this.#forget(event.run);
    if (event.type === "run-ended") this.#bound();
  }

  #applyRun(run: string, event: RunEvent): void {
    let fold = this.#folds.get(run);
    if (!fold) this.#folds.set(run, (fold = new Fold()));
    fold.apply(event);
    this.state = { ...this.state, runs: new Map(this.state.runs).set(run, fold.state) };
  }

  #forget(run: string): void {
    this.#folds.delete(run);
    const runs = new Map(this.state.runs);
    if (runs.delete(run)) this.state = { ...this.state, runs };
  }

  /** The oldest of those that have ended go. */
  #bound(): void {
    const { running } = this.state;
    const ended = [...this.#folds.keys()].filter((run) => running.every((one) => one.run !== run));
    for (const run of ended.slice(0, -MOST_TURNS)) this.#forget(run);
  }
}

function changeOf(event: ThreadEvent, before: ThreadState, now: number): Partial<ThreadState> {
  switch (event.type) {
    case "snapshot": {
      const { title, head, queue, running, turns, members } = event;
      return { isKnown: true, title, head, queue, running, turns, members };
    }
    case "reset": // what is shown stays until the snapshot is here
      return { runs: NOTHING.runs };
    case "run-started": {
      const { run, parent = null, by, at } = event;
      return {
        running: [...without(before.running, "run", run), { run, parent, by, at }],
        turns: [...without(before.turns, "run", run), { run, state: "running" }].slice(-MOST_TURNS),
        head: run,
        queue: placed(without(before.queue, "turn", run)),
      };
    }
    case "run-waiting":
      return { running: changed(before.running, event.run, { state: "waiting", approvals: event.approvals }) };
    case "run-resumed":
      return { running: changed(before.running, event.run, { state: "running", approvals: [] }) };
    case "run-ended":
      return {
        running: without(before.running, "run", event.run),
        turns: changed(before.turns, event.run, { state: event.outcome }),
      };
    case "run-erased":
      return {
        running: without(before.running, "run", event.run),
        turns: without(before.turns, "run", event.run),
      };
    case "turn-queued":
    case "turn-changed":
    case "turn-steering":
      return { queue: put(before.queue, event) };
    case "turn-withdrawn":
    case "turn-steered":
      return { queue: placed(without(before.queue, "turn", event.turn)) };
    case "head":
      return { head: event.run };
    case "title":
      return { title: event.title };
    case "member-joined":
    case "member-changed":
      return { members: { ...before.members, [event.principal]: event.role } };
    case "member-left": {
      const { [event.principal]: _, ...members } = before.members ?? {};
      return { members: before.members && members };
    }
    case "presence":
      return { presence: event.principals };
    case "typing":
      return event.by ? { typing: { ...before.typing, [event.by]: now } } : {};
    default:
      return {};
  }
}

function without<K extends string, T extends Record<K, unknown>>(list: T[], key: K, value: string): T[] {
  return list.some((one) => one[key] === value) ? list.filter((one) => one[key] !== value) : list;
}

function changed<T extends { run: string }>(list: T[], run: string, change: Partial<T>): T[] {
  return list.map((one) => (one.run === run ? { ...one, ...change } : one));
}

type Put = Extract<ThreadEvent, { type: "turn-queued" | "turn-changed" | "turn-steering" }>;

function put(queue: FeedTurn[], event: Put): FeedTurn[] {
  const { type, turn, position, by, edits } = event;
  const before = queue.find((one) => one.turn === turn);
  if (type === "turn-changed" && !before) return queue;
  const entry: FeedTurn = { ...before, turn, position, edits: edits ?? before?.edits ?? 0 };
  entry.by = before?.by ?? by;
  if (type === "turn-steering") entry.run = event.run;
  if (before && before.edits !== entry.edits) delete entry.text; // it says something else now
  const rest = without(queue, "turn", turn);
  return placed([...rest.slice(0, position - 1), entry, ...rest.slice(position - 1)]);
}

function placed(queue: FeedTurn[]): FeedTurn[] {
  return queue.map((one, at) => (one.position === at + 1 ? one : { ...one, position: at + 1 }));
}
