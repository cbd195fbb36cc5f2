/* One connection for all tabs of an origin that read the same run.

The tab that holds the run's lock is the leader: it reads, and broadcasts what it read. The others
take what it broadcasts; when its tab goes, the browser gives the lock to the next one, which reads
on from its own cursor. A browser opens six connections to an HTTP/1.1 host, so leaders of
different runs share four slots, and those without a slot read by WebSocket.

Always true: a tab delivers a batch only when it follows what the tab already has; a batch that
leaves a gap is answered by asking the leader for what is missing; a leader that does not answer (its
tab is frozen, but keeps the lock) is not waited for: the tab then reads alone. */

import { type Delivered, type FollowOptions, type LinkState, offsetOf } from "./reader.js";
import { onAbort, pause } from "./wait.js";

type Direct = (options: FollowOptions, socketFirst?: boolean) => Promise<void>;
type Row = [cursor: string, json: string];
interface Told {
  /** Rows, and the cursor that they follow. */
  rows?: Row[];
  from?: string;
  /** A new leader asks who is there. */
  lead?: true;
  /** A tab asks for what comes after this cursor. */
  want?: string;
  /** The leader does not hold what was asked for. */
  miss?: string;
  link?: LinkState;
  reset?: string;
}

const SLOTS = 4;
/** Silence after which a tab asks its leader. */
const SILENCE_MS = 45000;
/** So often a tab looks while it waits for the answer; then it reads alone. */
const LOOKS = 2;
/** How long a leader keeps the lock after the end, so that the others hear of the end first and do
 * not all connect to find out. */
const LINGER_MS = 250;

export function followShared(name: string, direct: Direct, options: FollowOptions): Promise<void> {
  const locks = globalThis.navigator?.locks;
  if (!locks || typeof BroadcastChannel !== "function" || typeof document === "undefined") {
    return direct(options);
  }
  return new Shared(name, direct, options, locks).run();
}

class Shared {
  #channel: BroadcastChannel;
  #rows: Row[] = [];
  #first: string;
  #cursor: string;
  #leading = false;
  #ended = false;
  #missed = false;
  /** What the leader's connection is. */
  #link: LinkState = "connecting";
  #heard = performance.now();
  /** How often it was looked since the leader was asked. */
  #unanswered = 0;
  /** What the caller's own function threw. */
  #thrown: { error: unknown } | undefined;
  /** Ends the wait for the lock: the run ended, was aborted, or is read alone. */
  #over = new AbortController();

  constructor(
    readonly name: string,
    readonly direct: Direct,
    readonly options: FollowOptions,
    readonly locks: LockManager,
  ) {
    this.#first = this.#cursor = options.after ?? "";
    this.#channel = new BroadcastChannel(name);
  }

  async run(): Promise<void> {
    const { signal } = this.options;
    const forget = onAbort(signal, () => this.#over.abort());
    this.#channel.onmessage = ({ data }) => this.#hear(data as Told);
    this.#ask();
    const silence = this.options.watchdogMs ?? SILENCE_MS;
    const watch = setInterval(() => this.#look(silence), silence / 3);
    try {
      await this.#inTurn(() => this.#lead());
    } catch (error) {
      if (this.#thrown) throw this.#thrown.error;
      if (!this.#over.signal.aborted) throw error;
      if (this.#missed && !this.#ended && !signal?.aborted) {
        await this.direct({ ...this.options, after: this.#cursor });
      }
    } finally {
      clearInterval(watch);
      forget();
      this.#channel.close();
    }
  }

  /** Resolves when `work`, done holding the lock, is done; the lock may be kept a little longer. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const held = async () => {
        await work().then(resolve, reject);
        if (this.#ended) await pause(LINGER_MS, undefined, false);
      };
      this.locks.request(this.name, { signal: this.#over.signal }, held).then(resolve, reject);
    });
  }

  /** A quiet run and a leader that is gone look the same from here, until the leader is asked.
   * Looks are counted, not time: a machine that slept answers before it looks again. */
  #look(silence: number): void {
    if (this.#leading || performance.now() - this.#heard < silence) return;
    if (!this.#unanswered) this.#ask();
    if (this.#unanswered++ >= LOOKS) this.#readAlone();
  }

  #readAlone(): void {
    this.#missed = true;
    this.#over.abort();
  }

  #ask(): void {
    this.#tell({ want: this.#cursor });
  }

  #tell(told: Told): void {
    this.#channel.postMessage(told);
  }

  async #lead(): Promise<void> {
    if (this.#ended || this.#over.signal.aborted) return;
    this.#leading = true;
    this.#tell({ lead: true });
    await withSlot(this.locks, (free) =>
      this.direct(
        {
          ...this.options,
          after: this.#cursor,
          onEvents: (batch) => {
            const from = this.#cursor;
            this.#tell({ rows: this.#keep(batch), from });
            this.options.onEvents(batch);
          },
          onReset: (reason) => {
            this.#forget(reason);
            this.#tell({ reset: reason });
          },
          onLink: (link, error) => {
            this.#link = link;
            this.#tell({ link });
            this.options.onLink?.(link, error);
          },
        },
        !free,
      ),
    );
  }

  #keep(batch: Delivered[]): Row[] {
    return batch.map(({ cursor, json, event }) => {
      const row: Row = [cursor, json];
      this.#rows.push(row);
      this.#cursor = cursor;
      this.#ended = event.type === "run-end";
      return row;
    });
  }

  #forget(reason: string): void {
    this.#rows = [];
    this.#first = this.#cursor = "";
    this.options.onReset?.(reason);
  }

  #hear(told: Told): void {
    if (this.#leading) {
      if (told.want !== undefined) this.#serve(told.want);
      return;
    }
    if (told.want === undefined) {
      this.#heard = performance.now(); // others only ask
      this.#unanswered = 0;
    }
    if (told.lead) this.#ask();
    else if (told.miss === this.#cursor) this.#readAlone();
    else if (told.reset !== undefined) this.#forget(told.reset);
    else if (told.link) this.options.onLink?.(told.link);
    else if (told.rows && told.from !== undefined) this.#take(told.rows, told.from);
  }

  #serve(want: string): void {
    if (offsetOf(want) < offsetOf(this.#first)) return this.#tell({ miss: want });
    const rows = this.#rows.filter(([cursor]) => offsetOf(cursor) > offsetOf(want));
    if (rows.length) this.#tell({ rows, from: want });
    this.#tell({ link: this.#link });
  }

  #take(rows: Row[], from: string): void {
    const mine = offsetOf(this.#cursor);
    if (offsetOf(from) > mine) return this.#ask();
    const batch = rows
      .filter(([cursor]) => offsetOf(cursor) > mine)
      .map(([cursor, json]): Delivered => ({ cursor, json, event: JSON.parse(json) }));
    if (!batch.length) return;
    this.#keep(batch);
    try {
      this.options.onEvents(batch);
    } catch (error) {
      this.#thrown = { error };
    }
    if (this.#ended || this.#thrown) this.#over.abort();
  }
}

/** Calls `use(true)` holding one of the slots, or `use(false)` when all are taken. */
export async function withSlot<T>(
  locks: LockManager,
  use: (free: boolean) => Promise<T>,
  slot = 0,
): Promise<T> {
  if (slot === SLOTS) return use(false);
  return locks.request(`tokenwire:slot:${slot}`, { ifAvailable: true }, (lock) =>
    lock ? use(true) : withSlot(locks, use, slot + 1),
  ) as Promise<T>;
}
