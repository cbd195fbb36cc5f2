/* Whatever a person stops is stopped: from the moment of sending, without a network, after a
reload; the run that was meant, and no other. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Conversation } from "../src/state/conversation.js";
import { TokenwireClient } from "../src/index.js";
import { StoppableRun } from "../src/core/stop.js";
import { TokenwireChatTransport, type ChatTransportOptions } from "../src/ai-sdk/transport.js";
import { TokenwireConnection, type ConnectionOptions } from "../src/ag-ui/tanstack.js";

const nameOf = (number: number) => `run_${String(number).padStart(16, "0")}`;

/** A server that starts runs when it is let to, and keeps which were cancelled. */
class Slow {
  runs: { id: string; state: string; thread: string; metadata: unknown }[] = [];
  cancelled: string[] = [];
  starts = 0;
  /** No request gets through. */
  offline = false;
  /** The run is begun, and its answer lost. */
  losing = false;
  refusing: number | undefined;
  #gate: Promise<void> | undefined;
  open = () => {};

  hold(): void {
    this.#gate = new Promise((go) => (this.open = go));
  }

  fetch: typeof fetch = async (input, init) => {
    const path = new URL(String(input), "http://x").pathname;
    const json = (value: unknown, status = 200) => new Response(JSON.stringify(value), { status });
    if (this.offline) throw new TypeError("fetch failed");
    if (path === "/v1/runs") {
      this.starts++;
      await this.#gate;
      if (this.offline && !this.losing) throw new TypeError("fetch failed");
      const { thread, metadata } = JSON.parse(String(init?.body)) as { thread: string; metadata: unknown };
      const id = nameOf(this.runs.length + 1);
      this.runs.push({ id, state: "running", thread, metadata });
      if (this.losing) throw new TypeError("connection lost");
      return json({ id, state: "running" }, 201);
    }
    const at = this.runs.find(({ id }) => path.includes(id));
    if (path.endsWith("/cancel")) {
      if (this.refusing) return json({ error: { code: "forbidden", message: "no" } }, this.refusing);
      this.cancelled.push(at!.id);
      at!.state = "cancelled";
      return json({}, 202);
    }
    if (path.startsWith("/v1/threads/")) {
      const runs = this.runs.filter(({ thread }) => path.endsWith(thread)).reverse();
      return runs.length ? json({ runs }) : json({}, 404);
    }
    if (path.endsWith("/events")) {
      const body = new ReadableStream({
        start: (controller) => {
          const events = [{ type: "run-start", run: at!.id }, { type: "step-start", step: 1 }];
          const lines = events.map((event, n) => `id: ${n + 1}-a\ndata: ${JSON.stringify(event)}\n\n`);
          controller.enqueue(new TextEncoder().encode(lines.join("")));
        },
      });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    }
    return json({ id: at!.id, tail: 2, thread: at!.thread });
  };

  client(): TokenwireClient {
    return new TokenwireClient({ fetch: this.fetch, shareTabs: false });
  }
}

let server: Slow;
const unhandled = vi.fn();
beforeEach(() => {
  server = new Slow();
  vi.spyOn(Math, "random").mockReturnValue(0.001);
  process.on("unhandledRejection", unhandled);
});
afterEach(() => {
  vi.restoreAllMocks();
  process.off("unhandledRejection", unhandled);
  expect(unhandled).not.toHaveBeenCalled();
});

describe("a conversation", () => {
  const begin = () => new Conversation(server.client(), { thread: "thread-1" });

  it("stops a run that has no id yet, and not the one before", async () => {
    const chat = begin();
    const first = chat.send("One");
    await expect.poll(() => first.run).toBe(nameOf(1));
    server.hold();
    const turn = chat.send("Two");
    void chat.stop(turn);
    expect(turn.stopping).toBe("pending");
    await expect.poll(() => server.starts).toBe(2);
    expect(server.cancelled).toEqual([]);
    server.open();
    await expect.poll(() => server.cancelled).toEqual([nameOf(2)]);
    await expect.poll(() => turn.stopping).toBe("accepted");
  });

  it("stops when the line is back, once", async () => {
    const chat = begin();
    const turn = chat.send("One");
    await expect.poll(() => turn.run).toBe(nameOf(1));
    server.offline = true;
    const stopped = chat.stop(turn);
    void chat.stop(turn);
    await new Promise((done) => setTimeout(done, 100));
    expect(turn.stopping).toBe("pending");
    server.offline = false;
    await stopped;
    expect(server.cancelled).toEqual([nameOf(1)]);
  });

  it("says why the server refused, and may be asked again", async () => {
    const chat = begin();
    const turn = chat.send("One");
    await expect.poll(() => turn.run).toBe(nameOf(1));
    server.refusing = 403;
    void chat.stop(turn);
    await expect.poll(() => turn.stopError?.status).toBe(403);
    expect(turn.stopping).toBeUndefined();
    server.refusing = undefined;
    await chat.stop(turn);
    expect(turn.stopError).toBeUndefined();
    expect(server.cancelled).toEqual([nameOf(1)]);
  });

  it("finds the run whose answer to the start was lost, and stops it", async () => {
    const chat = begin();
    server.hold();
    server.losing = true;
    const turn = chat.send("One");
    await expect.poll(() => server.starts).toBe(1);
    void chat.stop(turn);
    server.open();
    await expect.poll(() => server.cancelled).toEqual([nameOf(1)]);
    expect(server.starts).toBe(1);
    expect(turn.error).toBeUndefined();
  });

  it("sends no question that was stopped before it could leave", async () => {
    const chat = begin();
    server.offline = true;
    const turn = chat.send("One");
    void chat.stop(turn);
    await new Promise((done) => setTimeout(done, 100));
    expect(turn.error).toBeUndefined();
    expect(turn.stopping).toBe("pending");
    server.offline = false;
    await expect.poll(() => turn.error?.code).toBe("cancelled");
    expect(server.runs).toEqual([]);
  });
});

