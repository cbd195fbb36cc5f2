/* A connection for TanStack AI's `ChatClient` and its `useChat`: the cursor and the reconnecting are
inside, so that the client reads one continuous stream whatever happens to the connection below.

Always true: an answer to an interrupt goes to the run that asked, and the same run goes on; only
a question starts a run. A client's `stop()`, its `detach()` and a page that goes away look the same
from here, so they only end the reading unless `onAbort` says otherwise; `stop` of this connection
is the command that ends the run. */

import type {
  ConnectConnectionAdapter,
  ResumableConnectConnectionAdapter,
  RunAgentInputContext,
} from "@tanstack/ai-client";
import { AGUIFold, type AGUIOptions } from "./event-fold.js";
import { randomId, type RunInfo, TokenwireClient, type ClientOptions } from "../core/client.js";
import type { RunEvent } from "../core/events.generated.js";
import type { Message } from "../state/history.js";
import { asError, TokenwireError } from "../core/errors.js";
import { orAborted, StoppableRun, untilAnswered } from "../core/stop.js";
import { onAbort } from "../core/wait.js";
import { type Asked, fromMessages, resultsIn, toMessages } from "./tanstack-messages.js";
import { answerRun, type Answers, type Place, streamRun, RunStream } from "../translate/run-stream.js";

type Chunk = ReturnType<ConnectConnectionAdapter["connect"]> extends AsyncIterable<infer C> ? C : never;
type Hydration = Awaited<ReturnType<NonNullable<ConnectConnectionAdapter["hydrate"]>>>;

export interface ConnectionOptions extends ClientOptions {
  client?: TokenwireClient;
  model?: string;
  system?: string;
  /** More fields of every start. */
  request?: Record<string, unknown>;
  /** What an aborted request of the chat client does to the run: nothing (the default), or
   * end it. */
  onAbort?: "detach" | "cancel";
}

interface Snapshot extends RunInfo {
  tail: number;
  input?: Message[];
  messages?: Message[];
  waiting?: string[];
}

/** The client's own names, and the messages that it holds. */
type Names = Pick<AGUIOptions, "threadId" | "runId" | "history">;

const ENDED = ["complete", "incomplete", "cancelled", "error", "interrupted"];
/** Where a page that is loaded again finds which run its client's own id stands for. */
const KEPT = "tokenwire:run:";

export class TokenwireConnection implements ResumableConnectConnectionAdapter {
  readonly #client: TokenwireClient;
  /** thread -> the run that it starts, reads or waits with */
  #current = new Map<string, StoppableRun>();

  constructor(readonly options: ConnectionOptions = {}) {
    this.#client = options.client ?? new TokenwireClient({ ...options, shareTabs: false });
  }

