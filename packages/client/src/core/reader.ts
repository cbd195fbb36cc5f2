/* Follow one run to its end, through any number of cuts.

Always true: an event with a cursor is delivered once, in the log's order (offsets in the log have
no gap, so what came before is dropped, and what is too early ends the connection); a run has ended
only when `run-end` was delivered, or when the server says that it was before: any other end of a
connection is a disconnect, and the reader comes back with its cursor. */

import { TokenwireError } from "./errors.js";
import type { RunEvent } from "./events.generated.js";
import { backoff, onReturn, pause } from "./wait.js";

/** One event as it came: `size` is the length of its JSON. */
export interface Delivered {
  cursor: string;
  event: RunEvent;
  json: string;
}

export type LinkState = "connecting" | "live" | "reconnecting";

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

export interface FollowOptions {
  after?: string;
  signal?: AbortSignal;
  onEvents(batch: Delivered[]): void;
  /** The log is not the one that was read before: forget everything. */
  onReset?(reason: string): void;
  onLink?(state: LinkState, error?: TokenwireError): void;
  /** Silence after which a connection counts as dead: three heartbeats. */
  watchdogMs?: number;
  /** Tries in a row without an event before giving up; never, unless told. */
  maxTries?: number;
}

/** A connection that lived this long was healthy: the next delay is short again. */
const HEALTHY_MS = 5000;
/** A server that says to come back later is obeyed for so long at most. */
const LONGEST_WAIT_MS = 3_600_000;
/** What the server sends cannot be read; coming back once may help, coming back for ever does not. */
const UNREADABLE = ["protocol_error", "limit_exceeded"];
/** A quiet connection older than this is not trusted when the person comes back. */
const STALE_MS = 5000;

/** Where a cursor is in its log: compared, never computed with. */
export function offsetOf(cursor: string): number {
  const found = /^\d+/.exec(cursor);
  return found ? Number(found[0]) : -1;
}

export function isFatal(error: TokenwireError): boolean {
  return error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429;
}

/** Reads with the first of `ways`, and falls back to the next when one brought nothing twice in a
 * row. Resolves after `run-end` (at once, when that was read before) or abort; rejects when the
 * server says no. */
export function follow(ways: Connect[], options: FollowOptions): Promise<void> {
  return new Reader(ways, options).run();
}

class Reader {
  #after: string;
  #offset: number;
  #ended = false;
  #batch: Delivered[] = [];
  /** Connections in a row that were not healthy. */
  #tries = 0;
  /** Connections in a row that were not healthy and brought no event. */
  #fruitless = 0;
  /** Connections in a row that brought nothing at all. */
  #barren = 0;
  /** Connections in a row that brought no event, and something that cannot be read. */
  #unreadable = 0;
  #way = 0;
  #resets = 0;
  /** When the server said to come back, in milliseconds. */
  #told: number | undefined;
  /** What the caller's own function threw. */
  #thrown: { error: unknown } | undefined;

  constructor(
    readonly ways: Connect[],
    readonly options: FollowOptions,
  ) {
    this.#after = options.after ?? "";
    this.#offset = offsetOf(this.#after);
  }

  async run(): Promise<void> {
    const { signal, onLink } = this.options;
    onLink?.("connecting");
    for (;;) {
      const failed = await this.#connect();
      if (this.#thrown) throw this.#thrown.error;
      if (this.#ended || signal?.aborted) return;
      if (failed?.code === "bad_cursor" && this.#after && this.#resets++ < 2) {
        this.#forget("bad_cursor");
        continue;
      }
      if (failed && isFatal(failed)) throw failed;
      if (failed && UNREADABLE.includes(failed.code) && this.#unreadable++) throw failed;
      if (this.#fruitless > (this.options.maxTries ?? Infinity)) {
        throw failed ?? new TokenwireError("network", "the connection was lost", 0, true);
      }
      onLink?.("reconnecting", failed);
      const told = this.#told === undefined ? undefined : this.#told * Math.random();
      const asked = failed?.retryAfter ?? told;
      // A server that names a time is not asked before; else the person's return ends the wait.
      if (asked === undefined) await pause(backoff(this.#tries), signal);
      else await pause(Math.min(asked, LONGEST_WAIT_MS), signal, false);
      this.#tries++;
      if (signal?.aborted) return;
    }
  }

  /** One connection, to its end; what ended it, when it says so. */
  async #connect(): Promise<TokenwireError | undefined> {
    const { signal, onLink, watchdogMs = 45000 } = this.options;
    const cut = new AbortController();
    const stop = () => cut.abort();
    const opened = performance.now();
    const after = this.#offset;
    let heard = opened;
    let spoke = false;
    const alive = () => {
      heard = performance.now();
      if (!spoke) onLink?.("live");
      spoke = true;
    };
    const stopAfter = (ms: number) => () => performance.now() - heard > ms && stop();
    const forget = onReturn(stopAfter(STALE_MS));
    const watchdog = setInterval(stopAfter(watchdogMs), watchdogMs / 3);
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    this.#told = undefined;
    let failed: TokenwireError | undefined;
    try {
      await this.ways[this.#way]!({
        after: this.#after,
        signal: cut.signal,
        alive,
        take: (cursor, json) => this.#take(cursor, json),
        flush: () => this.#flush(),
        over: () => {
          this.#ended = true;
        },
      });
    } catch (error) {
      failed = asError(error);
    }
    try {
      this.#flush();
    } finally {
      clearInterval(watchdog);
      forget();
      signal?.removeEventListener("abort", stop);
    }
    const healthy = spoke && performance.now() - opened >= HEALTHY_MS;
    if (healthy) this.#tries = 0;
    if (this.#offset > after) this.#unreadable = 0;
    this.#fruitless = healthy || this.#offset > after ? 0 : this.#fruitless + 1;
    this.#barren = spoke ? 0 : this.#barren + 1;
    // Also back to the first way: it may have been the server that was away.
    if (this.#barren >= 2) {
      this.#way = (this.#way + 1) % this.ways.length;
      this.#barren = 0;
    }
    return failed;
  }

  #take(cursor: string, json: string): void {
    const event = parsed(json);
    if (event.type === "heartbeat") return;
    if (event.type === "reconnect") {
      this.#told = event.after_ms ?? 1000;
    } else if (event.type === "log-reset") {
      this.#flush();
      this.#forget(event.reason, event.to);
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

  #forget(reason: string, to = 0): void {
    this.#after = to ? String(to) : "";
    this.#offset = offsetOf(this.#after);
    this.options.onReset?.(reason);
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

export function asError(error: unknown): TokenwireError {
  if (error instanceof TokenwireError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new TokenwireError("network", `no connection to the server (${message})`, 0, true);
}
