/* The fetch under the SDK's own transport, against a server that cuts. That a cut at every byte of a
 * real answer is never seen is shown by tests/node/test_our_transport.py. */

import { DefaultChatTransport, readUIMessageStream, type UIMessage, type UIMessageChunk } from "ai";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { resumableFetch } from "../../src/ai-sdk/transport.js";
import { serve, STREAM } from "../serve.js";

beforeEach(() => void vi.spyOn(Math, "random").mockReturnValue(0)); // come back at once
afterEach(() => void vi.restoreAllMocks());

const COUNT = 20;
const NUMBERS = Array.from({ length: COUNT }, (_, n) => `${n + 1} `);
const CHUNKS: UIMessageChunk[] = [
  { type: "start", messageId: "run-1", messageMetadata: { tokenwire: { run: "run-1" } } },
  { type: "start-step" },
  { type: "tool-input-start", toolCallId: "c1", toolName: "get_weather" },
  { type: "tool-input-delta", toolCallId: "c1", inputTextDelta: '{"city":' },
  { type: "tool-input-delta", toolCallId: "c1", inputTextDelta: '"Paris"}' },
  { type: "tool-input-available", toolCallId: "c1", toolName: "get_weather", input: { city: "Paris" } },
  { type: "finish-step" },
  { type: "tool-output-available", toolCallId: "c1", output: { temperature: 13 } },
  { type: "start-step" },
  { type: "text-start", id: "t1" },
  ...NUMBERS.map((delta): UIMessageChunk => ({ type: "text-delta", id: "t1", delta })),
  { type: "text-end", id: "t1" },
  { type: "finish-step" },
  { type: "finish", finishReason: "stop" },
];
const TEXT_AT = 9;
const MESSAGE = { id: "m1", role: "user", parts: [{ type: "text", text: "Hi" }] } as UIMessage;
const UI_STREAM = { ...STREAM, "x-vercel-ai-ui-message-stream": "v1" };

/** What the server says after a place: open text is opened again, under a name of its own. */
function rest(after: number, most: number): string {
  const inText = after > TEXT_AT && after <= TEXT_AT + COUNT + 1;
  const name = inText && after > 0 ? `t1.${after}` : "t1";
  const frames = inText ? [`data: ${JSON.stringify({ type: "text-start", id: name })}\n\n`] : [];
  CHUNKS.slice(after, after + most).forEach((chunk, at) => {
    const told = "id" in chunk && chunk.id ? { ...chunk, id: name } : chunk;
    frames.push(`id: ${after + at + 1}-ab\ndata: ${JSON.stringify(told)}\n\n`);
  });
  if (after + most >= CHUNKS.length) frames.push("data: [DONE]\n\n");
  return frames.join("");
}

/** A server whose connections break after every few chunks; the first `deaf` posts get no answer. */
async function cutting(every: number, deaf = 0) {
  const asked: { method: string; url: string; key: unknown; body: unknown }[] = [];
  const baseUrl = await serve((request, response) => {
    let text = "";
    request.on("data", (piece) => (text += piece));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      const body: unknown = text ? JSON.parse(text) : undefined;
      asked.push({ method, url, key: headers["idempotency-key"], body });
      if (method === "POST" && deaf-- > 0) return void request.socket.destroy();
      if (url.endsWith("/stop")) return void response.writeHead(202).end("{}");
      if (url.includes("/idle/")) return void response.writeHead(204).end();
      const after = Number(/^\d+/.exec(String(headers["last-event-id"]))?.[0] ?? 0);
      response.writeHead(200, UI_STREAM).write(rest(after, every), () => response.destroy());
    });
  });
  return { baseUrl, asked };
}

async function final(stream: ReadableStream<UIMessageChunk>): Promise<UIMessage> {
  let last: UIMessage | undefined;
  for await (const message of readUIMessageStream({ stream })) last = message;
  return last!;
}

const sent = (chatId: string) => ({
  chatId,
  messages: [MESSAGE],
  trigger: "submit-message" as const,
  messageId: undefined,
  abortSignal: undefined,
});
const WHOLE = [
  { type: "step-start" },
  {
    type: "tool-get_weather",
    state: "output-available",
    input: { city: "Paris" },
    output: { temperature: 13 },
  },
  { type: "step-start" },
  { type: "text", text: NUMBERS.join(""), state: "done" },
];

