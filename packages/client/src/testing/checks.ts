/* Checks of what reads a run: that a cut changes nothing, and that runs end. */

import type { TokenwireClient } from "../core/client.js";
import type { RunEvent } from "../core/events.generated.js";
import { pause as wait } from "../core/wait.js";
import { type Piece } from "./script.js";
import { type Cut, ScriptedServer } from "./server.js";

export interface CutEverywhereOptions {
  /** Where: after each event (the default), or after each byte. */
  every?: "event" | "byte";
  /** How many cuts are tried at the same time; 32 unless given. 1 for code that shares something,
   * such as a page. */
  atOnce?: number;
}

/** Asserts that code under test gets the same whatever is cut. `read` runs it against a server with
 * this script, and returns what it made of the run: text, messages, what a page shows. It is called
 * once without a cut, and then for every place of the first stream that it reads, cut by an orderly
 * end and by an error; each time with a new server. Throws an error that says where, what was
 * expected, and what came. */
export async function cutEverywhere<T>(
  script: readonly Piece[],
  read: (server: ScriptedServer) => Promise<T>,
  options: CutEverywhereOptions = {},
): Promise<void> {
  const { every = "event", atOnce = 32 } = options;
  const whole = new ScriptedServer(script);
  const expected = shown(await read(whole));
  const run = whole.runs[0];
  if (run === undefined) throw new Error("cutEverywhere: no run was started; use server.client() or server.fetch");
  const events = whole.events(run);
  if (events.at(-1)?.type !== "run-end") throw new Error("cutEverywhere: the run did not end");
  const places = every === "event" ? events.length : bytesOf(events);
  const cuts: Cut[] = [];
  for (let at = 0; at <= places; at++) {
    for (const how of ["end", "error"] as const) cuts.push(every === "event" ? { events: at, how } : { bytes: at, how });
  }
  const work = async () => {
    for (let cut = cuts.shift(); cut; cut = cuts.shift()) await one(cut);
  };
  const one = async (cut: Cut) => {
    const place = `cut after ${cut.events ?? cut.bytes} of ${places} ${every}s (${cut.how})`;
    let value: string;
    try {
      value = shown(await read(new ScriptedServer(script, { cuts: [cut] })));
    } catch (error) {
      cuts.length = 0;
      throw new Error(`${place}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
    if (value === expected) return;
    cuts.length = 0;
    throw new Error(`${place}: the result is another one\n  expected ${expected}\n  received ${value}`);
  };
  await Promise.all(Array.from({ length: Math.max(1, atOnce) }, work));
}

/** As long as the stream that brings these events. */
function bytesOf(events: readonly RunEvent[]): number {
  const blocks = events.map((event, at) => `id: ${at + 1}-${"0".repeat(16)}\ndata: ${JSON.stringify(event)}\n\n`);
  return new TextEncoder().encode(blocks.join("")).length;
}

function shown(value: unknown): string {
  return JSON.stringify(value) ?? "undefined";
}

const ENDED = new Set(["complete", "incomplete", "cancelled", "error", "interrupted"]);
/** Pause between two looks, in milliseconds. */
const LOOK_MS = 25;

/** Waits until these runs have ended, and returns how: `{ run: "complete" }`. `timeout`: at most so
 * many seconds, 30 unless given; then it throws an error that names each run that is open. */
export async function eventuallyEnds(
  client: TokenwireClient,
  runs: string | readonly string[],
  { timeout = 30 }: { timeout?: number } = {},
): Promise<Record<string, string>> {
  const ids = typeof runs === "string" ? [runs] : runs;
  const signal = AbortSignal.timeout(timeout * 1000);
  const states: Record<string, string> = {};
  for (const run of ids) {
    for (;;) {
      states[run] = (await client.info(run)).state;
      if (ENDED.has(states[run])) break;
      if (signal.aborted) throw new Error(await stillOpen(client, ids, timeout));
      await wait(LOOK_MS, signal, false);
    }
  }
  return states;
}

async function stillOpen(client: TokenwireClient, ids: readonly string[], timeout: number): Promise<string> {
  const lines: string[] = [];
  for (const run of ids) {
    const { state, tail, waiting } = await client.info(run);
    const pending = Array.isArray(waiting) && waiting.length ? `, waits for ${waiting.join(", ")}` : "";
    if (!ENDED.has(state)) lines.push(`\n  ${run}: state ${state}, ${String(tail)} events${pending}`);
  }
  const runs = `${lines.length} of ${ids.length} ${ids.length === 1 ? "run" : "runs"}`;
  return `${runs} did not end in ${timeout} s:${lines.join("")}`;
}
