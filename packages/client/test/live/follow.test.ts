/* A conversation is followed through any cut: each event once and in order; errors have names. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { WebSocket as NodeSocket } from "ws";
import { Fold, textOf, TokenwireClient } from "../../src/index.js";
import { ThreadFold } from "../../src/live/view.js";
import { type FollowThreadOptions, Thread, type ThreadEvent } from "../../src/threads/thread.js";
import { followThreads, type ThreadListEvent, Threads } from "../../src/state/threads.js";
import { type Real, startProxy, startServer } from "../real.js";
import { serve, STREAM } from "../serve.js";

let server: Real;
beforeAll(async () => void (server = await startServer()), 60_000);
afterAll(() => server.stop());
beforeEach(() => void vi.spyOn(Math, "random").mockReturnValue(0)); // come back at once
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

const STREAMS = /^GET \/v1\/threads\/[^ ]+\/events/;
const threadAt = (url: string, id: string, more = {}) => new Thread(new TokenwireClient({ baseUrl: url, ...more }), id);

/** Reads until `count` runs have ended; `opened` is called with the snapshot. */
async function read(thread: Thread, count: number, options: FollowThreadOptions = {}, opened = () => {}) {
  const got: ThreadEvent[] = [];
  for await (const event of thread.follow(options)) {
    got.push(event);
    if (event.type === "snapshot") opened();
    if (event.type === "run-ended" && --count === 0) break;
  }
  return got;
}

/** Two readers that have their snapshots, then two turns. */
async function twoTurns(id: string, first: (opened: () => void) => Promise<ThreadEvent[]>) {
  const thread = threadAt(server.url, id);
  const opened: Promise<void>[] = [];
  const begin = (reader: (opened: () => void) => Promise<ThreadEvent[]>) => {
    let done: Promise<ThreadEvent[]>;
    opened.push(new Promise((resolve, reject) => (done = reader(resolve), done.catch(reject))));
    return done!;
  };
  const both = [begin((is) => read(thread, 2, { runs: true }, is)), begin(first)];
  await Promise.all(opened);
  await thread.send({ prompt: "one two three" });
  await thread.send({ prompt: "four", while_busy: "queue" });
  return Promise.all(both);
}

const PASSING = ["presence", "typing", "snapshot"];
const own = (events: ThreadEvent[]) =>
  events.filter(({ type }) => ![...PASSING, "run-event"].includes(type)).map((event) => JSON.stringify(event));
const ofRuns = (events: ThreadEvent[]) => {
  const runs: Record<string, string[]> = {};
  for (const one of events) if (one.type === "run-event") (runs[one.run] ??= []).push(`${one.cursor} ${JSON.stringify(one.event)}`);
  return runs;
};
const folded = (events: ThreadEvent[]) => {
  const fold = new ThreadFold();
  for (const event of events) fold.apply(event, 0);
  return fold.state;
};

