/* The three ways of reading against a real server: what one does not bring, the next does. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { WebSocket as NodeSocket } from "ws";
import { type Delivered, TokenwireClient } from "../../src/index.js";
import { type Proxy, type Real, startProxy, startServer } from "../real.js";

const NUMBERS = Array.from({ length: 90 }, (_, n) => `${n + 1} `).join("");

let server: Real;
let proxy: Proxy;

beforeAll(async () => {
  server = await startServer("--limit", "long_poll_timeout=1");
});
afterAll(() => server.stop());
beforeEach(() => void vi.spyOn(Math, "random").mockReturnValue(0));
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  await proxy.stop();
});

/** Streams do not get through: they are answered with a page, or their bytes are held back. */
function without(streams: "answered" | "held"): typeof fetch {
  return async (input, init) => {
    if (!String(input).endsWith("/events")) return fetch(input, init);
    if (streams === "answered") return new Response("<p>Welcome to our proxy</p>");
    const body = new ReadableStream({
      start: (controller) =>
        init!.signal!.addEventListener("abort", () => controller.error(init!.signal!.reason)),
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
}

async function read(more: ConstructorParameters<typeof TokenwireClient>[0], watchdogMs?: number) {
  const client = new TokenwireClient({ baseUrl: proxy.url, shareTabs: false, ...more });
  const { id } = await client.start({ prompt: "scenario:slow?rate=90" });
  const got: Delivered[] = [];
  await client.follow(id, {
    onEvents: (batch) => got.push(...batch),
    ...(watchdogMs ? { watchdogMs } : {}),
  });
  const text = got.map(({ event }) => (event.type === "text-delta" ? event.text : "")).join("");
  expect(text).toBe(NUMBERS);
  expect(got.map(({ event }) => event.seq)).toEqual(got.map((_, at) => at + 1));
  expect(got.at(-1)!.event.type).toBe("run-end");
}

describe("a run is read whole", () => {
  it("over event streams that are cut", async () => {
    proxy = await startProxy(server.url, (n) => 700 + 300 * n);
    await read({});
    expect(proxy.cuts()).toBeGreaterThan(1);
  });

  it("over sockets that are cut, where streams are answered by somebody else", async () => {
    vi.stubGlobal("WebSocket", NodeSocket);
    proxy = await startProxy(server.url, (n) => 900 + 300 * n, /^GET \/ws /);
    await read({ fetch: without("answered") });
    expect(proxy.cuts()).toBeGreaterThan(1);
  });

  it("by long polling, where streams are held back and sockets are not to be had", async () => {
    vi.stubGlobal("WebSocket", undefined);
    const polls = /^GET \/v1\/runs\/[^ ]+\/events\?live=long-poll/;
    proxy = await startProxy(server.url, (n) => (n % 3 ? Infinity : 100), polls);
    await read({ fetch: without("held") }, 1500);
    expect(proxy.cuts()).toBeGreaterThan(0);
  });
});

describe("a run that was read to its end before", () => {
  it.each([
    ["event streams", undefined, false],
    ["sockets", NodeSocket, true],
    ["long polling", undefined, true],
  ])("is not asked for over and over, by %s", async (_, socket, blocked) => {
    vi.stubGlobal("WebSocket", socket);
    proxy = await startProxy(server.url, () => Infinity);
    const plain = new TokenwireClient({ baseUrl: server.url, shareTabs: false });
    const { id } = await plain.start({ prompt: "scenario:empty" });
    const got: Delivered[] = [];
    await plain.follow(id, { onEvents: (batch) => got.push(...batch) });
    const options = { baseUrl: proxy.url, shareTabs: false };
    const client = new TokenwireClient(
      blocked ? { ...options, fetch: without("answered") } : options,
    );
    const again: Delivered[] = [];
    const after = got.at(-1)!.cursor;
    await client.follow(id, { after, onEvents: (batch) => again.push(...batch) });
    expect(again).toEqual([]);
  });
});