it("a start that the server refused leaves nothing to stop", async () => {
  const refused = Object.assign(new Error("no"), { status: 403 });
  const stop = vi.fn();
  const run = new StoppableRun({ cancel: stop }, { start: () => Promise.reject(refused), find: vi.fn() });
  await run.stop();
  expect(stop).not.toHaveBeenCalled();
});

const QUESTION = [{ id: "m1", role: "user" as const, parts: [{ type: "text" as const, text: "Hi" }] }];

describe("the AI SDK's transport", () => {
  const open = (options: ChatTransportOptions = {}) =>
    new TokenwireChatTransport({ client: server.client(), ...options });
  const ask = (transport: TokenwireChatTransport, abortSignal?: AbortSignal) =>
    transport.sendMessages({
      chatId: "chat-1",
      messages: QUESTION,
      trigger: "submit-message",
      messageId: undefined,
      abortSignal,
    });

  it("stops the run that is being started, not the one before", async () => {
    const transport = open();
    await ask(transport);
    server.hold();
    const asked = ask(transport);
    const stopped = transport.stop("chat-1");
    server.open();
    await Promise.all([asked, stopped]);
    expect(server.cancelled).toEqual([nameOf(2)]);
  });

  it("stops the run under way after a reload, and none where there is none", async () => {
    await ask(open());
    await open().stop("chat-1");
    expect(server.cancelled).toEqual([nameOf(1)]);
    await open().stop("chat-1");
    await open().stop("another");
    expect(server.cancelled).toEqual([nameOf(1)]);
  });

  it.each(["cancel", "detach"] as const)("during the start, onStop: %s", async (onStop) => {
    server.hold();
    const life = new AbortController();
    const asked = ask(open({ onStop }), life.signal);
    await expect.poll(() => server.starts).toBe(1);
    life.abort();
    await expect(asked).rejects.toMatchObject({ name: "AbortError" });
    server.open();
    await expect.poll(() => server.runs.length).toBe(1);
    await new Promise((done) => setTimeout(done, 50)); // for a cancel that should not be
    await expect.poll(() => server.cancelled).toEqual(onStop === "cancel" ? [nameOf(1)] : []);
  });

  it.each(["cancel", "detach"] as const)("of a stream that was resumed, onStop: %s", async (onStop) => {
    await ask(open());
    const life = new AbortController();
    const stream = await open({ onStop }).reconnectToStream({
      chatId: "chat-1",
      abortSignal: life.signal,
    });
    const reader = stream!.getReader();
    await reader.read();
    life.abort();
    for (let done = false; !done; ) done = (await reader.read()).done;
    await new Promise((done) => setTimeout(done, 50)); // for a cancel that should not be
    await expect.poll(() => server.cancelled).toEqual(onStop === "cancel" ? [nameOf(1)] : []);
  });
});

describe("TanStack AI's connection", () => {
  const open = (options: ConnectionOptions = {}) =>
    new TokenwireConnection({ client: server.client(), ...options });
  const question = [{ role: "user" as const, content: "Hi" }];
  const context = (runId: string) => ({ threadId: "thread-1", runId }) as never;
  const read = async (chunks: AsyncIterable<unknown>, most = Infinity, onChunk = () => {}) => {
    let seen = 0;
    try {
      for await (const _ of chunks) {
        onChunk();
        if (++seen >= most) break;
      }
    } catch {
      // An abort.
    }
  };

  it("stops the run that is being started, not the one before", async () => {
    const connection = open();
    await read(connection.connect(question, undefined, undefined, context("one")), 1);
    server.hold();
    const life = new AbortController();
    const reading = read(connection.connect(question, undefined, life.signal, context("two")));
    const stopped = connection.stop("thread-1");
    server.open();
    await stopped;
    expect(server.cancelled).toEqual([nameOf(2)]);
    life.abort();
    await reading;
  });

  it("stops the run under way after a reload", async () => {
    await read(open().connect(question, undefined, undefined, context("one")), 1);
    await open().stop("thread-1");
    expect(server.cancelled).toEqual([nameOf(1)]);
  });

  it.each(["cancel", "detach"] as const)("of a run that was joined, onAbort: %s", async (onAbort) => {
    await read(open().connect(question, undefined, undefined, context("one")), 1);
    const life = new AbortController();
    const onChunk = vi.fn();
    const reading = read(open({ onAbort }).joinRun(nameOf(1), life.signal), Infinity, onChunk);
    await expect.poll(() => onChunk.mock.calls.length).toBeGreaterThan(0);
    life.abort();
    await reading;
    await new Promise((done) => setTimeout(done, 50)); // for a cancel that should not be
    await expect.poll(() => server.cancelled).toEqual(onAbort === "cancel" ? [nameOf(1)] : []);
  });

  it("during the start, onAbort: cancel", async () => {
    server.hold();
    const life = new AbortController();
    const reading = read(open({ onAbort: "cancel" }).connect(question, undefined, life.signal, context("one")));
    await expect.poll(() => server.starts).toBe(1);
    life.abort();
    await reading;
    server.open();
    await expect.poll(() => server.cancelled).toEqual([nameOf(1)]);
  });
});
