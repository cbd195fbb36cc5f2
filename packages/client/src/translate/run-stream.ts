/* A run told in the words of another client's stream, over any number of cuts.

Always true: what is told ends where the run ends, or where it waits for what nobody has answered;
after an answer the stream goes on behind what the client knows, from the same run. */

import type { TokenwireClient } from "../core/client.js";
import type { RunEvent } from "../core/events.generated.js";
import { asError } from "../core/errors.js";
import { offsetOf } from "../core/reader.js";
import { onAbort } from "../core/wait.js";
import type { Translation } from "./translation.js";

/** From where on a run is told, and which of its waits have their answer. */
export interface Place {
  /** Up to here the client knows the run. */
  known?: number;
  /** The client knows the run up to its wait for this. */
  knownWait?: string;
  /** Up to here only waits for `open` end what is told. */
  passed?: number;
  open?: Iterable<string>;
  /** These have their answer, also where a worker that takes the run over waits for them again. */
  answered?: Iterable<string>;
}

/** What is told of a run, event by event. */
export class RunStream<C> {
  /** Settles when everything up to `passed` was taken, or when nothing more comes. */
  readonly reached: Promise<void>;
  #reach!: () => void;
  #passed: number;
  #translation: Translation<C>;
  #at = 0;
  #known: number;
  #knownWait: string | undefined;
  #open: string[];

  constructor(place: Place, translate: (answered: (pending: string) => boolean) => Translation<C>) {
    this.#knownWait = place.knownWait;
    this.#known = this.#knownWait ? Infinity : (place.known ?? 0);
    this.#open = [...(place.open ?? [])];
    const passed = (this.#passed = place.passed ?? 0);
    this.reached = new Promise((reach) => (this.#reach = reach));
    if (!passed) this.#reach();
    const answered = new Set(place.answered);
    this.#translation = translate((name) => {
      if (this.#at <= this.#known || answered.has(name)) return true;
      return this.#at <= passed && !this.#open.includes(name);
    });
  }

  get ended(): boolean {
    return this.#translation.ended;
  }

  /** Nothing more comes. */
  over(): void {
    this.#reach();
  }

  take(event: RunEvent, offset: number): C[] {
    if (offset >= this.#passed) this.#reach();
    if (this.ended) return [];
    this.#at = offset;
    if (this.#knownWait && event.type === "run-wait" && event.pending.includes(this.#knownWait)) {
      this.#known = offset;
      this.#knownWait = undefined;
    }
    const chunks = this.#translation.take(event);
    if (offset > this.#known) return chunks;
    if (offset < this.#known) return [];
    const again = this.#translation.again();
    return this.#open.length ? [...again, ...this.#translation.wait(this.#open)] : again;
  }
}

/** The chunks of a run as they come. Ends on `signal`; then `onStop` is called, unless the end
 * was told. */
export async function* streamRun<C>(
  client: TokenwireClient,
  run: string,
  stream: RunStream<C>,
  signal: AbortSignal,
  onStop?: () => void,
): AsyncGenerator<C> {
  const life = new AbortController();
  let queue: C[] = [];
  let wake = () => {};
  const stop = () => {
    if (!stream.ended) onStop?.();
    life.abort();
  };
  const forget = onAbort(signal, stop);
  let over: { error?: unknown } | undefined;
  const reading = client.follow(run, {
    signal: life.signal,
    onEvents: (batch) => {
      for (const { event, cursor } of batch) queue.push(...stream.take(event, offsetOf(cursor)));
      if (stream.ended) life.abort();
      wake();
    },
  });
  void reading
    .then(
      () => (over = {}),
      (error: unknown) => (over = { error }),
    )
    .then(() => {
      stream.over();
      wake();
    });
  try {
    for (;;) {
      const batch = queue;
      queue = [];
      if (batch.length) yield* batch;
      else if (over) break;
      // Nothing may come between the look and the wait: even `yield*` of nothing takes a turn.
      else await new Promise<void>((go) => (wake = go));
    }
    if ("error" in over) throw over.error;
  } finally {
    forget();
    life.abort();
  }
}

/** What a client has for a run that waits: answers of a person, results of tools. */
export interface Answers {
  approval(name: string): { approved: boolean; reason?: string; arguments?: unknown } | undefined;
  /** Boxed, because a result may be anything. */
  result(name: string): { content: unknown } | undefined;
}

interface Snapshot {
  tail: number;
  waiting?: string[];
  tools?: { approval_id?: string; approved?: boolean }[];
}

/** Hands to `run` what it waits for, unless another tab has. Where to go on, or undefined when it
 * waits for none of it and never did. */
export async function answerRun(
  client: TokenwireClient,
  run: string,
  answers: Answers,
  signal?: AbortSignal,
): Promise<Place | undefined> {
  const { tail, waiting = [], tools = [] } = (await client.snapshot(run, signal)) as unknown as Snapshot;
  const approvals = new Set(tools.map(({ approval_id }) => approval_id));
  const left: string[] = [];
  const given: string[] = [];
  for (const name of waiting) {
    const answer = approvals.has(name) ? answers.approval(name) : undefined;
    const result = approvals.has(name) ? undefined : answers.result(name);
    if (answer) await firstCounts(client.approve(run, name, answer));
    else if (result) await firstCounts(client.answerTool(run, name, result.content));
    (answer || result ? given : left).push(name);
  }
  if (given.length) return { known: tail, open: left, answered: given };
  const decided = tools.flatMap(({ approval_id: name, approved }) =>
    name && approved !== undefined && answers.approval(name) ? [name] : [],
  );
  // A new run would have a call without a result, and call it again.
  return decided.length ? { knownWait: decided[decided.length - 1]!, answered: decided } : undefined;
}

/** An answer that came after another one: the first counts, and is what the run tells. */
async function firstCounts(answer: Promise<unknown>): Promise<void> {
  try {
    await answer;
  } catch (error) {
    if (asError(error).status !== 409) throw error;
  }
}