describe("cut at every event, each comes once and in order", () => {
  it.each(["a stream", "a socket", "long polling"])("%s", async (way) => {
    // A head, what passes at each beginning, and one event or a little more. What is behind comes
    // in one message or page, so there the cuts move on.
    const bytes = (n: number) => 900 + (way === "a stream" ? (n % 12) * 50 : n * 160);
    const chosen = way === "a socket" ? /^GET \/ws / : STREAMS;
    const proxy = await startProxy(server.url, bytes, chosen);
    const refused: typeof fetch = async (input, init) => {
      const isStream = new Headers(init?.headers).get("accept") === "text/event-stream";
      if (isStream && way !== "a stream") throw new TypeError("no streams here");
      return fetch(input, init);
    };
    vi.stubGlobal("WebSocket", way === "a socket" ? NodeSocket : undefined);
    const cut = threadAt(proxy.url, `cut-${way.replace(" ", "-")}`, { fetch: refused });
    const [whole, pieces] = await twoTurns(cut.id, (opened) => read(cut, 2, { runs: true }, opened));
    // How many events a page or a message holds is a matter of speed, so there it is one cut at least.
    expect(proxy.cuts()).toBeGreaterThan(way === "a stream" ? 20 : 0);
    expect(own(pieces!)).toEqual(own(whole!));
    expect(ofRuns(pieces!)).toEqual(ofRuns(whole!));
    expect(Object.keys(ofRuns(whole!))).toHaveLength(2);
    for (const events of Object.values(ofRuns(whole!))) expect(events.at(-1)).toContain('"run-end"');
    await proxy.stop();
  }, 120_000);

  it("and what they amount to is the server's own snapshot", async () => {
    const thread = threadAt(server.url, "folded");
    const got: ThreadEvent[] = [];
    let ended = 0;
    for await (const event of thread.follow()) {
      got.push(event);
      if (event.type === "snapshot") {
        await thread.send({ prompt: "scenario:stall" });
        await thread.send({ prompt: "two", while_busy: "queue" });
        const last = await thread.send({ prompt: "three", while_busy: "queue" });
        await thread.edit(last.id, "third");
        await thread.sendNow(last.id);
        await thread.rename("A name");
      }
      if (event.type === "run-ended" && ++ended === 3) break;
    }
    const { head, queue, running, turns } = folded(got);
    for await (const event of thread.follow()) {
      if (event.type !== "snapshot") continue;
      expect({ head, queue, running, turns }).toEqual({ head: event.head, queue: [], running: [], turns: event.turns });
      expect([event.turns.length, event.title]).toEqual([3, "A name"]);
      break;
    }
  }, 60_000);

  it("and a loop that was left goes on after its last event", async () => {
    const thread = threadAt(server.url, "left-and-back");
    const events = thread.follow({ runs: true });
    const got: ThreadEvent[] = [];
    for (let isOver = false; !isOver; ) {
      for await (const event of events) {
        got.push(event);
        if (event.type === "snapshot") await thread.send({ prompt: "one" });
        isOver = event.type === "run-ended";
        if (events.cursor && !PASSING.includes(event.type)) break; // after each
      }
    }
    const [runs] = Object.values(ofRuns(got));
    const fold = new Fold();
    for (const one of got) if (one.type === "run-event") fold.apply(one.event);
    expect(runs!.map((row) => parseInt(row, 10))).toEqual(runs!.map((_, at) => at + 1));
    expect(textOf(fold.state)).not.toBe("");
    expect(new Set(own(got)).size).toBe(own(got).length);
  }, 60_000);
});

describe("what the server says", () => {
  const sse = (...events: object[]) => events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("");
  const SNAPSHOT = { type: "snapshot", thread: "t", at: 1, by: null, title: null, head: null, queue: [], running: [], turns: [], members: null };
  const title = (n: number) => `id: ${n}-0123456789abcdef\ndata: ${JSON.stringify({ type: "title", title: `${n}` })}\n\n`;

  it.each([
    [401, "not_authenticated"],
    [403, "forbidden"],
    [404, "not_found"],
  ])("%d ends the reading as an error, also in the middle", async (status, code) => {
    let asked = 0;
    const url = await serve((_, response) => {
      if (asked++) {
        response.writeHead(status).end(JSON.stringify({ error: { code, message: "no" } }));
        return;
      }
      response.writeHead(200, STREAM);
      response.end(`id: 1-0123456789abcdef\n${sse(SNAPSHOT, { type: "reconnect", after_ms: 1, reason: "gone" })}`);
    });
    const got: string[] = [];
    const reading = (async () => {
      for await (const { type } of threadAt(url, "t").follow()) got.push(type);
    })();
    await expect(reading).rejects.toMatchObject({ code, status });
    expect([got, asked]).toEqual([["snapshot"], 2]);
  });

  it("a cursor that it does not take is a reset, and a reading from the start", async () => {
    const cursors: (string | undefined)[] = [];
    const url = await serve((request, response) => {
      const after = request.headers["last-event-id"] as string | undefined;
      cursors.push(after);
      if (after) return void response.writeHead(400).end('{"error":{"code":"bad_cursor","message":"no"}}');
      response.writeHead(200, STREAM).write(`id: 9-0123456789abcdef\n${sse(SNAPSHOT)}`);
    });
    const got: string[] = [];
    for await (const { type } of threadAt(url, "t").follow({ after: "7-aaaaaaaaaaaaaaaa" })) {
      got.push(type);
      if (type === "snapshot") break;
    }
    expect([got, cursors]).toEqual([["reset", "snapshot"], ["7-aaaaaaaaaaaaaaaa", undefined]]);
  });

  it("nothing for too long: another connection, and no event twice", async () => {
    let asked = 0;
    const url = await serve((request, response) => {
      response.writeHead(200, STREAM);
      asked++;
      // It repeats what the reader has: a cache between, say.
      const begin = request.headers["last-event-id"] ? "" : `id: 1-0123456789abcdef\n${sse(SNAPSHOT)}`;
      response.write(begin + title(2) + (asked > 1 ? title(3) : ""));
    });
    const got: unknown[] = [];
    const links: string[] = [];
    const options = { watchdogMs: 200, onLink: (link: string) => void links.push(link) };
    for await (const event of threadAt(url, "t").follow(options)) {
      got.push(event.type === "title" ? event.title : event.type);
      if (got.length === 3) break;
    }
    expect([got, asked]).toEqual([["snapshot", "2", "3"], 2]);
    expect(links).toContain("reconnecting");
  });

  it("an abort ends the loop without an error", async () => {
    const life = new AbortController();
    const got: string[] = [];
    for await (const { type } of threadAt(server.url, "aborted").follow({ signal: life.signal })) {
      got.push(type);
      life.abort();
    }
    expect(got).toHaveLength(1);
  });
});

