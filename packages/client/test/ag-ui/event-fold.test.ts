/* The fold of AG-UI events tells the bytes that the server's encoder tells. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AGUIFold } from "../../src/ag-ui/event-fold.js";
import type { RunEvent } from "../../src/index.js";

interface Case {
  events: RunEvent[];
  /** So many events the reader has seen before. */
  cut?: number;
  bytes: Record<string, string>;
}

const folder = join(import.meta.dirname, "../../../../conformance/wire");
const cases = readdirSync(folder)
  .map((name) => ({ name, ...(JSON.parse(readFileSync(join(folder, name), "utf8")) as Case) }))
  .filter(({ bytes }) => bytes.tanstack);

describe("the TanStack wire", () => {
  it.each(cases)("$name", ({ events, bytes, cut = 0 }) => {
    const fold = new AGUIFold();
    const frames: string[] = [];
    events.forEach((event, at) => {
      if (fold.ended) return;
      const cursor = `${at + 1}-${(at + 1).toString(16).padStart(16, "0")}`;
      const chunks = fold.take(event);
      if (at < cut) return;
      chunks.forEach((chunk, nth) => {
        const id = nth === chunks.length - 1 ? cursor : `${cursor}.${nth + 1}`;
        frames.push(`id: ${id}\ndata: ${JSON.stringify(chunk)}\n\n`);
      });
    });
    expect(frames.join("")).toBe(bytes.tanstack);
  });
});

describe("a step that starts again", () => {
  it("takes back what it said, and keeps the rest", () => {
    const history = [{ id: "u1", role: "user", parts: [{ type: "text", content: "Hi" }] }];
    const fold = new AGUIFold({ history });
    const events: RunEvent[] = [
      { type: "run-start", run: "r" },
      { type: "step-start", step: 1 },
      { type: "text-start", part: 0 },
      { type: "text-delta", part: 0, text: "I look." },
      { type: "text-end", part: 0 },
      { type: "tool-call-start", part: 1, call_id: "c1", name: "look" },
      { type: "tool-call-delta", part: 1, text: "{}" },
      { type: "tool-call-end", part: 1, arguments: {} },
      { type: "step-end", step: 1, status: "complete" },
      { type: "tool-result", call_id: "c1", content: { seen: true } },
      { type: "step-start", step: 2 },
      { type: "text-start", part: 2 },
      { type: "text-delta", part: 2, text: "It is a c" },
      { type: "step-reset", step: 2, attempt: 2, discard_parts: [2] },
    ];
    const chunks = events.flatMap((event) => fold.take(event));
    expect(chunks.at(-1)).toEqual({
      type: "MESSAGES_SNAPSHOT",
      messages: [
        ...history,
        {
          id: "r-0",
          role: "assistant",
          content: "I look.",
          toolCalls: [{ id: "c1", type: "function", function: { name: "look", arguments: "{}" } }],
        },
        { id: "r-result-c1", role: "tool", toolCallId: "c1", content: '{"seen":true}' },
      ],
    });
  });
});
