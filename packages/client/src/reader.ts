/* Follow one run to its end, through any number of cuts.

Always true: an event with a cursor is delivered once, in the log's order (what came before is
told by the offset in its cursor and dropped); a run has ended only when `run-end` was delivered:
any other end of a connection is a disconnect, and the reader comes back with its cursor. */

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
  /** Something arrived: the connection lives. */
  alive(): void;
  /** One event; an empty cursor for what is not in the log. */
  take(cursor: string, json: string): void;
  /** Everything that one read brought was taken. */
  flush(): void;
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
 * row. Resolves after `run-end` or abort; rejects when the server says no. */
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
  /** Connections in a row that brought nothing at all. */
  #barren = 0;
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
      if (this.#tries >= (this.options.maxTries ?? Infinity)) {
        throw failed ?? new TokenwireError("network", "the connection was lost", 0, true);
      }
      onLink?.("reconnecting", failed);
      const told = this.#told === undefined ? undefined : this.#told * Math.random();
      const wait = failed?.retryAfter ?? told ?? backoff(this.#tries);
      await pause(Math.min(wait, 60000), signal);
      this.#tries++;
      if (signal?.aborted) return;
    }
  }

  /** One connection, to its end; what ended it, when it says so. */
  async #connect(): Promise<TokenwireError | undefined> {
    const { signal, onLink, watchdogMs = 45000 } = this.options;
    const cut = new AbortController();
    const stop = () => cut.abort();
    const opened = Date.now();
    let heard = opened;
    let spoke = false;
    const alive = () => {
      heard = Date.now();
      if (!spoke) onLink?.("live");
      spoke = true;
    };
    const stopAfter = (ms: number) => () => Date.now() - heard > ms && stop();
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
    if (spoke && Date.now() - opened >= HEALTHY_MS) this.#tries = 0;
    this.#barren = spoke ? 0 : this.#barren + 1;
    if (this.#barren >= 2 && this.#way + 1 < this.ways.length) {
      this.#way++;
      this.#barren = 0;
    }
    return failed;
  }

  #take(cursor: string, json: string): void {
    const event = JSON.parse(json) as RunEvent;
    if (event.type === "heartbeat") return;
    if (event.type === "reconnect") {
      this.#told = event.after_ms ?? 1000;
    } else if (event.type === "log-reset") {
      this.#flush();
      this.#forget(event.reason, event.to);
    } else {
      const position = offsetOf(cursor);
      if (position <= this.#offset || this.#ended) return;
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

export function asError(error: unknown): TokenwireError {
  if (error instanceof TokenwireError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new TokenwireError("network", `no connection to the server (${message})`, 0, true);
}
