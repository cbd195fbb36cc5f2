/* What the reader promises, under every fault that can be drawn: each event once, in order. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type Connect,
  type Delivered,
  follow,
  type FollowOptions,
  offsetOf,
  type RunEvent,
  SSEParser,
  TokenwireClient,
} from "../../src/index.js";

const RUN = "run_0123456789abcdef";
const WORDS = ["Hé", "llo 👩‍💻", " \n", "{", '"', "data: x\n\n", "\u2028", " end"];
const LOG = [
  { type: "run-start", run: RUN },
  { type: "step-start", step: 1 },
  { type: "text-start", part: 0, step: 1 },
  ...WORDS.map((text) => ({ type: "text-delta", part: 0, text })),
  { type: "text-end", part: 0 },
  { type: "step-end", step: 1, status: "complete" },
  { type: "run-end", outcome: "complete" },
].map((event, at) => ({ cursor: `${at + 1}-ab`, json: JSON.stringify({ ...event, seq: at + 1 }) }));
type Row = (typeof LOG)[number];

const block = ({ cursor, json }: Row) => `id: ${cursor}\ndata: ${json}\n\n`;
const bytesFrom = (after: string) =>
  Buffer.from(LOG.slice(Math.max(offsetOf(after), 0)).map(block).join(""));

beforeEach(() => void vi.spyOn(Math, "random").mockReturnValue(0));
afterEach(() => void vi.restoreAllMocks());

/** Everything was delivered, once, in order, as it was said. */
function whole(got: Delivered[]): void {
  expect(got.map(({ cursor, json }) => ({ cursor, json }))).toEqual(LOG);
}

async function read(ways: Connect[], more: Partial<FollowOptions> = {}) {
  const got: Delivered[] = [];
  await follow(ways, { onEvents: (batch) => got.push(...batch), ...more });
  return got;
}

describe("bytes", () => {
  /** Streams that are made in this process: `parts(n, bytes)` is what the n-th connection brings,
   * and whether it then ends or breaks. */
  function client(parts: (n: number, bytes: Buffer) => [pieces: Buffer[], ends: boolean]) {
    const asked: string[] = [];
    const fake: typeof fetch = async (_, init) => {
      const after = new Headers(init?.headers).get("last-event-id") ?? "";
      asked.push(after);
      const [pieces, ends] = parts(asked.length - 1, bytesFrom(after));
      const left = [...pieces];
      const body = new ReadableStream<Uint8Array>(
        {
          pull(controller) {
            const piece = left.shift();
            if (piece) controller.enqueue(piece);
            else if (ends) controller.close();
            else controller.error(new TypeError("terminated"));
          },
        },
        { highWaterMark: 0 },
      );
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    };
    return { client: new TokenwireClient({ fetch: fake, shareTabs: false }), asked };
  }

  it("cut at every byte, with an orderly end and with a reset", async () => {
    const all = bytesFrom("");
    for (const ends of [true, false]) {
      for (let cut = 0; cut <= all.length; cut++) {
        const made = client((n, bytes) => (n ? [[bytes], true] : [[bytes.subarray(0, cut)], ends]));
        const got: Delivered[] = [];
        await made.client.follow(RUN, { onEvents: (batch) => got.push(...batch) });
        whole(got);
        expect(made.asked.length).toBeLessThanOrEqual(2);
      }
    }
  });

  it("in pieces of every size", async () => {
    for (let size = 1; size < 40; size++) {
      const made = client((_, bytes) => {
        const count = Math.ceil(bytes.length / size);
        const at = (n: number) => bytes.subarray(n * size, (n + 1) * size);
        return [Array.from({ length: count }, (__, n) => at(n)), true];
      });
      const got: Delivered[] = [];
      await made.client.follow(RUN, { onEvents: (batch) => got.push(...batch) });
      whole(got);
      expect(made.asked).toEqual([""]);
    }
  });

  it("cut after every few bytes, for ever on", async () => {
    const made = client((n, bytes) => [[bytes.subarray(0, 60 + (n % 7) * 13)], n % 2 === 0]);
    const got: Delivered[] = [];
    await made.client.follow(RUN, { onEvents: (batch) => got.push(...batch) });
    whole(got);
    expect(made.asked.length).toBeGreaterThan(8);
    expect(new Set(made.asked.map(offsetOf))).toEqual(new Set([...made.asked.map(offsetOf)].sort((a, b) => a - b)));
  });

  it("over its limits: comes back once, then says so", async () => {
    const long = Buffer.from(`id: 1-ab\ndata: ${"x".repeat(300)}\n\n`);
    let calls = 0;
    const fake: typeof fetch = async () => {
      calls++;
      return new Response(long, { headers: { "content-type": "text/event-stream" } });
    };
    const limits = { maxLine: 200 };
    const strict = new TokenwireClient({ fetch: fake, shareTabs: false, limits });
    const failed = strict.follow(RUN, { onEvents: () => undefined });
    await expect(failed).rejects.toMatchObject({ code: "limit_exceeded" });
    expect(calls).toBe(2);
  });
});

