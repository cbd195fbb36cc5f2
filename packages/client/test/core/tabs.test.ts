/* Tabs of one origin that read the same run: one connection, and nobody waits for a tab that went. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Delivered, type FollowOptions, TokenwireClient } from "../../src/index.js";

const RUN = "run_0123456789abcdef";
const COUNT = 12;

/** The browser's locks, as far as tabs use them. */
class Locks {
  #waiting = new Map<string, (() => void)[]>();

  async request(name: string, ...rest: unknown[]): Promise<unknown> {
    const work = rest.pop() as (lock: object | null) => unknown;
    const { signal, ifAvailable } = (rest[0] ?? {}) as { signal?: AbortSignal; ifAvailable?: boolean };
    signal?.throwIfAborted();
    const queue = this.#waiting.get(name);
    if (queue && ifAvailable) return work(null);
    if (queue) {
      await new Promise<void>((go, no) => {
        queue.push(go);
        signal?.addEventListener("abort", () => {
          queue.splice(queue.indexOf(go), 1);
          no(signal.reason as Error);
        });
      });
    } else this.#waiting.set(name, []);
    try {
      return await work({ name });
    } finally {
      const next = this.#waiting.get(name)!.shift();
      if (next) next();
      else this.#waiting.delete(name);
    }
  }
}

/** A log that grows, read by any number of streams. */
class Server {
  events: string[] = [];
  asked: string[] = [];
  #open = new Set<() => void>();
  #closed = false;
  #last = 0;

