/* Read a stream that has no end: what happens in a conversation, or in the list of them.

Always true: an event that the server keeps is handed out once and in order, through any number of
cuts; what only passes has no cursor; when the place of a reader cannot be honoured, a `reset` comes
before the snapshot that begins anew. */

import { TokenwireError } from "../core/errors.js";
import type { Connect } from "../core/reader.js";
import type { Reading, ReadOptions, Watch } from "../core/reconnect.js";
import type { FeedEvent } from "./events.js";
import { Place } from "./place.js";

/** An event, and where its reader is after it. */
export interface Arrival<E> {
  event: E;
  cursor: string;
}

export interface FeedOptions<E = FeedEvent> extends ReadOptions {
  /** Goes on after this cursor; without one the first event is a snapshot. */
  after?: string;
  /** All that one read brought. */
  onEvents(batch: Arrival<E>[]): void;
}

/** A cursor, empty for what only passes, and its event. */
export type Row = [cursor: string, event: FeedEvent];

/** What `live=no` answers. */
export interface FeedPage {
  events: { cursor?: string; event: FeedEvent }[];
  next: string;
  /** Stands for the principal; missing where the server is older. */
  reader?: string;
}

/** How often a cursor that the server does not take is answered by reading from the start. */
const MOST_RESETS = 2;

/** Hands out what is new. */
export class Taker {
  #place: Place;
  /** What the caller's own function threw. */
  thrown: { error: unknown } | undefined;

  constructor(readonly options: FeedOptions) {
    this.#place = new Place(options.after);
  }

  get cursor(): string {
    return String(this.#place);
  }

  /** Whether nothing is to be handed out any more. */
  get isOver(): boolean {
    return !!this.thrown || !!this.options.signal?.aborted;
  }

  reaches(from: string): boolean {
    return this.#place.reaches(from);
  }

  take(rows: Row[]): void {
    if (this.isOver) return;
    const batch: Arrival<FeedEvent>[] = [];
    for (const [cursor, event] of rows) {
      if (this.#place.take(cursor, event)) batch.push({ event, cursor: this.cursor });
    }
    if (!batch.length) return;
    try {
      this.options.onEvents(batch);
    } catch (error) {
      this.thrown = { error };
      throw error; // ends the connection
    }
  }
}

export class FeedReader implements Reading {
  #rows: Row[] = [];
  #resets = 0;
  #isOver = false;

  /** `told`: hears all that was read, and the place before it, before it is handed out. */
  constructor(
    readonly ways: Connect[],
    readonly taker: Taker,
    readonly told?: (rows: Row[], from: string) => void,
  ) {}

  get ended(): boolean {
    return this.#isOver || !!this.taker.thrown;
  }

  get position(): string {
    return this.taker.cursor;
  }

  async connect(watch: Watch, way: number): Promise<void> {
    let last = "";
    try {
      await this.ways[way]!({
        ...watch,
        after: this.taker.cursor,
        take: (cursor, json) => {
          // A block without an id has that of the one before: it only passes.
          const isKept = !!cursor && cursor !== last;
          if (isKept) last = cursor;
          const event = parsed(json);
          if (event.type === "reconnect") watch.again(Number(event.after_ms ?? 1000));
          else if (event.type !== "heartbeat") this.#rows.push([isKept ? cursor : "", event]);
        },
        flush: () => this.#flush(),
        over: () => (this.#isOver = true),
      });
    } finally {
      this.#flush();
    }
  }

  restart(error: TokenwireError | undefined): boolean {
    if (error?.code !== "bad_cursor" || !this.taker.cursor || this.#resets++ >= MOST_RESETS) return false;
    this.taker.take([["", { type: "reset", reason: error.code, at: Date.now(), by: null }]]);
    return true;
  }

  #flush(): void {
    const rows = this.#rows;
    if (!rows.length) return;
    this.#rows = [];
    this.told?.(rows, this.taker.cursor);
    this.taker.take(rows);
  }
}

/** Long polling: page after page. */
export function feedPollWay(page: (after: string, live: string, signal: AbortSignal) => Promise<FeedPage>): Connect {
  return async ({ after, signal, alive, take, flush }) => {
    for (;;) {
      const { events, next } = await page(after, "long-poll", signal);
      alive();
      for (const { cursor = "", event } of events) take(cursor, JSON.stringify(event));
      flush();
      after = next;
    }
  };
}

function parsed(json: string): FeedEvent {
  try {
    const event = JSON.parse(json) as FeedEvent | null;
    if (typeof event?.type === "string") return event;
  } catch {
    // Told below.
  }
  const shown = json.length > 60 ? `${json.slice(0, 60)}...` : json;
  throw new TokenwireError("protocol_error", `this is no event: ${shown}`, 0, true);
}
