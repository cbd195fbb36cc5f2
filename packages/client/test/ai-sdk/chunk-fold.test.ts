/* The fold of UI message chunks tells the bytes that the server's encoder tells, and `useChat`
messages are read as the server reads them. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { UIMessage } from "ai";
import { describe, expect, it } from "vitest";
import { answersIn, runOf, toMessages } from "../../src/ai-sdk/messages.js";
import type { RunEvent } from "../../src/index.js";
import { type Compat, UIMessageFold } from "../../src/ai-sdk/chunk-fold.js";

interface Case {
  events: RunEvent[];
  /** So many events the reader has seen before. */
  cut?: number;
  bytes: Record<string, string>;
}

const folder = join(import.meta.dirname, "../../../../conformance/wire");
const cases = readdirSync(folder).map((name) => ({
  name,
  ...(JSON.parse(readFileSync(join(folder, name), "utf8")) as Case),
}));

describe.each(["5", "common", "6", "7"] as Compat[])("the UI message stream for %s", (compat) => {
  // A reader that comes back to the server hears open parts again; one that is never cut does not.
  const whole = cases.filter(({ cut, bytes }) => bytes[`ui-${compat}`] && !cut);

  it.each(whole)("$name", ({ events, bytes }) => {
    const fold = new UIMessageFold({ compat });
    const frames: string[] = [];
    events.forEach((event, at) => {
      if (fold.ended) return;
      const cursor = `${at + 1}-${(at + 1).toString(16).padStart(16, "0")}`;
      const chunks = fold.take({ ...event, seq: at + 1 });
      chunks.forEach((chunk, nth) => {
        const id = nth === chunks.length - 1 ? cursor : `${cursor}.${nth + 1}`;
        frames.push(`id: ${id}\ndata: ${JSON.stringify(chunk)}\n\n`);
      });
    });
    expect([...frames, "data: [DONE]\n\n"].join("")).toBe(bytes[`ui-${compat}`]);
  });

  it("has cases", () => expect(whole.length).toBeGreaterThan(3));
});

const assistant = (...parts: unknown[]) =>
  ({ id: "a1", role: "assistant", parts, metadata: { tokenwire: { run: "r1" } } }) as UIMessage;
const user = (...parts: unknown[]) => ({ id: "u1", role: "user", parts }) as UIMessage;
const call = (state: string, more: object = {}) => ({
  type: "tool-look",
  toolCallId: "c1",
  state,
  input: { at: "sky" },
  ...more,
});

describe("messages", () => {
  it("are one of ours a step, with the results after them", () => {
    const told = toMessages([
      user({ type: "text", text: "Hi" }, { type: "file", mediaType: "image/png", url: "data:image/png;base64,AAAA" }),
      assistant(
        { type: "step-start" },
        { type: "reasoning", text: "hm", providerMetadata: { tokenwire: { signature: "s" } } },
        { type: "text", text: "I look." },
        call("output-available", { output: { sky: "clear" } }),
        { type: "data-note", data: 1 },
        { type: "step-start" },
        { type: "dynamic-tool", toolName: "ask", toolCallId: "c2", state: "output-denied", input: {} },
        { type: "text", text: "Clear.", providerMetadata: { tokenwire: { kind: "refusal" } } },
      ),
      user({ type: "file", mediaType: "text/plain", url: "https://x.test/a.txt", filename: "a.txt" }),
    ]);
    expect(told).toEqual([
      {
        role: "user",
        content: [
          { type: "text", text: "Hi" },
          { type: "file", media_type: "image/png", data: "AAAA" },
        ],
      },
      {
        role: "assistant",
        content: [
          { type: "reasoning", text: "hm", signature: "s" },
          { type: "text", text: "I look." },
          { type: "tool-call", call_id: "c1", name: "look", arguments: '{"at":"sky"}' },
        ],
      },
      { role: "tool", content: [{ type: "tool-result", call_id: "c1", name: "look", content: { sky: "clear" } }] },
      {
        role: "assistant",
        content: [
          { type: "tool-call", call_id: "c2", name: "ask", arguments: "{}" },
          { type: "refusal", text: "Clear." },
        ],
      },
      {
        role: "tool",
        content: [
          {
            type: "tool-result",
            call_id: "c2",
            name: "ask",
            content: "The person did not allow this call.",
            is_error: true,
          },
        ],
      },
      {
        role: "user",
        content: [{ type: "file", media_type: "text/plain", url: "https://x.test/a.txt", name: "a.txt" }],
      },
    ]);
  });

  it("leave out calls without a result, but at the end, and what a reset took back", () => {
    const open = assistant({ type: "text", text: "x" }, call("input-available"));
    const said = [{ type: "text", text: "x" }];
    expect(toMessages([open, user({ type: "text", text: "Go on" })])[0]).toEqual({ role: "assistant", content: said });
    expect(toMessages([open])[0]!.content).toHaveLength(2);
    const reset = assistant({ type: "text", text: "void" }, { type: "data-step-reset", data: {} }, ...said);
    expect(toMessages([reset])).toEqual([{ role: "assistant", content: said }]);
    expect(toMessages([assistant(call("input-streaming"))])).toEqual([]);
  });

  it("tell their run, and what they answer", () => {
    expect(runOf(assistant())).toBe("r1");
    expect(runOf({ ...assistant(), metadata: undefined })).toBe("a1");
    expect(answersIn(user())).toBeUndefined();
    expect(answersIn(assistant({ type: "text", text: "x" }))).toBeUndefined();
    const given = answersIn(
      assistant(
        call("approval-responded", { approval: { id: "ap", approved: true, reason: "fine" } }),
        { ...call("output-error", { errorText: "broken" }), toolCallId: "c2" },
        { ...call("output-available", { output: undefined }), toolCallId: "c3" },
      ),
    )!;
    expect(given.approval("ap")).toEqual({ approved: true, reason: "fine" });
    expect(given.approval("other")).toBeUndefined();
    expect(given.result("c2")).toEqual({ content: { error: "broken" } });
    expect(given.result("c3")).toEqual({ content: undefined });
    expect(given.result("c1")).toBeUndefined();
  });
});
