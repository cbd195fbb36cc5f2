// @vitest-environment happy-dom

import { useChat } from "@ai-sdk/react";
import { TokenwireChatTransport } from "@tokenwire/client/ai";
import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

afterEach(cleanup);

const RUN = "run_0123456789abcdef";
const COUNT = 30;
const EVENTS = [
  { type: "run-start", run: RUN },
  { type: "step-start", step: 1 },
  { type: "text-start", part: 0, step: 1 },
  ...Array.from({ length: COUNT }, (_, n) => ({ type: "text-delta", part: 0, text: `${n + 1} ` })),
  { type: "text-end", part: 0 },
  { type: "step-end", step: 1, status: "complete" },
  { type: "run-end", outcome: "complete" },
].map((event, at) => `id: ${at + 1}-ab\ndata: ${JSON.stringify(event)}\n\n`);

/** Streams that break after every few events, the way a browser tells it. */
function breaking(every: number) {
  const asked: string[] = [];
  const fake: typeof fetch = async (input, init) => {
    const path = String(input);
    asked.push(`${init?.method ?? "GET"} ${path}`);
    if (path.endsWith("/v1/runs")) {
      return new Response(JSON.stringify({ id: RUN, state: "running" }), { status: 201 });
    }
    if (!path.endsWith("/events")) return new Response("{}");
    const after = Number(/^\d+/.exec(new Headers(init?.headers).get("last-event-id") ?? "")?.[0] ?? 0);
    const rest = EVENTS.slice(after, after + every);
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const event of rest) controller.enqueue(new TextEncoder().encode(event));
      },
      // Pulled only after what was enqueued has been read.
      pull(controller) {
        if (after + every < EVENTS.length) controller.error(new TypeError("network error"));
        else controller.close();
      },
    }, { highWaterMark: 0 });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  return { fake, asked };
}

it("useChat never sees a cut", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  const { fake, asked } = breaking(5);
  const transport = new TokenwireChatTransport({ fetch: fake });
  const statuses = new Set<string>();
  const { result } = renderHook(() => {
    const chat = useChat({ transport });
    statuses.add(chat.status);
    return chat;
  });
  await act(() => result.current.sendMessage({ text: "Count" }));
  await waitFor(() => expect(result.current.status).toBe("ready"));
  const texts = result.current.messages[1]!.parts.filter((part) => part.type === "text");
  expect(texts).toHaveLength(1);
  expect(texts[0]).toMatchObject({
    text: Array.from({ length: COUNT }, (_, n) => `${n + 1} `).join(""),
  });
  expect(result.current.error).toBeUndefined();
  expect(statuses.has("error")).toBe(false);
  expect(asked.filter((one) => one.endsWith("/events")).length).toBeGreaterThan(5);
  expect(asked.filter((one) => one.startsWith("POST"))).toHaveLength(1);
  vi.restoreAllMocks();
});

it("stop ends the run, or only the reading", async () => {
  for (const onStop of ["cancel", "detach"] as const) {
    const { fake, asked } = breaking(1000);
    const held: typeof fetch = async (input, init) => {
      if (!String(input).endsWith("/events")) return fake(input, init);
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => {
          for (const event of EVENTS.slice(0, 10)) controller.enqueue(new TextEncoder().encode(event));
          init?.signal?.addEventListener("abort", () => controller.error(init.signal!.reason));
        },
      });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    };
    const transport = new TokenwireChatTransport({ fetch: held, onStop });
    const { result, unmount } = renderHook(() => useChat({ transport }));
    act(() => void result.current.sendMessage({ text: "Count" }));
    await waitFor(() => expect(result.current.status).toBe("streaming"));
    await act(() => result.current.stop());
    await waitFor(() => expect(result.current.status).toBe("ready"));
    expect(asked.some((one) => one.endsWith("/cancel"))).toBe(onStop === "cancel");
    unmount();
  }
});