describe("events", () => {
  /** The first connection brings what `first` makes of the log, the next ones what follows. */
  function spoilt(first: (rows: Row[]) => Row[], times = 1): { way: Connect; asked: string[] } {
    const asked: string[] = [];
    const way: Connect = async ({ after, alive, take, flush }) => {
      asked.push(after);
      alive();
      const rows = LOG.slice(Math.max(offsetOf(after), 0));
      for (const { cursor, json } of asked.length <= times ? first(rows) : rows) take(cursor, json);
      flush();
    };
    return { way, asked };
  }
  const places = LOG.map((_, at) => at);

  it("said twice are delivered once", async () => {
    for (const at of places) {
      for (const back of [1, 3, LOG.length]) {
        const again = (rows: Row[]) => [...rows.slice(0, at + 1), ...rows.slice(Math.max(at - back, 0))];
        const { way, asked } = spoilt(again);
        whole(await read([way]));
        expect(asked).toEqual([""]);
      }
    }
  });

  it("in the wrong order end the connection, and are read again from the last good one", async () => {
    for (const at of places.slice(0, -1)) {
      const swap = (rows: Row[]) => [...rows.slice(0, at), rows[at + 1]!, rows[at]!, ...rows.slice(at + 2)];
      const { way, asked } = spoilt(swap);
      whole(await read([way]));
      expect(asked).toEqual(["", at ? LOG[at - 1]!.cursor : ""]);
    }
  });

  it("that are missing are noticed by the next, and read again", async () => {
    for (const at of places.slice(0, -1)) {
      const { way, asked } = spoilt((rows) => rows.filter((_, n) => n !== at));
      const errors: unknown[] = [];
      whole(await read([way], { onLink: (_, error) => error && errors.push(error.code) }));
      expect(asked).toEqual(["", at ? LOG[at - 1]!.cursor : ""]);
      expect(errors).toEqual(["gap"]);
    }
  });

  it("that are not JSON are read again once; after that it is an error with a code", async () => {
    const broken = ["", "{", "null", "7", '"x"', "[]", "{}", '{"type":7}', LOG[4]!.json.slice(0, -1)];
    for (const at of places) {
      for (const json of broken) {
        const spoil = (rows: Row[]) =>
          rows.map((row) => (row === LOG[at] ? { ...row, json } : row));
        const once = spoilt(spoil);
        whole(await read([once.way]));
        expect(once.asked).toHaveLength(2);
        const twice = spoilt(spoil, 2);
        await expect(read([twice.way])).rejects.toMatchObject({ code: "protocol_error" });
        expect(twice.asked).toEqual(["", at ? LOG[at - 1]!.cursor : ""]);
      }
    }
  });

  it("of a newer server, and those that are not in the log, do no harm", async () => {
    const way: Connect = async ({ after, alive, take, flush }) => {
      alive();
      for (const { cursor, json } of LOG.slice(Math.max(offsetOf(after), 0))) {
        take("", '{"type":"heartbeat"}');
        take("", '{"type":"from-the-future","x":1}');
        take(cursor, json);
        flush();
      }
    };
    whole(await read([way]));
  });
});

describe("drawn faults", () => {
  function dice(seed: number) {
    let state = seed;
    return (most: number) => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) % most;
    };
  }

  function faulty(roll: (most: number) => number): Connect {
    return async ({ after, signal, alive, take, flush }) => {
      if (roll(5) === 0) throw new TypeError("fetch failed");
      alive();
      const at = Math.max(offsetOf(after), 0);
      const rows = LOG.slice(Math.max(at - roll(4), 0), at + 1 + roll(LOG.length));
      const spoil = roll(6);
      const place = roll(rows.length);
      if (spoil === 0) rows.splice(place, 1);
      if (spoil === 1) rows.splice(place, 0, ...rows.slice(0, place));
      if (spoil === 2) rows.reverse();
      // What cannot be read comes after something that was: twice at one place would be the end.
      const bad = spoil === 3 && rows.some(({ cursor }) => offsetOf(cursor) > at) ? rows.length : -1;
      for (const [n, { cursor, json }] of rows.entries()) {
        if (signal.aborted) return;
        take(cursor, json);
        if (roll(3) === 0) flush();
        if (roll(9) === 0) take("", '{"type":"reconnect","after_ms":0}');
        if (n + 1 === bad) take(`${offsetOf(cursor) + 1}-ab`, "{");
      }
      if (roll(2)) throw new TypeError("terminated");
    };
  }

  it("lose nothing, repeat nothing, over three ways of reading", async () => {
    for (let seed = 1; seed <= 400; seed++) {
      const roll = dice(seed);
      const got = await read([faulty(roll), faulty(roll), faulty(roll)]);
      expect([seed, got.map(({ cursor }) => cursor)]).toEqual([seed, LOG.map(({ cursor }) => cursor)]);
      whole(got);
    }
  });
});

describe("shared cases", () => {
  const folder = join(import.meta.dirname, "../../../../conformance/wire");
  const cases = readdirSync(folder).map((name) => {
    const text = readFileSync(join(folder, name), "utf8");
    return { name, ...(JSON.parse(text) as { events: RunEvent[]; cut?: number; bytes: Record<string, string> }) };
  });

  it.each(cases)("the bytes of $name are its events", ({ events, cut = 0, bytes }) => {
    const frames = new SSEParser().feed(Buffer.from(bytes.native!));
    const told = frames.map(({ data }) => JSON.parse(data) as RunEvent);
    expect(told.map(({ type }) => type)).toEqual(events.slice(cut).map(({ type }) => type));
    // Fields at their default are left out on the wire.
    const numbered = events.map((event, at) => ({ ...event, seq: at + 1 }));
    expect(numbered.slice(cut)).toMatchObject(told);
  });
});
