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

/** Reads with the first of `ways`, and falls back to the next when one never brought anything
 * twice in a row. Resolves after `run-end` or abort; rejects when the server says no. */
export async function follow(ways: Connect[], options: FollowOptions): Promise<void> {
  const { signal, onEvents, onReset, onLink } = options;
  const watchdogMs = options.watchdogMs ?? 45000;
  let after = options.after ?? "";
  let offset = offsetOf(after);
  let ended = false;
  let tries = 0;
  let barren = 0;
  let way = 0;
  let resets = 0;
  onLink?.("connecting");
  while (!ended && !signal?.aborted) {
    const cut = new AbortController();
    const stop = () => cut.abort();
    signal?.addEventListener("abort", stop);
    let heard = Date.now();
    let spoke = false;
    let told: number | undefined;
    let failed: TokenwireError | undefined;
    const opened = heard;
    const forget = onReturn(() => {
      if (Date.now() - heard > STALE_MS) stop();
    });
    const watchdog = setInterval(() => {
      if (Date.now() - heard > watchdogMs) stop();
    }, watchdogMs / 3);
    let batch: Delivered[] = [];
    const flush = () => {
      if (!batch.length) return;
      const full = batch;
      batch = [];
      onEvents(full);
    };
    const take = (cursor: string, json: string) => {
      const event = JSON.parse(json) as RunEvent;
      if (event.type === "heartbeat") return;
      if (event.type === "reconnect") {
        told = event.after_ms ?? 1000;
        return;
      }
      if (event.type === "log-reset") {
        flush();
        after = event.to ? String(event.to) : "";
        offset = offsetOf(after);
        onReset?.(event.reason);
        return;
      }
      const position = offsetOf(cursor);
      if (position <= offset || ended) return;
      offset = position;
      after = cursor;
      ended = event.type === "run-end";
      batch.push({ cursor, event, json });
    };
    try {
      const alive = () => {
        heard = Date.now();
        if (!spoke) onLink?.("live");
        spoke = true;
      };
      await ways[way]!({ after, signal: cut.signal, alive, take, flush });
    } catch (error) {
      failed = asError(error);
    } finally {
      flush();
      clearInterval(watchdog);
      forget();
      signal?.removeEventListener("abort", stop);
    }
    if (ended || signal?.aborted) break;
    if (failed && failed.code === "bad_cursor" && after && resets++ < 2) {
      after = "";
      offset = -1;
      onReset?.("bad_cursor");
      continue;
    }
    if (failed && isFatal(failed)) throw failed;
    if (spoke && Date.now() - opened >= HEALTHY_MS) tries = 0;
    barren = spoke ? 0 : barren + 1;
    if (barren >= 2 && way + 1 < ways.length) {
      way++;
      barren = 0;
    }
    if (options.maxTries !== undefined && tries >= options.maxTries) {
      throw failed ?? new TokenwireError("network", "the connection was lost", 0, true);
    }
    onLink?.("reconnecting", failed);
    const wait = failed?.retryAfter ?? (told === undefined ? undefined : told * Math.random());
    await pause(Math.min(wait ?? backoff(tries), 60000), signal);
    tries++;
  }
}

export function asError(error: unknown): TokenwireError {
  if (error instanceof TokenwireError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new TokenwireError("network", `no connection to the server (${message})`, 0, true);
}
