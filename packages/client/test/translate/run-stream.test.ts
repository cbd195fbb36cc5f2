import { describe, expect, it } from "vitest";
import { UIMessageFold } from "../../src/ai-sdk/chunk-fold.js";
import type { TokenwireClient } from "../../src/core/client.js";
import type { FollowOptions } from "../../src/index.js";
import { RunStream, streamRun } from "../../src/translate/run-stream.js";

const EVENTS = [
  { type: "run-start", run: "run-0123456789abcdef" },
  { type: "error", scope: "provider", code: "overloaded", message: "later" },
  { type: "run-end", outcome: "error" },
];

/** A client whose reading ends `turns` turns of the event loop's queue after its last event. */
function client(turns: number, failure?: Error) {
  const follow = async (_: string, { onEvents }: FollowOptions) => {
    const batch = EVENTS.map((event, at) => ({ cursor: `${at + 1}-0`, event, json: "" }));
    onEvents(batch as never);
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    if (failure) throw failure;
  };
  return { follow } as unknown as TokenwireClient;
}

async function read(turns: number, failure?: Error) {
  const stream = new RunStream({}, (answered) => new UIMessageFold({ answered }));
  const chunks: string[] = [];
  const { signal } = new AbortController();
  for await (const { type } of streamRun(client(turns, failure), "run", stream, signal)) chunks.push(type);
  return chunks;
}

const TURNS = Array.from({ length: 40 }, (_, turns) => turns);

describe("a run in the words of another stream", () => {
  it("ends with its reading, whenever that ends after the last event", async () => {
    for (const turns of TURNS) expect(await read(turns)).toEqual(["start", "error"]);
  }, 10_000);

  it("rejects when its reading does, whenever that is", async () => {
    for (const turns of TURNS) await expect(read(turns, new Error("gone"))).rejects.toThrow("gone");
  }, 10_000);
});
