/* A conversation that the server keeps, as requests: what is asked next, what was said, what waits.

Always true: only what is new is sent; a turn that is sent again after its answer was lost is one
turn; what is read of the queue is what every device sees. */

import { runId, threadPath, type RunInfo, type StartOptions, type TokenwireClient } from "../core/client.js";
import { asError } from "../core/errors.js";
import { again } from "../core/http.js";
import type { Message } from "./history.js";

/** What a turn does while another one of its conversation is under way. */
export type WhileBusy = "queue" | "reject" | "interrupt" | "steer" | "parallel";

/** The next turn: `prompt`, or the messages that are new; and the other fields of a start. */
export interface TurnRequest {
  prompt?: string;
  messages?: unknown[];
  /** The turn to continue, where it is not the newest one; empty: a beginning of its own. */
  parent?: string;
  /** The turn in whose place this one comes, as a branch; without a question that is answered
   * again. */
  replaces?: string;
  while_busy?: WhileBusy;
  /** How much the model is given: `all`, `last:TURNS`, `tokens:NUMBER`; the server's, unless
   * told. */
  history?: string;
  [field: string]: unknown;
}

/** A turn as the server took it: its run, or `queued` at a `position` (from 1) under the id that its
 * run will have, or `steering` where `run`, the answer under way, was given it as words. */
export interface SentTurn extends RunInfo {
  position?: number;
  run?: string;
}

/** A turn that was said. */
export interface StoredTurn {
  run: string;
  parent?: string;
  /** `running`, or how its run ended. */
  state: string;
  /** Unix seconds. */
  created: number;
  messages: Message[];
  /** Once it has ended. */
  answer: Message[];
}

export interface TurnPage {
  /** Oldest first. */
  turns: StoredTurn[];
  /** Pass as `before` for older ones, where there are any. */
  next?: string;
}

/** A turn that waits. */
export interface QueuedTurn {
  /** That of the run that it will be. */
  id: string;
  /** The beginning of what it asks. */
  text: string;
  by?: string;
  /** Unix seconds. */
  created: number;
  edits: number;
  /** The answer under way that was given it as words. */
  steers?: string;
}

/** A turn that waits, whole. */
export interface WaitingTurn extends QueuedTurn {
  position: number;
  messages: Message[];
}

export interface TurnQueue {
  queue: QueuedTurn[];
  /** The turn that the next one continues. */
  head?: string;
}

/** Whether a turn that was sent has its run. */
export function hasBegun({ state }: Pick<SentTurn, "state">): boolean {
  return state !== "queued" && state !== "steering";
}

/** Rejects with `TokenwireError`; of its codes, `thread_busy` says that the turn may not wait,
 * `history_conflict` that messages contradict the stored ones, `conflict` that a turn has begun. */
export class ThreadRequests {
  constructor(
    readonly client: Pick<TokenwireClient, "json" | "start">,
    readonly id: string,
  ) {
    threadPath(id);
  }

  send(turn: TurnRequest, options?: StartOptions): Promise<SentTurn> {
    const { parent, replaces } = turn;
    for (const run of [parent, replaces]) if (run) runId(run);
    return this.client.start({ history: "thread", ...turn, thread: this.id }, options) as Promise<SentTurn>;
  }

  turns(options: { limit?: number; before?: string; signal?: AbortSignal } = {}): Promise<TurnPage> {
    const { limit = 50, before, signal } = options;
    const query = `?limit=${Math.trunc(limit)}${before ? `&before=${runId(before)}` : ""}`;
    return again(() => this.json("GET", `/turns${query}`, undefined, signal), signal) as Promise<TurnPage>;
  }

  queue(signal?: AbortSignal): Promise<TurnQueue> {
    return again(() => this.json("GET", "/queue", undefined, signal), signal) as Promise<TurnQueue>;
  }

  waiting(turn: string, signal?: AbortSignal): Promise<WaitingTurn> {
    return again(() => this.json("GET", entryPath(turn), undefined, signal), signal) as Promise<WaitingTurn>;
  }

  /** The branch that ends with this turn counts, on every device. */
  setHead(run: string): Promise<TurnQueue> {
    return again(() => this.json("PUT", "/head", { run: runId(run) })) as Promise<TurnQueue>;
  }

  /** Another question in the place of that of a turn that waits: a text, or messages. */
  edit(turn: string, question: string | unknown[]): Promise<TurnQueue> {
    const body = typeof question === "string" ? { prompt: question } : { messages: question };
    return again(() => this.json("PUT", entryPath(turn), body)) as Promise<TurnQueue>;
  }

  async withdraw(turn: string): Promise<TurnQueue> {
    return ((await this.#command("DELETE", entryPath(turn), 404)) as TurnQueue | null) ?? this.queue();
  }

  /** Stops the answer under way, and answers this turn. */
  async sendNow(turn: string): Promise<SentTurn> {
    const sent = await this.#command("POST", `${entryPath(turn)}/now`, 409);
    return (sent ?? (await again(() => this.client.json("GET", `/v1/runs/${runId(turn)}/info`)))) as SentTurn;
  }

  /** Null for one that took effect before its answer was lost: `effected` is then its refusal. */
  #command(method: string, path: string, effected: number): Promise<unknown> {
    let isLost = false;
    return again(async () => {
      try {
        return await this.json(method, path);
      } catch (error) {
        if (isLost && asError(error).status === effected) return null;
        isLost = true;
        throw error;
      }
    });
  }

  /** One request to a path of this conversation. */
  protected json(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<unknown> {
    return this.client.json(method, threadPath(this.id) + path, body, signal);
  }
}

function entryPath(turn: string): string {
  return `/queue/${runId(turn)}`;
}
