/* Reading something to its end over any number of connections.

Always true: whether and when the next connection is opened is decided in one place, `next`, from
the streak of connections before it and from how the last one went: pure, without a clock. */

import { asError, isFatal, TokenwireError } from "./errors.js";
import { backoff, onAbort, onReturn, pause } from "./wait.js";

/** How one connection went. */
export interface Outcome {
  /** Whether it brought anything at all, and whether anything new of what is read. */
  bytes?: boolean;
  news?: boolean;
  /** Whether it lived long enough to count as working. */
  healthy?: boolean;
  error?: TokenwireError;
  /** When the server said to reconnect, in milliseconds. */
  again?: number;
}

/** The connections in a row that were not good, and what follows them. */
export interface Streak {
  /** Not healthy: the delay grows with them. */
  unhealthy: number;
  /** Not healthy, and brought nothing new. */
  fruitless: number;
  /** Whether the last one brought nothing at all, on the way that is used: a second one in a row
   * ends that way. */
  silent: boolean;
  /** Brought nothing new, and something that cannot be read. */
  unreadable: number;
  /** Index of the way of reading that is used next. */
  way: number;
  /** A delay in milliseconds that the server named: the person's return does not shorten it. */
  named?: number | undefined;
}

export const FRESH: Streak = { unhealthy: 0, fruitless: 0, silent: false, unreadable: 0, way: 0 };

/** A connection that lived this long was healthy: the next delay is short again. */
const HEALTHY_MS = 5000;
/** A server that says to reconnect later is obeyed for so long at most. */
const LONGEST_WAIT_MS = 3_600_000;
/** What the server sends cannot be read; reading again helps once, or never. */
const UNREADABLE = ["protocol_error", "limit_exceeded"];
/** A quiet connection older than this is not trusted when the person returns. */
const STALE_MS = 5000;

/** What follows a connection that ended too early; throws when another one cannot help. `ways`: how
 * many ways of reading there are; `maxTries`: fruitless connections in a row before giving up. */
export function next(before: Streak, outcome: Outcome, ways: number, maxTries: number): Streak {
  const { bytes, news, healthy, error, again } = outcome;
  const isUnreadable = error && UNREADABLE.includes(error.code);
  const streak: Streak = {
    unhealthy: (healthy ? 0 : before.unhealthy) + 1,
    fruitless: healthy || news ? 0 : before.fruitless + 1,
    silent: !bytes && !before.silent,
    unreadable: (news ? 0 : before.unreadable) + (isUnreadable ? 1 : 0),
    // Also back to the first way: it may have been the server that was away.
    way: !bytes && before.silent ? (before.way + 1) % ways : before.way,
    named: error?.retryAfter ?? (again && again * Math.random()),
  };
  if (error && (isFatal(error) || (isUnreadable && streak.unreadable > 1))) throw error;
  if (streak.fruitless > maxTries) {
    throw error ?? new TokenwireError("network", "the connection was lost", 0, true);
  }
  return streak;
}

/** What a connection tells while it lives. */
export interface Watch {
  /** Aborts when the connection is silent for too long, or stale as the person returns, and with
   * the reading itself. */
  signal: AbortSignal;
  /** Something arrived. */
  alive(): void;
  /** The server says to reconnect after so many milliseconds. */
  again(ms: number): void;
}

/** What is read over many connections. */
export interface Reading {
  /** Whether everything was read. */
  readonly ended: boolean;
  /** Where the reading is: another value after news. */
  readonly position: unknown;
  /** Reads one connection to its end, however it ends; rejects with the error that says why. */
  connect(watch: Watch, way: number): Promise<void>;
  /** Whether the end of a connection is answered by connecting at once, from another place; may
   * throw, which ends the reading. */
  restart(error: TokenwireError | undefined): boolean;
}

export type LinkState = "connecting" | "live" | "reconnecting";

export interface ReadOptions {
  signal?: AbortSignal;
  onLink?(state: LinkState, error?: TokenwireError): void;
  /** Silence after which a connection counts as dead: three heartbeats. */
  watchdogMs?: number;
  /** Tries in a row without anything new before giving up; never, unless given. */
  maxTries?: number;
}

/** Reads until `reading` has ended or `signal` aborts; rejects when connecting again cannot help.
 * `ways`: how many ways of reading there are. */
export async function readToEnd(reading: Reading, options: ReadOptions, ways = 1): Promise<void> {
  const { signal, maxTries = Infinity, onLink } = options;
  onLink?.("connecting");
  for (let streak = FRESH; ; ) {
    const outcome = await connect(reading, streak.way, options);
    const { error } = outcome;
    if (reading.ended || signal?.aborted) return;
    if (reading.restart(error)) continue;
    streak = next(streak, outcome, ways, maxTries);
    onLink?.("reconnecting", error);
    const { named, unhealthy } = streak;
    const ms = Math.min(named ?? backoff(unhealthy - 1), LONGEST_WAIT_MS);
    await pause(ms, signal, named === undefined);
    if (signal?.aborted) return;
  }
}

/** One connection, to its end. */
async function connect(reading: Reading, way: number, options: ReadOptions): Promise<Outcome> {
  const { signal: stop, watchdogMs = 45000, onLink } = options;
  const cut = new AbortController();
  const { signal } = cut;
  const close = () => cut.abort();
  const before = reading.position;
  const opened = performance.now();
  let heard = opened;
  const outcome: Outcome = {};
  const closeAfter = (ms: number) => () => performance.now() - heard > ms && close();
  const forget = onReturn(closeAfter(STALE_MS));
  const watchdog = setInterval(closeAfter(watchdogMs), watchdogMs / 3);
  const forgetStop = onAbort(stop, close);
  const alive = () => {
    heard = performance.now();
    if (!outcome.bytes) onLink?.("live");
    outcome.bytes = true;
  };
  try {
    await reading.connect({ signal, alive, again: (ms) => (outcome.again = ms) }, way);
  } catch (error) {
    outcome.error = asError(error);
  }
  clearInterval(watchdog);
  forget();
  forgetStop();
  outcome.news = reading.position !== before;
  outcome.healthy = !!outcome.bytes && performance.now() - opened >= HEALTHY_MS;
  return outcome;
}
