/* Follow one run to its end, through any number of cuts.

Always true: an event with a cursor is delivered once, in the log's order (offsets in the log have
no gap, so what came before is dropped, and what is too early ends the connection); a run has ended
only when `run-end` was delivered, or when the server says that it was before: any other end of a
connection is a disconnect, and the reader comes back with its cursor. */

import { TokenwireError } from "./errors.js";
import type { RunEvent } from "./events.generated.js";
import { type LinkState, type Reading, type ReadOptions, readToEnd, type Watch } from "./reconnect.js";

export type { LinkState };

/** One event as it came: `size` is the length of its JSON. */
export interface Delivered {
  cursor: string;
  event: RunEvent;
  json: string;
}

/** One way of reading: SSE, WebSocket, long polling. Resolves when the connection ended, however
 * it ended; rejects with the error that says why. */
export type Connect = (request: {
  after: string;
  signal: AbortSignal;
  /** Something of the run's stream arrived: the connection lives. */
  alive(): void;
  /** One event; an empty cursor for what is not in the log. */
  take(cursor: string, json: string): void;
  /** Everything that one read brought was taken. */
  flush(): void;
  /** The server says that the run has ended and that nothing of it is left to read. */
  over(): void;
}) => Promise<void>;

export interface FollowOptions extends ReadOptions {
  after?: string;
  onEvents(batch: Delivered[]): void;
  /** The log is not the one that was read before: forget everything. */
  onReset?(reason: string): void;
}

/** How often a cursor that the server does not know is answered by reading from the start. */
const MOST_RESETS = 2;

/** Where a cursor is in its log: compared, never computed with. */
export function offsetOf(cursor: string): number {
  const found = /^\d+/.exec(cursor);
  return found ? Number(found[0]) : -1;
}

/** Reads with the first of `ways`, and falls back to the next when one brought nothing twice in a
 * row. Resolves after `run-end` (at once, when that was read before) or abort; rejects when the
 * server says no. */
export async function follow(ways: Connect[], options: FollowOptions): Promise<void> {
  const reader = new Reader(ways, options);
  await readToEnd(reader, options, ways.length);
  reader.rethrow();
}

/** What was read of the log, and what is taken next. */
class Reader implements Reading {
  #after: string;
  #offset: number;
  #ended = false;
  #batch: Delivered[] = [];
  #resets = 0;
  /** What the caller's own function threw. */
  #thrown: { error: unknown } | undefined;

  constructor(
    readonly ways: Connect[],
    readonly options: FollowOptions,
  ) {
    this.#after = options.after ?? "";
    this.#offset = offsetOf(this.#after);
  }

  get ended(): boolean {
    return this.#ended || !!this.#thrown;
  }

  get position(): number {
    return this.#offset;
  }

  rethrow(): void {
    if (this.#thrown) throw this.#thrown.error;
  }

  async connect(watch: Watch, way: number): Promise<void> {
    try {
      await this.ways[way]!({
        ...watch,
        after: this.#after,
        take: (cursor, json) => this.#take(cursor, json, watch),
        flush: () => this.#flush(),
        over: () => {
          this.#ended = true;
        },
      });
    } finally {
      this.#flush();
    }
  }

  restart(error: TokenwireError | undefined): boolean {
    if (error?.code !== "bad_cursor" || !this.#after || this.#resets++ >= MOST_RESETS) return false;
    this.#after = "";
    this.#offset = -1;
    this.options.onReset?.(error.code);
    return true;
  }

  #take(cursor: string, json: string, watch: Watch): void {
    const event = parsed(json);
    if (event.type === "heartbeat") return;
    if (event.type === "reconnect") {
      watch.again(event.after_ms ?? 1000);
    } else {
      const position = offsetOf(cursor);
      if (position <= this.#offset || this.#ended) return;
      if (position > Math.max(this.#offset, 0) + 1) {
        throw new TokenwireError("gap", `an event before ${cursor} is missing`, 0, true);
      }
      this.#offset = position;
      this.#after = cursor;
      this.#ended = event.type === "run-end";
      this.#batch.push({ cursor, event, json });
    }
  }

  #flush(): void {
    if (!this.#batch.length) return;
    const batch = this.#batch;
    this.#batch = [];
    try {
      this.options.onEvents(batch);
    } catch (error) {
      this.#thrown ??= { error };
      throw error; // ends the connection
    }
  }
}

function parsed(json: string): RunEvent {
  try {
    const event = JSON.parse(json) as RunEvent | null;
    if (typeof event?.type === "string") return event;
  } catch {
    // Told below.
  }
  const shown = json.length > 60 ? `${json.slice(0, 60)}...` : json;
  throw new TokenwireError("protocol_error", `this is no event: ${shown}`, 0, true);
}
