/* Turns made here, and turns made of the runs that the server lists. */

import { randomId, type RunInfo, type TokenwireClient } from "../core/client.js";
import type { Delivered } from "../core/reader.js";
import { RunMeter } from "./meter.js";
import { RunStore } from "./store.js";
import type { Turn } from "./turn.js";

/** A run as the list of a conversation has it. */
export interface ListedRun extends RunInfo {
  created?: number;
  /** Who asked. */
  by?: string;
  metadata?: unknown;
  /** Of a run that the server gave its conversation: the turn that it continues. */
  history?: { parent?: string };
}

/** What the metadata of a run tells. */
interface About {
  /** The key of the start. */
  ask: string;
  /** Of runs that were given the whole conversation by their client: the question, and the run
   * before it. */
  prompt?: string;
  parent?: string;
  /** The question is read from the run's input: it is long, or more than text. */
  isLong: boolean;
}

export function aboutOf({ metadata }: Pick<ListedRun, "metadata">): About {
  const { ask, prompt, parent, long } = (metadata ?? {}) as Record<string, unknown>;
  return {
    ask: typeof ask === "string" ? ask : "",
    isLong: !!long,
    ...(typeof prompt === "string" ? { prompt } : {}),
    ...(typeof parent === "string" ? { parent } : {}),
  };
}

/** A question that is about to be sent. */
export function newTurn(
  prompt: string,
  more: { parent: string; key: string; content: Turn["content"] | undefined; model: string | undefined },
): Turn {
  const { parent, key, content, model } = more;
  return {
    id: `ask-${randomId()}`,
    parent,
    prompt,
    created: Date.now() / 1000,
    key,
    store: new RunStore(),
    meter: new RunMeter(performance.now()),
    ...(content ? { content } : {}),
    ...(model ? { model } : {}),
  };
}

/** The turn of a run, and whether its question is still to be read. `before`: the run that the
 * thread had before this one. */
export function turnOf(run: ListedRun, before: string): { turn: Turn; isUnread: boolean } {
  const { prompt, parent, isLong } = aboutOf(run);
  const isWhole = !run.history || parent !== undefined;
  // A client that knows nothing of branches asked after what was there.
  const guessed = parent ?? (prompt === undefined ? before : "");
  const turn: Turn = {
    id: run.id,
    run: run.id,
    parent: isWhole ? guessed : (run.history?.parent ?? ""),
    prompt: (isWhole && prompt) || "",
    created: Number(run.created ?? 0),
    key: "",
    store: new RunStore(),
    meter: new RunMeter(),
    ...(isWhole ? { isWhole } : {}),
    ...(run.by ? { by: run.by } : {}),
    ...(run.model ? { model: run.model } : {}),
  };
  return { turn, isUnread: !isWhole || isLong || prompt === undefined };
}

/** Reads an ended run in one request. */
export async function readEnded(
  client: TokenwireClient,
  turn: Turn,
  run: string,
  signal: AbortSignal,
): Promise<void> {
  const path = `/v1/runs/${run}/events?live=no`;
  const { events, closed } = (await client.json("GET", path, undefined, signal)) as {
    events: { cursor: string; event: Delivered["event"] }[];
    closed?: boolean;
  };
  if (!closed) {
    // A server that is about to stop gives what it has.
    void turn.store.follow(client, run, signal);
    return;
  }
  turn.meter.take(events.map((one) => ({ ...one, json: JSON.stringify(one.event) })));
  turn.store.apply(events.map(({ event }) => event));
  turn.store.setLink("ended");
  turn.store.publish();
}
