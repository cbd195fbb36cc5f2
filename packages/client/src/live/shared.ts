/* One connection for all tabs of an origin that read the same stream as the same principal.

Each tab begins with a page of its own, which says who reads. The tab that holds the lock of that
stream and reader then follows it, and broadcasts what it read; when it goes, the browser gives the
lock to another one, which reads on from its own place. A tab that does not answer (frozen, but it
keeps the lock) is robbed of it.

Always true: a tab hands out a row only when nothing before it is missing; else it reads a page
first. A tab whose stream begins anew, or whose token changed, says nothing more to the others before
a page has said again who reads: principals do not hear each other. */

import { asError, isFatal } from "../core/errors.js";
import type { Token } from "../core/http.js";
import type { Connect } from "../core/reader.js";
import { type LinkState, readToEnd } from "../core/reconnect.js";
import { withSlot } from "../core/tabs.js";
import { backoff, onAbort, pause } from "../core/wait.js";
import type { FeedEvent } from "./events.js";
import { type FeedOptions, type FeedPage, FeedReader, type Row, Taker } from "./reader.js";

/** A stream of the server. */
export interface Source {
  /** Of the stream, also of its query. */
  name: string;
  /** What is there after a cursor; `live`: `no`, or `long-poll` to wait for something. */
  page(after: string, live: string, signal: AbortSignal): Promise<FeedPage>;
  /** Ways of reading it; the first takes one of the browser's few connections. */
  ways: Connect[];
  token?: Token | undefined;
  /** Whether tabs may share it. */
  isShared: boolean;
}

/** What the tab that leads tells the others. */
interface Told {
  rows?: Row[];
  /** The place before the rows. */
  from?: string;
  link?: LinkState;
  /** A tab asks who leads. */
  hello?: true;
  /** The answer: where the leader is. */
  at?: string;
}

/** Silence after which a tab asks its leader. */
const SILENCE_MS = 15_000;
/** So often a tab looks while it waits for the answer; then it takes the lock. */
const LOOKS = 2;
/** A tab that begins anew after less than this waits before it does. */
const STEADY_MS = 5000;
/** Messages that are held while a page is read; what is before the newest is then read as well. */
const MOST_HELD = 1000;

/** Reads until `signal` aborts; rejects when the server says no. */
export async function followFeed(source: Source, given: FeedOptions): Promise<void> {
  let wasLive = false;
  const onLink: FeedOptions["onLink"] = (link, error) => {
    if (link === "connecting" && wasLive) return; // by another way, which nobody needs to know
    wasLive ||= link === "live";
    given.onLink?.(link, error);
  };
  const options = { ...given, onLink };
  const taker = new Taker(options);
  const isBrowser = typeof document !== "undefined";
  const locks = isBrowser ? globalThis.navigator?.locks : undefined;
  if (source.isShared && locks && typeof BroadcastChannel === "function") {
    for (let began = -Infinity, often = 0; ; ) {
      // A stream that begins anew again and again is not asked for without a pause.
      often = performance.now() - began < STEADY_MS ? often + 1 : 0;
      if (often) await pause(backoff(often), options.signal);
      began = performance.now();
      if (taker.isOver) break;
      const key = await source.token?.();
      const reader = await begin(source, taker, options);
      if (taker.isOver) break;
      if (!reader) break; // an older server does not say who reads
      if (await new Shared(source, taker, options, locks, reader, key).run()) break;
    }
  }
  if (!taker.isOver) {
    // Without locks nobody knows how many tabs there are: a socket is none of the six connections.
    const ways = isBrowser && !locks && source.isShared ? source.ways.slice(1) : source.ways;
    await readToEnd(new FeedReader(ways, taker), options, ways.length);
  }
  if (taker.thrown) throw taker.thrown.error;
}

/** Reads a page; resolves with who reads, as the server says. */
async function begin(source: Source, taker: Taker, options: FeedOptions): Promise<string | undefined> {
  let reader: string | undefined;
  const once: Connect = async ({ after, signal, alive, take, flush, over }) => {
    const page = await source.page(after, "no", signal);
    alive();
    for (const { cursor = "", event } of page.events) take(cursor, JSON.stringify(event));
    flush();
    reader = page.reader;
    over();
  };
  await readToEnd(new FeedReader([once], taker), options);
  return reader;
}

class Shared {
  readonly name: string;
  #channel: BroadcastChannel | undefined;
  /** The turn in which this tab leads. */
  #leads: AbortController | undefined;
  /** Ends when the wait for the lock, or the lead, is to end. */
  #turn = new AbortController();
  /** The next turn takes the lock away. */
  #robs = false;
  #left = false;
  #failure: { error: unknown } | undefined;
  #link: LinkState = "live";
  /** Who was there last: for a tab that comes. */
  #presence: Row | undefined;
  #heard = performance.now();
  /** How often it was looked since the leader was asked. */
  #unanswered = 0;
  /** What came while a page is read; undefined when none is. */
  #held: Told[] | undefined;

  constructor(
    readonly source: Source,
    readonly taker: Taker,
    readonly options: FeedOptions,
    readonly locks: LockManager,
    readonly reader: string,
    readonly key: string | undefined,
  ) {
    this.name = `tokenwire:feed:${source.name}:${reader}`;
  }