  say(...events: object[]): void {
    for (const event of events) {
      const at = ++this.#last;
      this.events.push(`id: ${at}-ab\ndata: ${JSON.stringify({ ...event, seq: at })}\n\n`);
    }
    this.#closed ||= JSON.stringify(events).includes("run-end");
    for (const wake of this.#open) wake();
  }

  /** The log is lost, and begins anew. */
  restart(): void {
    this.events = [];
    this.#last = 0;
    for (const wake of this.#open) wake();
  }

  get open(): number {
    return this.#open.size;
  }

  fetch: typeof fetch = async (input, init) => {
    if (!String(input).endsWith("/events")) throw new TypeError("only streams here");
    const after = new Headers(init?.headers).get("last-event-id") ?? "";
    this.asked.push(after);
    let at = Math.max(parseInt(after, 10) || 0, 0);
    if (at > this.events.length) {
      return new Response('{"error":{"code":"bad_cursor","message":"not of this log"}}', { status: 400 });
    }
    let wake = () => {};
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        wake = () => {
          if (at > this.events.length) {
            this.#open.delete(wake);
            controller.close();
            return;
          }
          const rest = this.events.slice(at).join("");
          at = this.events.length;
          controller.enqueue(new TextEncoder().encode(rest || ": ok\n\n"));
          if (this.#closed) {
            this.#open.delete(wake);
            controller.close();
          }
        };
        this.#open.add(wake);
        init?.signal?.addEventListener("abort", () => {
          if (this.#open.delete(wake)) controller.error(init.signal!.reason);
        });
        wake();
      },
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
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

const START = { type: "run-start", run: RUN };
const END = { type: "run-end", outcome: "complete" };
const words = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, n) => ({ type: "text-delta", part: 0, text: `${from + n} ` }));
const ALL = [START, ...words(0, COUNT), END].map((_, at) => `${at + 1}-ab`);

function tab(more: Partial<FollowOptions> = {}, run = RUN) {
  const got: Delivered[] = [];
  const links: string[] = [];
  const resets: string[] = [];
  const life = new AbortController();
  const client = new TokenwireClient({ fetch: server.fetch, baseUrl: "http://tabs.test" });
  const done = client.follow(run, {
    signal: life.signal,
    onEvents: (batch) => got.push(...batch),
    onLink: (link) => links.push(link),
    onReset: (reason) => {
      got.length = 0;
      resets.push(reason);
    },
    ...more,
  });
  return { got, links, resets, done, close: () => life.abort(), cursors: () => got.map(({ cursor }) => cursor) };
}

const until = (check: () => void) => vi.waitFor(check, { timeout: 10_000, interval: 5 });

describe("tabs", () => {
  it("share one connection, and each hears everything once", async () => {
    const tabs = [tab(), tab(), tab()];
    server.say(START, ...words(0, 5));
    await until(() => tabs.forEach((one) => expect(one.got).toHaveLength(6)));
    const late = tab();
    await until(() => expect(late.got).toHaveLength(6));
    expect([server.open, server.asked]).toEqual([1, [""]]);
    server.say(...words(5, COUNT), END);
    await Promise.all([...tabs, late].map(({ done }) => done));
    for (const one of [...tabs, late]) expect(one.cursors()).toEqual(ALL);
    expect(server.asked).toEqual([""]);
    expect(tabs[2]!.links.at(-1)).toBe("live");
  });

  it("go on when the tab that reads is closed, from where the next one is", async () => {
    const [first, second, third] = [tab(), tab(), tab()];
    server.say(START, ...words(0, 5));
    await until(() => [second, third].forEach((one) => expect(one.got).toHaveLength(6)));
    first.close();
    await first.done;
    server.say(...words(5, COUNT), END);
    await Promise.all([second.done, third.done]);
    expect(second.cursors()).toEqual(ALL);
    expect(third.cursors()).toEqual(ALL);
    expect(server.asked).toEqual(["", "6-ab"]);
  });

  it("read alone when the one that reads has not what they miss", async () => {
    server.say(START, ...words(0, 5));
    const first = tab({ after: "4-ab" });
    await until(() => expect(first.got).toHaveLength(2));
    const second = tab();
    await until(() => expect(second.got).toHaveLength(6));
    server.say(...words(5, COUNT), END);
    await Promise.all([first.done, second.done]);
    expect(first.cursors()).toEqual(ALL.slice(4));
    expect(second.cursors()).toEqual(ALL);
  });

  it("do not wait for a frozen one that keeps the lock", async () => {
    void locks.request(`tokenwire:http://tabs.test:${RUN}`, () => new Promise(() => undefined));
    server.say(START, ...words(0, COUNT), END);
    const one = tab({ watchdogMs: 60 });
    await one.done;
    expect(one.cursors()).toEqual(ALL);
  });

  it("do not take a quiet run for a frozen tab", async () => {
    const [first, second] = [tab(), tab({ watchdogMs: 45 })];
    server.say(START);
    await until(() => expect(second.got).toHaveLength(1));
    const asked = vi.spyOn(BroadcastChannel.prototype, "postMessage");
    // It asks several times over, and is answered.
    await until(() => expect(asked.mock.calls.filter(([told]) => told.want).length).toBeGreaterThan(3));
    expect(server.open).toBe(1);
    server.say(...words(0, COUNT), END);
    await Promise.all([first.done, second.done]);
    expect(second.cursors()).toEqual(ALL);
    expect(server.asked).toHaveLength(1);
  });

  it("reject with what their own function threw, and leave the others alone", async () => {
    const first = tab();
    const mine = new Error("mine");
    const second = tab({
      onEvents: () => {
        throw mine;
      },
    });
    const failed = expect(second.done).rejects.toBe(mine);
    server.say(START, ...words(0, COUNT), END);
    await failed;
    await first.done;
    expect(first.cursors()).toEqual(ALL);
  });

  it("all forget when the log is another", async () => {
    const [first, second] = [tab(), tab()];
    server.say(START, ...words(0, 3));
    await until(() => expect(second.got).toHaveLength(4));
    server.restart();
    await until(() => expect([first.resets, second.resets]).toEqual([["bad_cursor"], ["bad_cursor"]]));
    server.say(START, ...words(0, COUNT), END);
    await Promise.all([first.done, second.done]);
    expect(first.cursors()).toEqual(ALL);
    expect(second.cursors()).toEqual(ALL);
  });

  it("leave two of six connections free: the fifth run reads over a socket", async () => {
    const sockets: string[] = [];
    vi.stubGlobal(
      "WebSocket",
      class {
        onclose?: () => void;
        readyState = 3;
        constructor(url: string) {
          sockets.push(url);
          setTimeout(() => this.onclose?.());
        }
        close(): void {}
        send(): void {}
      },
    );
    const runs = [1, 2, 3, 4, 5].map((n) => `run_${n}123456789abcdef`);
    const tabs = runs.map((run) => tab({}, run));
    await until(() => expect(sockets.length).toBeGreaterThan(0));
    expect(server.open).toBe(4);
    expect(sockets[0]).toBe("ws://tabs.test/ws");
    for (const one of tabs) one.close();
    await Promise.all(tabs.map(({ done }) => done));
    expect(server.open).toBe(0);
  });
});
