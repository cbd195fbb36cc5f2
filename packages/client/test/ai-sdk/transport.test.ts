/* The transport under the AI SDK's own reader of chunks, against a server that cuts. */

import { readUIMessageStream, type UIMessage } from "ai";
import { describe, expect, it } from "vitest";
import { TokenwireChatTransport } from "../../src/ai-sdk/transport.js";
import { serve, STREAM } from "../serve.js";

const RUN = "run_0123456789abcdef";
const EVENTS = [
  { type: "run-start", run: RUN },
  { type: "step-start", step: 1 },
  { type: "reasoning-start", part: 0, step: 1 },
  { type: "reasoning-delta", part: 0, text: "hm" },
  { type: "reasoning-end", part: 0 },
  { type: "tool-call-start", part: 1, step: 1, name: "get_weather", call_id: "c1" },
  { type: "tool-call-delta", part: 1, text: '{"city":' },
  { type: "tool-call-delta", part: 1, text: '"Paris"}' },
  { type: "tool-call-end", part: 1, arguments: { city: "Paris" } },
  { type: "finish", reason: "tool_calls" },
  { type: "step-end", step: 1, status: "complete" },
  { type: "tool-start", call_id: "c1", name: "get_weather" },
  { type: "tool-result", call_id: "c1", content: { temperature: 13 } },
  { type: "step-start", step: 2 },
  { type: "text-start", part: 2, step: 2 },
  ...Array.from({ length: 20 }, (_, n) => ({ type: "text-delta", part: 2, text: `${n + 1} ` })),
  { type: "text-end", part: 2 },
  { type: "step-end", step: 2, status: "complete" },
  { type: "run-end", outcome: "complete" },
].map((event, at) => `id: ${at + 1}-ab\ndata: ${JSON.stringify({ ...event, seq: at + 1 })}\n\n`);

const ASKED = [{ id: "m1", role: "user", parts: [{ type: "text", text: "Hi" }] }] as UIMessage[];

async function cutting(every: number) {
  const started: unknown[] = [];
  let reads = 0;
  const baseUrl = await serve((request, response) => {
    if (request.method === "POST") {
      let body = "";
      request.on("data", (piece) => (body += piece));
      request.on("end", () => {
        started.push(JSON.parse(body));
        response.writeHead(201).end(JSON.stringify({ id: RUN, state: "running" }));
      });
      return;
    }
    if (request.url!.startsWith("/v1/threads/")) {
      const state = request.url!.endsWith("/busy") ? "running" : "complete";
      response.end(JSON.stringify({ runs: [{ id: RUN, state }] }));
      return;
    }
    if (request.url!.endsWith(RUN)) {
      response.end(JSON.stringify({ id: RUN, tail: 3, waiting: [] }));
      return;
    }
    reads++;
    const after = Number(/^\d+/.exec(String(request.headers["last-event-id"]))?.[0] ?? 0);
    const rest = EVENTS.slice(after, after + every).join("");
    response.writeHead(200, STREAM).write(rest, () => response.destroy());
  });
  return { baseUrl, started, reads: () => reads };
}

async function final(stream: ReadableStream): Promise<UIMessage> {
  let last: UIMessage | undefined;
  for await (const message of readUIMessageStream({ stream })) last = message;
  return last!;
}

describe("TokenwireChatTransport", () => {
  it("gives useChat one whole message over many cuts", async () => {
    const random = Math.random;
    Math.random = () => 0;
    try {
      const { baseUrl, started, reads } = await cutting(7);
      const transport = new TokenwireChatTransport({ baseUrl, model: "demo" });
      const stream = await transport.sendMessages({
        chatId: "chat-1",
        messages: ASKED,
        trigger: "submit-message",
        messageId: undefined,
        abortSignal: undefined,
      });
      const message = await final(stream);
      expect(reads()).toBeGreaterThan(4);
      expect(started).toEqual([
        {
          thread: "chat-1",
          model: "demo",
          messages: [{ role: "user", content: [{ type: "text", text: "Hi" }] }],
        },
      ]);
      const shown = message.parts.filter(({ type }) => type !== "step-start");
      expect(shown).toMatchObject([
        { type: "reasoning", text: "hm" },
        {
          type: "tool-get_weather",
          state: "output-available",
          input: { city: "Paris" },
          output: { temperature: 13 },
        },
        { type: "text", text: Array.from({ length: 20 }, (_, n) => `${n + 1} `).join("") },
      ]);
    } finally {
      Math.random = random;
    }
  });

  it("finds the run under way again, or none", async () => {
    const { baseUrl } = await cutting(1000);
    const transport = new TokenwireChatTransport({ baseUrl });
    expect(await transport.reconnectToStream({ chatId: "idle" })).toBeNull();
    const stream = await transport.reconnectToStream({ chatId: "busy" });
    expect((await final(stream!)).parts.at(-1)).toMatchObject({ type: "text" });
  });
});