  /** Asks, or answers what a run of the thread waits for, and reads what follows. */
  connect = (
    messages: Asked,
    data?: Record<string, unknown>,
    abortSignal?: AbortSignal,
    context?: RunAgentInputContext,
  ): AsyncIterable<Chunk> => {
    const { threadId = randomId(), runId = randomId() } = context ?? {};
    const going = async function* (this: TokenwireConnection) {
      const signal = abortSignal ?? new AbortController().signal;
      let place: Place = {};
      const current = this.#begin(threadId, async (giveUp) => {
        const waiting = await this.#goOn(messages, threadId, context, signal);
        if (!waiting) return this.#start(messages, data, threadId, runId, context, giveUp);
        place = waiting.place;
        return waiting.run;
      });
      const forgetAbort = onAbort(signal, () => this.#aborted(current));
      let run: string;
      try {
        run = await orAborted(current.started, signal);
      } finally {
        forgetAbort();
      }
      keep(runId, run);
      const names = { threadId, runId, history: messages };
      yield* this.#read(run, names, place, signal, () => this.#aborted(current));
      if (!signal.aborted) this.#ended(threadId, current);
      forget(runId);
    };
    return going.call(this);
  };

  /** The run from its start, for a page that joins. `runId`: ours, or one that this browser's
   * client gave. Rejects when it is neither. */
  joinRun = (runId: string, abortSignal?: AbortSignal): AsyncIterable<Chunk> => {
    const joining = async function* (this: TokenwireConnection) {
      const signal = abortSignal ?? new AbortController().signal;
      const run = kept(runId) ?? runId;
      const { tail, thread, input, waiting } = await this.#info(run, signal);
      const current = this.#underWay(thread ?? run, run);
      const history = fromMessages(input ?? [], run);
      const place = { passed: tail, open: waiting ?? [] };
      yield* this.#read(run, { runId, history }, place, signal, () => this.#aborted(current));
      if (!signal.aborted) this.#ended(thread ?? run, current);
      forget(runId);
    };
    return joining.call(this);
  };

  /** The conversation so far, the run that is under way, and what it waits for. */
  hydrate = async (threadId: string): Promise<Hydration> => {
    const nothing = { messages: [], activeRun: null, interrupts: null };
    const newest = (await this.#runs(threadId))[0];
    if (!newest) return nothing;
    const info = await this.#info(newest.id);
    const { input = [], messages = [], waiting = [], state } = info;
    if (!ENDED.includes(state)) this.#underWay(threadId, newest.id);
    const active = !waiting.length && !ENDED.includes(state);
    // A run under way is joined from its start; told here as well, its answer would stand twice.
    const shown = fromMessages([...input, ...(active ? [] : messages)], newest.id);
    return {
      messages: shown,
      activeRun: active ? { runId: newest.id } : null,
      interrupts: waiting.length
        ? { runId: newest.id, pending: await this.#pending(newest.id, waiting) }
        : null,
    };
  };

  /** Ends the thread's run, or all that this connection reads; readers see it end as cancelled.
   * Also a run that is only being started, or that another page started. Waits for the network
   * where it has to; rejects when the server refuses. */
  stop = async (threadId?: string): Promise<void> => {
    const chosen = [...this.#current].filter(([thread]) => (threadId ?? thread) === thread);
    if (chosen.length || threadId === undefined) {
      await Promise.all(chosen.map(([, run]) => run.stop()));
      return;
    }
    const active = await untilAnswered(() => this.#active(threadId));
    if (active) await this.#underWay(threadId, active).stop();
  };

  async #active(threadId: string): Promise<string | undefined> {
    return (await this.#runs(threadId)).find(({ state }) => !ENDED.includes(state))?.id;
  }

  #underWay(threadId: string, run: string): StoppableRun {
    const current = StoppableRun.of(this.#client, run);
    this.#current.set(threadId, current);
    return current;
  }

  /** What goes on in the thread from here may be another run. */
  #ended(threadId: string, run: StoppableRun): void {
    if (this.#current.get(threadId) === run) this.#current.delete(threadId);
  }

  /** The chat client does not read the run any more. */
  #aborted(run: StoppableRun): void {
    if (this.options.onAbort === "cancel") void run.stop().catch(() => undefined);
    else run.giveUp();
  }

  // --- asking and answering -------------------------------------------------------------------

  #begin(thread: string, start: (giveUp: AbortSignal) => Promise<string>): StoppableRun {
    const before = this.#current.get(thread)?.run;
    const find = async () => {
      const active = await this.#active(thread);
      return active === before ? undefined : active;
    };
    const current = new StoppableRun(this.#client, { start, find });
    this.#current.set(thread, current);
    return current;
  }

  async #start(
    messages: Asked,
    data: Record<string, unknown> | undefined,
    thread: string,
    key: string,
    context: RunAgentInputContext | undefined,
    giveUp: AbortSignal,
  ): Promise<string> {
    const { model, system, request } = this.options;
    const tools = context?.clientTools ?? [];
    const asked = {
      ...request,
      ...data,
      messages: toMessages(messages),
      thread,
      ...(model ? { model } : {}),
      ...(system ? { system } : {}),
      ...(tools.length ? { tools } : {}),
    };
    return (await this.#client.start(asked, { giveUp, key: `tanstack:${key}` })).id;
  }

  /** Hands the answers that a request brings to the run that waits for them. */
  async #goOn(
    messages: Asked,
    thread: string,
    context: RunAgentInputContext | undefined,
    signal: AbortSignal,
  ): Promise<{ run: string; place: Place } | undefined> {
    const entries = context?.resume ?? [];
    const last = messages[messages.length - 1];
    if (!entries.length && last?.role === "user") return undefined;
    const given = answersBy(entries, resultsIn(messages));
    for (const { id, state } of await this.#runs(thread)) {
      // A run that another process takes over is not told as waiting at every moment.
      const place = !ENDED.includes(state) && (await answerRun(this.#client, id, given, signal));
      if (place) return { run: id, place };
    }
    if (!entries.length) return undefined;
    throw new TokenwireError("conflict", "nothing waits for this answer any more", 409);
  }

  #read(run: string, names: Names, place: Place, signal: AbortSignal, onStop: () => void) {
    const stream = new RunStream(place, (answered) => new AGUIFold({ ...names, answered }));
    return streamRun(this.#client, run, stream, signal, onStop) as unknown as AsyncGenerator<Chunk>;
  }

  /** What a waiting run would be told to wait for. */
  async #pending(run: string, waiting: string[]) {
    const fold = new AGUIFold({ answered: () => true });
    const path = `/v1/runs/${run}/events?live=no`;
    const { events } = (await this.#client.json("GET", path)) as { events: { event: RunEvent }[] };
    for (const { event } of events) fold.take(event);
    const { outcome } = fold.wait(waiting).pop() as unknown as Extract<Chunk, { type: "RUN_FINISHED" }>;
    return outcome?.type === "interrupt" ? outcome.interrupts : [];
  }

  async #runs(thread: string): Promise<RunInfo[]> {
    try {
      return (await this.#client.thread(thread)).runs;
    } catch (error) {
      if (asError(error).status === 404) return [];
      throw error;
    }
  }

  #info(run: string, signal?: AbortSignal): Promise<Snapshot> {
    return this.#client.snapshot(run, signal) as Promise<Snapshot>;
  }
}

type Entry = NonNullable<RunAgentInputContext["resume"]>[number];

function answersBy(entries: Entry[], results: Map<string, unknown>): Answers {
  const by = new Map(entries.map((entry) => [entry.interruptId, entry]));
  return {
    approval: (name) => {
      const entry = by.get(name);
      if (!entry) return undefined;
      const told: unknown = entry.payload;
      const said = (told && typeof told === "object" ? told : {}) as Record<string, unknown>;
      const yes = said.approved ?? (told === undefined || told === true);
      const edited = said.editedArgs ?? said.arguments;
      return {
        approved: entry.status === "resolved" && yes === true,
        ...(typeof said.reason === "string" ? { reason: said.reason } : {}),
        ...(edited && typeof edited === "object" ? { arguments: edited } : {}),
      };
    },
    result: (name) => {
      const entry = by.get(name);
      if (entry?.status === "resolved") return { content: entry.payload };
      if (entry) return { content: { error: "cancelled by the person" } };
      return results.has(name) ? { content: results.get(name) } : undefined;
    },
  };
}

function keep(name: string, run: string): void {
  try {
    localStorage.setItem(KEPT + name, run);
  } catch {
    // Without storage a page that is loaded again asks the server by its thread.
  }
}

function kept(name: string): string | undefined {
  try {
    return localStorage.getItem(KEPT + name) ?? undefined;
  } catch {
    return undefined;
  }
}

function forget(name: string): void {
  try {
    localStorage.removeItem(KEPT + name);
  } catch {
    // There was nothing to forget.
  }
}