  /** Resolves with whether the reading is over; else it begins anew, with another page. */
  async run(): Promise<boolean> {
    const channel = (this.#channel = new BroadcastChannel(this.name));
    channel.onmessage = ({ data }) => this.#hear(data as Told);
    const forget = onAbort(this.options.signal, () => this.#turn.abort());
    const silence = Math.min(this.options.watchdogMs ?? SILENCE_MS, SILENCE_MS);
    const watch = setInterval(() => this.#look(silence), silence / 3);
    this.#tell({ hello: true });
    while (!this.#isOver) await this.#inTurn();
    clearInterval(watch);
    forget();
    this.#channel = undefined;
    channel.close();
    if (this.#failure) throw this.#failure.error;
    return !this.#left || this.taker.isOver;
  }

  get #isOver(): boolean {
    return this.#left || !!this.#failure || this.taker.isOver;
  }

  /** Waits for the lock, and leads; to the end of the turn. */
  #inTurn(): Promise<void> {
    const turn = (this.#turn = new AbortController());
    const how = this.#robs ? { steal: true } : { signal: turn.signal };
    this.#robs = false;
    return new Promise((resolve) => {
      const end = () => {
        turn.abort();
        if (this.#leads === turn) this.#leads = undefined;
        resolve();
      };
      const work = () => this.#lead(turn).catch((error: unknown) => this.#fail(error)).finally(end);
      // Rejects when the wait is ended, and when another tab took the lock.
      this.locks.request(this.name, how, work).catch(end);
    });
  }

  async #lead(turn: AbortController): Promise<void> {
    if (turn.signal.aborted || this.#isOver) return;
    this.#leads = turn;
    this.#tell({ at: this.taker.cursor, link: this.#link });
    const ways = this.source.ways.map((way): Connect => async (request) => {
      // With another token it may be another principal.
      if ((await this.source.token?.()) === this.key) return way(request);
      this.#leave();
    });
    const told = (rows: Row[], from: string) => this.#leads === turn && this.#share(rows, from);
    const onLink: FeedOptions["onLink"] = (link, error) => {
      this.#link = link;
      if (this.#leads === turn) this.#tell({ link });
      this.options.onLink?.(link, error);
    };
    const options = { ...this.options, signal: turn.signal, onLink };
    await withSlot(this.locks, (free) => {
      const open = ways.slice(free ? 0 : 1);
      return readToEnd(new FeedReader(open, this.taker, told), options, open.length);
    });
  }

  #share(rows: Row[], from: string): void {
    const begins = rows.findIndex(([, { type }]) => beginsAnew(type));
    const shared = begins < 0 ? rows : rows.slice(0, begins);
    this.#presence = shared.findLast(([, { type }]) => type === "presence") ?? this.#presence;
    if (shared.length) this.#tell({ rows: shared, from });
    if (begins >= 0) this.#leave();
  }

  #leave(): void {
    this.#left = true;
    this.#turn.abort();
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#turn.abort();
  }

  /** A quiet stream and a leader that is gone look the same from here, until the leader is asked.
   * Looks are counted, not time: a machine that slept answers before it looks again. */
  #look(silence: number): void {
    if (this.#leads || performance.now() - this.#heard < silence) return;
    if (!this.#unanswered) this.#tell({ hello: true });
    if (this.#unanswered++ < LOOKS) return;
    this.#unanswered = 0;
    this.#robs = true;
    this.#turn.abort();
  }

  #tell(told: Told): void {
    this.#channel?.postMessage(told);
  }

  #hear(told: Told): void {
    if (told.hello && this.#leads) {
      this.#tell({ at: this.taker.cursor, link: this.#link });
      if (this.#presence) this.#tell({ rows: [this.#presence] });
    }
    if (told.hello || this.#leads || this.#isOver) return;
    this.#heard = performance.now();
    this.#unanswered = 0;
    if (told.link) this.options.onLink?.(told.link);
    if (this.#held) {
      if (this.#held.push(told) > MOST_HELD) this.#held.splice(0, MOST_HELD);
    } else if (this.#follows(told)) this.#take(told.rows);
    else void this.#catchUp(told);
  }

  /** Whether nothing is missing before what is told. */
  #follows({ from, at }: Told): boolean {
    return [from, at].every((place) => place === undefined || this.taker.reaches(place));
  }

  #take(rows: Row[] = []): void {
    try {
      this.taker.take(rows);
    } catch {
      this.#turn.abort(); // the taker keeps what was thrown
    }
  }

  /** Reads what is missing before what was told, in pages of this tab's own. */
  async #catchUp(told: Told): Promise<void> {
    const { signal } = this.#turn;
    const held = (this.#held = [told]);
    let isCut = false;
    for (let tries = 0; held.length && !signal.aborted && !this.#leads; tries++) {
      try {
        const { events, reader } = await this.source.page(this.taker.cursor, "no", signal);
        if (isCut) this.options.onLink?.("live");
        isCut = false;
        this.#take(events.map(({ cursor = "", event }) => [cursor, event]));
        if (reader !== this.reader || events.some(({ event }) => beginsAnew(event.type))) this.#leave();
        while (held.length && !this.#isOver && this.#follows(held[0]!)) this.#take(held.shift()!.rows);
      } catch (error) {
        const failed = asError(error);
        if (signal.aborted) break;
        if (failed.code === "bad_cursor") this.#leave();
        else if (isFatal(failed)) this.#fail(failed);
        else {
          isCut = true;
          this.options.onLink?.("reconnecting", failed);
        }
      }
      if (held.length) await pause(backoff(tries, 100, 5000), signal, false);
    }
    this.#held = undefined;
  }
}

/** After these nothing is as it was before. */
function beginsAnew(type: FeedEvent["type"]): boolean {
  return type === "reset" || type === "snapshot";
}