describe("an approval of a run that another worker has taken over", () => {
  const approval = { approval_id: "a1", call_id: "c1", name: "delete_file", arguments: {} };
  const wait = { type: "run-wait", reason: "approval", pending: ["a1"] };
  const events = [
    { type: "run-start", run: RUN },
    { type: "step-start", step: 1 },
    { type: "tool-call-start", part: 0, step: 1, name: "delete_file", call_id: "c1" },
    { type: "tool-call-end", part: 0, arguments: {} },
    { type: "finish", reason: "tool_calls" },
    { type: "step-end", step: 1, status: "complete" },
    { type: "approval-request", ...approval },
    wait,
    { type: "run-claim", reason: "lost" },
    wait,
    { type: "approval-answer", approval_id: "a1", call_id: "c1", approved: true },
    { type: "tool-start", call_id: "c1", name: "delete_file" },
    { type: "tool-result", call_id: "c1", content: "gone" },
    { type: "step-start", step: 2 },
    { type: "text-start", part: 1, step: 2 },
    { type: "text-delta", part: 1, text: "Done" },
    { type: "text-end", part: 1 },
    { type: "step-end", step: 2, status: "complete" },
    { type: "run-end", outcome: "complete" },
  ].map((event, at) => `id: ${at + 1}-ab\ndata: ${JSON.stringify({ ...event, seq: at + 1 })}\n\n`);
  const answered = [
    ...ASKED,
    {
      id: `${RUN}`,
      role: "assistant",
      metadata: { run: RUN },
      parts: [
        { type: "step-start" },
        {
          type: "dynamic-tool",
          toolName: "delete_file",
          toolCallId: "c1",
          state: "approval-responded",
          input: {},
          approval: { id: "a1", approved: true },
        },
      ],
    },
  ] as unknown as UIMessage[];

  it.each([
    ["it waits", { tail: 8, waiting: ["a1"], tools: [{ approval_id: "a1" }] }, 202],
    ["another tab decided just now", { tail: 8, waiting: ["a1"], tools: [{ approval_id: "a1" }] }, 409],
    ["another tab decided", { tail: 13, waiting: [], tools: [{ approval_id: "a1", approved: true }] }, 0],
    ["it has ended", { tail: 19, waiting: [], tools: [{ approval_id: "a1", approved: true }] }, 0],
  ])("goes on in the same run: %s", async (_, snapshot, status) => {
    const posts: string[] = [];
    const baseUrl = await serve((request, response) => {
      if (request.method === "POST") {
        posts.push(request.url!);
        response.writeHead(status, { "content-type": "application/json" });
        response.end(JSON.stringify(status === 409 ? { error: { code: "conflict", message: "taken" } } : {}));
      } else if (request.url!.endsWith("/events")) {
        const after = Number(/^\d+/.exec(String(request.headers["last-event-id"]))?.[0] ?? 0);
        response.writeHead(200, STREAM).end(events.slice(after).join(""));
      } else response.end(JSON.stringify({ id: RUN, ...snapshot }));
    });
    const transport = new TokenwireChatTransport({ baseUrl });
    const stream = await transport.sendMessages({
      trigger: "submit-message",
      chatId: "c",
      messageId: undefined,
      messages: answered,
      abortSignal: undefined,
    });
    const chunks = [];
    for await (const chunk of stream as unknown as AsyncIterable<{ type: string }>) chunks.push(chunk);
    const kinds = chunks.map(({ type }) => type);
    expect(kinds).toContain("tool-output-available");
    expect(kinds.filter((kind) => kind === "text-delta")).toHaveLength(1);
    expect(kinds).not.toContain("tool-input-start");
    expect(kinds[kinds.length - 1]).toBe("finish");
    expect(posts).toEqual(status ? [`/v1/runs/${RUN}/approvals/a1`] : []);
  });
});
