/* Tabs of one origin that follow the same conversation: one connection, nothing lost or told twice,
whoever goes; and principals apart. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TokenwireClient } from "../../src/index.js";
import type { FeedEvent } from "../../src/live/events.js";
import { type Arrival, feedOf } from "../../src/live/feed.js";
import { followFeed } from "../../src/live/shared.js";
import { Locks } from "./locks.js";

const RUN = "run_0123456789abcdef";

/** A conversation with one run, read by any number of streams; of each principal its own. */
class Server {
  /** Rows with the place in the feed and the one in the run, -1 while it is not open. */
  rows: { event: FeedEvent; feed: number; run: number }[] = [];
  asked: string[] = [];
  #open = new Map<() => void, string>();
  /** Another number is another conversation. */
  epoch = 0;
  readers = (key: string | undefined) => `reader-${key ?? ""}`;

  get open(): number {
    return this.#open.size;
  }

  #last(): { feed: number; run: number } {
    return this.rows.at(-1) ?? { feed: 0, run: -1 };
  }

  say(...events: FeedEvent[]): void {
    for (const event of events) {
      const { feed, run } = this.#last();
      if (event.type === "run-event") {
        const cursor = `${run + 1}-${this.#check()}`;
        const isEnd = (event.event as FeedEvent).type === "run-end";
        this.rows.push({ event: { ...event, run: RUN, cursor }, feed, run: isEnd ? -1 : run + 1 });
      } else this.rows.push({ event, feed: feed + 1, run: event.type === "run-started" ? 0 : run });
    }
    for (const wake of [...this.#open.keys()]) wake();
  }

  /** What only passes. */
  pass(event: FeedEvent): void {
    for (const wake of [...this.#open.keys()]) (wake as (event?: FeedEvent) => void)(event);
  }

  cut(): void {
    for (const wake of [...this.#open.keys()]) (wake as (event?: FeedEvent) => void)({ type: "cut" });
  }

  #check(): string {
    return `${this.epoch}`.padStart(16, "0");
  }

  #cursor({ feed, run }: { feed: number; run: number }): string {
    const runs = run < 0 ? "~" : `~${RUN}:${run === 0 ? "0" : `${run}-${this.#check()}`}`;
    return `${feed}-${this.#check()}${runs}`;
  }

  /** The rows after a cursor; `undefined` for one of another epoch. */
  #after(cursor: string): number | undefined {
    if (!cursor) return this.rows.length;
    if (cursor === this.#cursor({ feed: 0, run: -1 })) return 0;
    const at = this.rows.findIndex((row) => this.#cursor(row) === cursor);
    return at < 0 ? undefined : at + 1;
  }

  #first(after: string): { at: number; events: [string, FeedEvent][] } {
    const at = this.#after(after);
    const now = this.#cursor(this.#last());
    const snapshot: [string, FeedEvent] = [now, { type: "snapshot", count: this.rows.length }];
    if (at === undefined) return { at: this.rows.length, events: [["", { type: "reset", reason: "unknown" }], snapshot] };
    return { at, events: after ? [] : [snapshot] };
  }

  fetch: typeof fetch = async (input, init) => {
    const url = new URL(String(input));
    const headers = new Headers(init?.headers);
    const key = headers.get("authorization")?.slice(7);
    if (key === "bad") return new Response('{"error":{"code":"forbidden","message":"no"}}', { status: 403 });
    if (url.searchParams.get("live") === "no") {
      const after = url.searchParams.get("after") ?? "";
      this.asked.push(`page ${after}`);
      const first = this.#first(after);
      const rest = this.rows.slice(first.at).map((row): [string, FeedEvent] => [this.#cursor(row), row.event]);
      const events = [...first.events, ...rest].map(([cursor, event]) => (cursor ? { cursor, event } : { event }));
      return Response.json({ events, next: this.#cursor(this.#last()), reader: this.readers(key) });
    }
    if (!headers.get("accept")) throw new TypeError("only streams and pages here");
    const after = headers.get("last-event-id") ?? "";
    this.asked.push(`stream ${after}`);
    const encoder = new TextEncoder();
    const block = ([cursor, event]: [string, FeedEvent]) => `${cursor ? `id: ${cursor}\n` : ""}data: ${JSON.stringify(event)}\n\n`;
    const first = this.#first(after);
    let { at } = first;
    let wake: (passing?: FeedEvent) => void = () => {};
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        wake = (passing) => {
          if (passing?.type === "cut") {
            this.#open.delete(wake);
            return controller.close();
          }
          const rest = this.rows.slice(at).map((row): [string, FeedEvent] => [this.#cursor(row), row.event]);
          at = this.rows.length;
          const text = rest.map(block).join("") + (passing ? block(["", passing]) : "");
          if (text) controller.enqueue(encoder.encode(text));
        };
        controller.enqueue(encoder.encode(`: ok\n\n${first.events.map(block).join("")}`));
        this.#open.set(wake, after);
        init?.signal?.addEventListener("abort", () => {
          if (this.#open.delete(wake)) controller.error(init.signal!.reason);
        });
        wake();
      },
      cancel: () => void this.#open.delete(wake),
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
}

let server: Server;
let locks: Locks;
beforeEach(() => {
  server = new Server();
  locks = new Locks();
  vi.stubGlobal("navigator", { locks });
  vi.stubGlobal("document", { visibilityState: "visible", hidden: false });
  vi.spyOn(Math, "random").mockReturnValue(0);
});
const tabs: { close(): void; done: Promise<void> }[] = [];
afterEach(async () => {
  for (const one of tabs.splice(0)) {
    one.close();
    await one.done.catch(() => undefined);
  }
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

function tab(more: { token?: () => string; watchdogMs?: number; after?: string } = {}) {
  const { token, ...options } = more;
  const got: Arrival<FeedEvent>[] = [];
  const life = new AbortController();
  const client = new TokenwireClient({ fetch: server.fetch, baseUrl: "http://tabs.test", ...(token ? { token } : {}) });
  const source = feedOf(client, "/v1/threads/t/events", { runs: "full" }, { op: "follow-thread", thread: "t" });
  const done = followFeed(source, { ...options, signal: life.signal, onEvents: (batch) => got.push(...batch) });
  done.catch(() => undefined);
  const made = {
    got,
    done,
    close: () => life.abort(),
    /** What it has, from the snapshot on, in the order of the conversation. */
    rows: () => {
      const from = got.findLastIndex(({ event }) => event.type === "snapshot");
      const skipped = Number(got[from]?.event.count ?? 0);
      const kept = got.slice(from + 1).filter(({ event }) => !["presence", "typing"].includes(event.type));
      return [...server.rows.slice(0, skipped).map(({ event }) => event), ...kept.map(({ event }) => event)];
    },
    passed: () => got.flatMap(({ event }) => (event.type === "presence" ? [event.principals] : [])),
  };
  tabs.push(made);
  return made;
}

const until = (check: () => void) => vi.waitFor(check, { timeout: 20_000, interval: 5 });
const all = () => server.rows.map(({ event }) => event);
const allHave = (...them: ReturnType<typeof tab>[]) =>
  until(() => {
    for (const one of them) expect(one.rows()).toEqual(all());
  });
const title = (n: number) => ({ type: "title", title: `${n}` });
const word = (n: number) => ({ type: "run-event", event: { type: "text-delta", text: `${n}` } });
const START = { type: "run-started", run: RUN };
const END = { type: "run-event", event: { type: "run-end" } };
const ENDED = { type: "run-ended", run: RUN, outcome: "complete" };
const streams = () => server.asked.filter((one) => one.startsWith("stream"));

describe("seven tabs", () => {
  it("share one connection; one that comes late has the snapshot and who is there", async () => {
    const seven = Array.from({ length: 7 }, () => tab());
    await until(() => expect(server.open).toBe(1));
    await until(() => seven.forEach(({ got }) => expect(got).toHaveLength(1)));
    server.say(title(1), START, word(1), word(2));
    server.pass({ type: "presence", principals: ["ann"] });
    await allHave(...seven);
    const late = tab();
    await until(() => expect(late.passed()).toEqual([["ann"]]));
    server.say(word(3), END, ENDED, title(2));
    await allHave(...seven, late);
    expect([server.open, streams().length]).toEqual([1, 1]);
  });

  it("go on from their own places when the one that reads is closed, at every event", async () => {
    const script = [title(1), START, word(1), word(2), title(2), word(3), END, ENDED, title(3)];
    const them = [tab()];
    await until(() => expect(server.open).toBe(1));
    for (let n = 0; n < script.length; n++) them.push(tab());
    await until(() => them.forEach(({ got }) => expect(got).toHaveLength(1)));
    for (const event of script) {
      server.say(event);
      const first = them.shift()!;
      first.close(); // before or after the others have heard of it
      await first.done;
    }
    await allHave(...them);
    expect(server.open).toBe(1);
  });

  it("take the lock from a frozen one, which loses and repeats nothing when it is back", async () => {
    const frozen = tab();
    await until(() => expect(server.open).toBe(1));
    const others = [tab({ watchdogMs: 60 }), tab({ watchdogMs: 60 })];
    await until(() => others.forEach(({ got }) => expect(got.length).toBeGreaterThan(0)));
    const post = BroadcastChannel.prototype.postMessage;
    // It neither says nor hears anything; its connection stands.
    const { hear } = locks.freeze();
    const mute = vi.spyOn(BroadcastChannel.prototype, "postMessage").mockImplementation(function (this: BroadcastChannel, told: unknown) {
      if (!(told as { rows?: unknown }).rows && (told as { at?: unknown }).at === undefined) post.call(this, told);
    });
    await until(() => expect(locks.steals).toBeGreaterThan(0));
    mute.mockRestore();
    server.say(title(1), START, word(1));
    await allHave(...others);
    hear();
    await allHave(frozen, ...others);
    server.say(word(2), END, ENDED);
    await allHave(frozen, ...others);
    await until(() => expect(server.open).toBe(1));
  });

  it("take what they missed from a page of their own", async () => {
    const [first, second] = [tab(), tab()];
    await until(() => [first, second].forEach(({ got }) => expect(got).toHaveLength(1)));
    const lost = vi.spyOn(BroadcastChannel.prototype, "postMessage").mockImplementation(() => undefined);
    server.say(START, word(1));
    await allHave(first!);
    expect(second!.rows()).toEqual([]);
    lost.mockRestore();
    server.say(word(2));
    await allHave(first!, second!);
    expect([streams().length, server.open]).toEqual([1, 1]);
  });
});

describe("principals", () => {
  it("do not share", async () => {
    const [ann, bob] = [tab({ token: () => "ann" }), tab({ token: () => "bob" })];
    await until(() => expect(server.open).toBe(2));
    server.say(title(1));
    await allHave(ann, bob);
  });

  it("who sign in where another was have a connection of their own, and nobody hears it", async () => {
    let key = "ann";
    const moving = tab({ token: () => key });
    await until(() => expect(server.open).toBe(1));
    const ann = tab({ token: () => "ann" });
    await until(() => expect(ann.got).toHaveLength(1));
    key = "bob";
    const told = vi.spyOn(BroadcastChannel.prototype, "postMessage");
    server.cut();
    await until(() => expect(server.open).toBe(2));
    server.say(title(1));
    await allHave(moving, ann);
    const names = new Set(told.mock.contexts.map((channel) => (channel as BroadcastChannel).name.split(":").at(-1)));
    expect(names).toEqual(new Set(["reader-ann", "reader-bob"]));
  });

  it("each begin anew when the conversation does, and none by what another said", async () => {
    const [first, second] = [tab(), tab()];
    await until(() => [first, second].forEach(({ got }) => expect(got).toHaveLength(1)));
    server.say(title(1));
    await allHave(first!, second!);
    server.rows = [];
    server.epoch = 1;
    const told = vi.spyOn(BroadcastChannel.prototype, "postMessage");
    server.cut();
    await until(() => [first, second].forEach(({ got }) => expect(got.some(({ event }) => event.type === "reset")).toBe(true)));
    server.say(title(5));
    await allHave(first!, second!);
    const rows = told.mock.calls.flatMap(([message]) => (message as { rows?: [string, FeedEvent][] }).rows ?? []);
    expect(rows.filter(([, { type }]) => type === "reset" || type === "snapshot")).toEqual([]);
  });

  it("who may read no more hear it as an error, each of them", async () => {
    let key = "ann";
    const both = [tab({ token: () => key }), tab({ token: () => key })];
    await until(() => both.forEach(({ got }) => expect(got).toHaveLength(1)));
    key = "bad";
    server.cut();
    for (const { done } of both) await expect(done).rejects.toMatchObject({ code: "forbidden", status: 403 });
    expect(server.open).toBe(0);
  });
});

it("without channels, or locks, or with an older server, each tab reads for itself", async () => {
  vi.stubGlobal("WebSocket", undefined);
  vi.stubGlobal("BroadcastChannel", undefined);
  const one = tab();
  await until(() => expect(one.got).toHaveLength(1));
  vi.unstubAllGlobals();
  vi.stubGlobal("document", { visibilityState: "visible", hidden: false });
  vi.stubGlobal("navigator", { locks });
  server.readers = () => undefined as unknown as string;
  const two = tab();
  await until(() => expect(server.open).toBe(2));
  server.say(title(1), START, word(1));
  await allHave(one, two);
});