describe("resumableFetch", () => {
  it("keeps the SDK's own transport whole over cuts", async () => {
    const { baseUrl, asked } = await cutting(7, 1);
    const api = `${baseUrl}/api/chat?compat=6`;
    const transport = new DefaultChatTransport({ api, fetch: resumableFetch() });
    expect((await final(await transport.sendMessages(sent("c")))).parts).toMatchObject(WHOLE);
    expect(asked.map(({ url }) => url)).toEqual([
      ...["/api/chat?compat=6", "/api/chat?compat=6"],
      ...Array.from({ length: 4 }, () => "/api/chat/c/stream?compat=6"),
    ]);
  });

  it("takes a picture of some megabytes, which this wire says in one line", async () => {
    const url = `data:image/png;base64,${"QUJD".repeat(700_000)}`;
    const chunks = [{ type: "start", messageId: "m" }, { type: "file", url, mediaType: "image/png" }, { type: "finish" }];
    const baseUrl = await serve((request, response) => {
      request.resume();
      const frames = chunks.map((chunk, at) => `id: ${at + 1}-ab\ndata: ${JSON.stringify(chunk)}\n\n`);
      response.writeHead(200, UI_STREAM).end(frames.join(""));
    });
    const transport = new DefaultChatTransport({ api: `${baseUrl}/api/chat`, fetch: resumableFetch() });
    expect((await final(await transport.sendMessages(sent("c")))).parts).toMatchObject([{ type: "file", url }]);
  });

  it("passes on what is no such stream: other routes, errors, other servers' answers", async () => {
    const baseUrl = await serve((request, response) => {
      if (request.url === "/json") response.end('{"a":1}');
      else if (request.url === "/bad") response.writeHead(500).end("no");
      else response.writeHead(200, STREAM).end("data: x\n\n");
    });
    const call = resumableFetch();
    expect(await (await call(`${baseUrl}/json`)).json()).toEqual({ a: 1 });
    expect((await call(`${baseUrl}/bad`, { method: "POST", body: "{}" })).status).toBe(500);
    expect(await (await call(new URL(baseUrl), { method: "POST", body: "x" })).text()).toBe("data: x\n\n");
    await expect(call("http://127.0.0.1:1/", { signal: AbortSignal.abort() })).rejects.toThrow();
  });

  it("tells of a cut that it cannot mend: a stream without ids", async () => {
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, UI_STREAM).write('data: {"type":"start"}\n\n', () => response.destroy());
    });
    const body = JSON.stringify({ id: "c" });
    const response = await resumableFetch()(`${baseUrl}/api/chat`, { method: "POST", body });
    await expect(response.text()).rejects.toThrow();
  });

  it("finds the answer under way again, or none", async () => {
    const { baseUrl, asked } = await cutting(10);
    const transport = new DefaultChatTransport({ api: `${baseUrl}/api/chat`, fetch: resumableFetch() });
    expect(await transport.reconnectToStream({ chatId: "idle" })).toBeNull();
    const stream = await transport.reconnectToStream({ chatId: "busy" });
    expect((await final(stream!)).parts).toMatchObject(WHOLE);
    expect(asked.map(({ method }) => method)).toEqual(["GET", "GET", "GET", "GET", "GET"]);
  });

  it("says so when the server has lost the answer, and gives nothing twice", async () => {
    let reads = 0;
    const baseUrl = await serve((request, response) => {
      if (request.method === "POST") {
        response.writeHead(200, UI_STREAM).write(rest(0, 12), () => response.destroy());
      } else if (++reads === 1) {
        response.writeHead(200, UI_STREAM).write(rest(5, 10), () => response.destroy());
      } else response.writeHead(204).end();
    });
    const transport = new DefaultChatTransport({ api: `${baseUrl}/api/chat`, fetch: resumableFetch() });
    const got: UIMessageChunk[] = [];
    const reading = (async () => {
      for await (const chunk of await transport.sendMessages(sent("c"))) got.push(chunk);
    })();
    await expect(reading).rejects.toThrow("does not know");
    expect(got).toEqual(CHUNKS.slice(0, 15));
  });

  it("gives up on what cannot be read, after coming back once", async () => {
    let reads = 0;
    const baseUrl = await serve((_, response) => {
      const bad = reads++ ? "" : rest(0, 3);
      response.writeHead(200, UI_STREAM).end(`${bad}id: 9-ab\ndata: {"no":"type"}\n\n`);
    });
    const body = JSON.stringify({ id: "c" });
    const response = await resumableFetch()(`${baseUrl}/api/chat`, { method: "POST", body });
    await expect(response.text()).rejects.toThrow("no chunk");
    expect(reads).toBe(2);
  });

  it("leaves the connection when the chat stops", async () => {
    let close!: () => void;
    const closed = new Promise<void>((done) => (close = done));
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, UI_STREAM).write(rest(0, 12));
      response.on("close", close);
    });
    const stop = new AbortController();
    const body = JSON.stringify({ id: "c" });
    const asked = { method: "POST", body, signal: stop.signal };
    const response = await resumableFetch()(`${baseUrl}/api/chat`, asked);
    const reader = response.body!.getReader();
    await reader.read();
    stop.abort(new Error("stopped"));
    await expect((async () => { while (!(await reader.read()).done); })()).rejects.toThrow("stopped");
    await closed;
  });
});
