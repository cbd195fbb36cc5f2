/* Where event streams do not get through: the WebSocket, then long polling. */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { WebSocket as NodeSocket, WebSocketServer } from "ws";
import { type Delivered, TokenwireClient } from "../../src/index.js";
import { serve } from "../serve.js";

const RUN = "run_0123456789abcdef";
const EVENTS = [
  { type: "run-start", run: RUN },
  { type: "step-start", step: 1 },
  { type: "text-start", part: 0, step: 1 },
  ...Array.from({ length: 12 }, (_, n) => ({ type: "text-delta", part: 0, text: `${n + 1} ` })),
  { type: "run-end", outcome: "complete" },
].map((event, at) => ({ cursor: `${at + 1}-ab`, event }));
const WHOLE = Array.from({ length: 12 }, (_, n) => `${n + 1} `).join("");
const offset = (cursor: string | null) => Number(/^\d+/.exec(cursor ?? "")?.[0] ?? 0);

beforeEach(() => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  vi.stubGlobal("WebSocket", NodeSocket);
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

async function read(baseUrl: string) {
  const got: Delivered[] = [];
  const client = new TokenwireClient({ baseUrl, token: () => "key" });
  await client.follow(RUN, { onEvents: (batch) => got.push(...batch) });
  expect(got.map(({ cursor }) => cursor)).toEqual(EVENTS.map(({ cursor }) => cursor));
  return got.map(({ event }) => (event.type === "text-delta" ? event.text : "")).join("");
}

describe("fallbacks", () => {
  it("reads over the WebSocket when a proxy answers for the stream, over cuts of its own", async () => {
    const server = createServer((_, response) => {
      response.writeHead(200, { "content-type": "text/html" }).end("<p>Welcome to our proxy</p>");
    });
    const heard: Record<string, unknown>[] = [];
    const sockets = new WebSocketServer({ server, path: "/ws" });
    sockets.on("connection", (socket) => {
      socket.on("message", (data) => {
        const told = JSON.parse(String(data)) as { op: string; after?: string };
        heard.push(told);
        if (told.op !== "follow") return;
        const events = EVENTS.slice(offset(told.after ?? null)).slice(0, 6);
        socket.send(JSON.stringify({ op: "events", run: RUN, events }));
        if (events.some(({ event }) => event.type === "run-end")) {
          socket.send(JSON.stringify({ op: "end", run: RUN }));
        } else socket.terminate();
      });
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    try {
      const { port } = server.address() as AddressInfo;
      expect(await read(`http://127.0.0.1:${port}`)).toBe(WHOLE);
      const followed = heard.filter(({ op }) => op === "follow");
      expect(followed.map(({ after }) => after)).toEqual([undefined, "6-ab", "12-ab"]);
      expect(heard.filter(({ op, key }) => op === "auth" && key === "key")).toHaveLength(3);
    } finally {
      sockets.close();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  });

  it("rejects with what the socket says is final", async () => {
    const server = createServer((_, response) => response.writeHead(200).end("x"));
    const sockets = new WebSocketServer({ server, path: "/ws" });
    sockets.on("connection", (socket) => {
      socket.on("message", () => {
        const error = { code: "unknown_run", message: "no such run" };
        socket.send(JSON.stringify({ op: "error", error }));
      });
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    try {
      const { port } = server.address() as AddressInfo;
      await expect(read(`http://127.0.0.1:${port}`)).rejects.toMatchObject({ status: 404 });
    } finally {
      sockets.close();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  });

  it("reads by long polling when neither gets through", async () => {
    const asked: string[] = [];
    const baseUrl = await serve((request, response) => {
      const url = new URL(request.url!, "http://x");
      if (url.searchParams.get("live") !== "long-poll") {
        response.writeHead(200, { "content-type": "text/html" }).end("<p>no streams here</p>");
        return;
      }
      asked.push(url.searchParams.get("after") ?? "");
      const after = offset(url.searchParams.get("after"));
      const events = EVENTS.slice(after, after + 5);
      const next = events.at(-1)?.cursor ?? "0";
      const closed = after + 5 >= EVENTS.length;
      response.end(JSON.stringify({ events, next, closed }));
    });
    expect(await read(baseUrl)).toBe(WHOLE);
    expect(asked).toEqual(["", "5-ab", "10-ab", "15-ab"]);
  });
});