describe("the list of conversations", () => {
  it("is followed through any cut, and is what the server lists", async () => {
    const bytes = (n: number) => 900 + (n % 12) * 50;
    const proxy = await startProxy(server.url, bytes, /^GET \/v1\/threads\?live=sse /);
    const client = new TokenwireClient({ baseUrl: proxy.url });
    const shown = new Threads(client);
    const life = new AbortController();
    void shown.follow(life.signal);
    await vi.waitFor(() => expect(shown.getSnapshot().loading).toBe(false), { timeout: 45_000 });
    const [one, two] = ["listed-one", "listed-two"].map((id) => threadAt(server.url, id));
    await one!.send({ prompt: "scenario:stall" });
    await one!.send({ prompt: "waits", while_busy: "queue" });
    await two!.send({ prompt: "short" });
    const entry = (id: string) => shown.getSnapshot().threads.find(({ thread }) => thread === id);
    await vi.waitFor(() => expect(entry("listed-one")).toMatchObject({ state: "running", queue: 1 }), { timeout: 45_000 });
    await vi.waitFor(() => expect(entry("listed-two")?.state).toBeUndefined(), { timeout: 45_000 });
    for (let n = 0; n < 12; n++) await two!.rename(`Name ${n}`);
    await vi.waitFor(() => expect(entry("listed-two")?.title).toBe("Name 11"), { timeout: 45_000 });
    await new TokenwireClient({ baseUrl: server.url }).json("DELETE", "/v1/threads/listed-one");
    await vi.waitFor(() => expect(entry("listed-one")).toBeUndefined(), { timeout: 45_000 });
    expect(shown.isRemoved("listed-one")).toBe(true);
    const listed = (await client.json("GET", "/v1/threads")) as { threads: object[] };
    expect(shown.getSnapshot().threads).toEqual(listed.threads);
    expect(proxy.cuts()).toBeGreaterThan(1);
    life.abort();
    await proxy.stop();
  }, 120_000);

  it("is iterated from a snapshot", async () => {
    const thread = threadAt(server.url, "iterated");
    const got: ThreadListEvent[] = [];
    for await (const event of followThreads(new TokenwireClient({ baseUrl: server.url }))) {
      got.push(event);
      if (event.type === "snapshot") await thread.send({ prompt: "one" });
      if (event.type === "thread" && event.thread === "iterated" && !event.entry.state) break;
    }
    expect(got[0]).toMatchObject({ type: "snapshot" });
  }, 60_000);

  it("of an older server, that has no such stream, is an error", async () => {
    const url = await serve((_, response) => void response.end('{"threads":[]}'));
    vi.stubGlobal("WebSocket", undefined);
    const shown = new Threads(new TokenwireClient({ baseUrl: url }));
    await shown.follow(new AbortController().signal);
    expect(shown.getSnapshot()).toMatchObject({ live: "failed", error: { code: "protocol_error" } });
  });
});

it("members are listed and invitations made, revoked and refused", async () => {
  const tried: string[] = [];
  const url = await serve((request, response) => {
    tried.push(`${request.method} ${request.url}`);
    const isGone = request.method === "DELETE" && tried.length > 1;
    if (request.method === "DELETE" && tried.length === 1) return void request.socket.destroy();
    response.writeHead(isGone ? 404 : 200).end(JSON.stringify({ principal: "a/b", members: [], invites: [] }));
  });
  const { members } = threadAt(url, "t");
  await members.remove("a/b"); // its answer was lost
  await expect(members.remove("a/b")).rejects.toMatchObject({ status: 404 });
  expect((await members.list()).members).toEqual([]);
  expect(await members.invites()).toEqual([]);
  await expect(members.leave()).rejects.toMatchObject({ status: 404 });
  await expect((async () => members.remove(".."))()).rejects.toThrow("expected a name");
  expect(tried[0]).toBe("DELETE /v1/threads/t/members/a%2Fb");
});
