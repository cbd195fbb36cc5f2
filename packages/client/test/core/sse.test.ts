import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Frame, SSEParser } from "../../src/core/sse.js";

interface Long {
  len: number;
  sha256: string;
}
interface Expected {
  event?: string;
  event_utf8?: Long;
  data?: string;
  data_utf8?: Long;
  last_event_id?: string;
  last_event_id_utf8?: Long;
  repeat?: number;
}
interface Case {
  id: string;
  title: string;
  chunks: { b64: string; repeat?: number }[];
  expected: {
    events: Expected[];
    last_event_id?: string;
    last_event_id_utf8?: Long;
    retry_ms: number | null;
  };
}

const root = join(import.meta.dirname, "../../../..");
const own = join(root, "conformance/sse");
const files = existsSync(own)
  ? readdirSync(own)
      .filter((name) => name.endsWith(".json"))
      .map((name) => join(own, name))
  : [];
const corpus = join(root, "../shared/corpus/sse-spec/cases.json");
if (existsSync(corpus)) files.push(corpus);

const sha = (text: string) => createHash("sha256").update(text).digest("hex");
const same = (got: string, plain?: string, long?: Long) => {
  if (long) expect([[...got].length, sha(got)]).toEqual([long.len, long.sha256]);
  else expect(got).toBe(plain);
};

function check(found: Case, feed: (parser: SSEParser, chunk: Buffer) => Frame[]) {
  const parser = new SSEParser({ maxLine: 4 << 20, maxEvent: 16 << 20 });
  const frames: Frame[] = [];
  for (const { b64, repeat = 1 } of found.chunks) {
    const one = Buffer.from(b64, "base64");
    frames.push(...feed(parser, Buffer.concat(Array<Buffer>(repeat).fill(one))));
  }
  const due = found.expected.events.flatMap((e) => Array<Expected>(e.repeat ?? 1).fill(e));
  expect(frames.length).toBe(due.length);
  frames.forEach((frame, at) => {
    const want = due[at]!;
    same(frame.event, want.event, want.event_utf8);
    same(frame.data, want.data, want.data_utf8);
    same(frame.id, want.last_event_id ?? "", want.last_event_id_utf8);
  });
  same(parser.lastEventId, found.expected.last_event_id ?? "", found.expected.last_event_id_utf8);
  expect(parser.retryMs).toBe(found.expected.retry_ms);
}

for (const file of files) {
  const { cases } = JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] };
  describe(file.slice(file.lastIndexOf("/", file.lastIndexOf("/") - 1) + 1), () => {
    for (const found of cases.filter((item) => item.expected?.events)) {
      it(`${found.id}: ${found.title ?? ""}`, () => {
        check(found, (parser, chunk) => parser.feed(chunk));
        const size = found.chunks.reduce((n, c) => n + c.b64.length * (c.repeat ?? 1), 0);
        if (size < 100_000) {
          check(found, (parser, chunk) => {
            return [...chunk].flatMap((byte) => parser.feed(Uint8Array.of(byte)));
          });
        }
      });
    }
  });
}

describe("bounds", () => {
  it("refuses a line over its bound, also in pieces without an end", () => {
    const parser = new SSEParser({ maxLine: 100 });
    expect(parser.feed(Buffer.from(`data: ${"x".repeat(100)}\n\n`))).toHaveLength(1);
    expect(() => parser.feed(Buffer.from(`data: ${"x".repeat(200)}\n\n`))).toThrow(/line/);
    const slow = new SSEParser({ maxLine: 100 });
    expect(() => {
      for (let n = 0; n < 300; n++) slow.feed(Buffer.from("x"));
    }).toThrow(/line/);
  });

  it("refuses an event over its bound", () => {
    const parser = new SSEParser({ maxEvent: 50 });
    expect(() => parser.feed(Buffer.from("data: 0123456789\n".repeat(10)))).toThrow(/event/);
  });
});
