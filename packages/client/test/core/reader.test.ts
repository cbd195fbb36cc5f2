import { describe, expect, it, vi } from "vitest";
import { type Delivered, TokenwireClient, type TokenwireError } from "../../src/index.js";
import { serve, STREAM } from "../serve.js";

const RUN = "run_0123456789abcdef";

/** A log of `n` text deltas between start and end, as SSE blocks. */
function log(n: number): string[] {
  const events: object[] = [
    { type: "run-start", seq: 1, run: RUN },
    { type: "step-start", seq: 2, step: 1 },
    { type: "text-start", seq: 3, part: 0, step: 1 },
  ];
  for (let i = 1; i <= n; i++) {
    events.push({ type: "text-delta", seq: events.length + 1, part: 0, text: `${i} ` });
  }
  events.push({ type: "run-end", seq: events.length + 1, outcome: "complete" });
  return events.map((event, at) => `id: ${at + 1}-abcdef\ndata: ${JSON.stringify(event)}\n\n`);
}

async function read(baseUrl: string, more: object = {}) {
  const client = new TokenwireClient({ baseUrl });
  const got: Delivered[] = [];
  const links: string[] = [];
  await client.follow(RUN, {
    onEvents: (batch) => got.push(...batch),
    onReset: () => (got.length = 0),
    onLink: (state) => links.push(state),
    ...more,
  });
  const text = got.map(({ event }) => (event.type === "text-delta" ? event.text : "")).join("");
  return { got, links, text };
}

const numbers = (n: number) => Array.from({ length: n }, (_, i) => `${i + 1} `).join("");
const after = (header: string | string[] | undefined) => Number(/^\d+/.exec(String(header))?.[0] ?? 0);

describe("follow", () => {
  it("delivers every event once, whatever byte the connection is cut at", async () => {
    const blocks = log(20);
    const whole = Buffer.from(blocks.join(""));
    let cut = 1;
    let first = true;
    const baseUrl = await serve((request, response) => {
      const from = after(request.headers["last-event-id"]);
      const rest = Buffer.from(blocks.slice(from).join(""));
      response.writeHead(200, STREAM);
      if (first) {
        first = false;
        // Half of the cuts are a clean end, half a reset.
        response.write(rest.subarray(0, cut), () => {
          if (cut % 2) response.end();
          else response.destroy();
        });
      } else response.end(rest);
    });
    const told = { onLink: undefined };
    for (cut = 1; cut < whole.length; cut += 23) {
      const random = Math.random;
      Math.random = () => 0; // come back at once
      first = true;
      try {
        const { text, got } = await read(baseUrl, told);
        expect(text).toBe(numbers(20));
        expect(got.map(({ event }) => event.seq)).toEqual(blocks.map((_, at) => at + 1));
      } finally {
        Math.random = random;
      }
    }
  });

  it("drops what it has already, when the server repeats it", async () => {
    const blocks = log(10);
    let calls = 0;
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, STREAM).end(blocks.slice(0, ++calls * 5).join(""));
    });
    expect((await read(baseUrl)).text).toBe(numbers(10));
    expect(calls).toBe(3);
  });

  it("comes back after a reconnect event, and drops what a newer server says of the connection", async () => {
    const blocks = log(6);
    const seen: (string | undefined)[] = [];
    const baseUrl = await serve((request, response) => {
      seen.push(request.headers["last-event-id"] as string | undefined);
      response.writeHead(200, STREAM);
      if (seen.length === 1) {
        response.end(blocks.slice(0, 5).join("") + 'data: {"type":"reconnect","after_ms":1}\n\n');
      } else if (seen.length === 2) {
        response.end(`data: {"type":"log-reset","reason":"restored","to":0}\n\n${blocks.slice(5).join("")}`);
      }
    });
    const { text } = await read(baseUrl);
    expect(text).toBe(numbers(6));
    expect(seen).toEqual([undefined, "5-abcdef"]);
  });

  it("stops on 401, 403, 404 and 410 with what the server said", async () => {
    for (const status of [401, 403, 404, 410]) {
      let calls = 0;
      const baseUrl = await serve((_, response) => {
        calls++;
        response.writeHead(status).end('{"error":{"code":"unknown_run","message":"no such run"}}');
      });
      const failed = read(baseUrl);
      await expect(failed).rejects.toMatchObject({ status, code: "unknown_run" });
      expect(calls).toBe(1);
    }
  });

  it("waits as long as Retry-After says", async () => {
    const blocks = log(1);
    let calls = 0;
    const baseUrl = await serve((_, response) => {
      if (++calls === 1) response.writeHead(503, { "retry-after": "0" }).end();
      else response.writeHead(200, STREAM).end(blocks.join(""));
    });
    const links: [string, TokenwireError | undefined][] = [];
    const { text } = await read(baseUrl, {
      onLink: (state: string, error?: TokenwireError) => links.push([state, error]),
    });
    expect(text).toBe("1 ");
    expect(links.map(([state]) => state)).toEqual(["connecting", "reconnecting", "live"]);
    expect(links[1]![1]).toMatchObject({ status: 503, retryAfter: 0 });
  });

  it("leaves a silent connection by the watchdog", async () => {
    const blocks = log(2);
    let calls = 0;
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, STREAM);
      if (++calls === 1) response.write(blocks[0]);
      else response.end(blocks.join(""));
    });
    expect((await read(baseUrl, { watchdogMs: 60 })).text).toBe("1 2 ");
    expect(calls).toBe(2);
  });

  it("notices silence though somebody sets the clock back", async () => {
    const blocks = log(2);
    let calls = 0;
    const now = vi.spyOn(Date, "now");
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, STREAM);
      if (++calls === 1) {
        response.write(blocks[0]);
        now.mockReturnValue(0);
      } else response.end(blocks.join(""));
    });
    expect((await read(baseUrl, { watchdogMs: 60 })).text).toBe("1 2 ");
    expect(calls).toBe(2);
    now.mockRestore();
  });

  it("ends quietly on abort and closes its connection", async () => {
    const abort = new AbortController();
    let close!: () => void;
    const closed = new Promise<void>((done) => (close = done));
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, STREAM).write(log(2)[0]);
      response.on("close", close);
    });
    await read(baseUrl, { signal: abort.signal, onEvents: () => abort.abort() });
    await closed;
  });

  it("ends on an abort that comes with the last byte", async () => {
    const [first, ...rest] = log(20);
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, STREAM).write(first);
      setTimeout(() => response.end(rest.join("")), 5); // the end comes with the last event
    });
    for (let n = 0; n < 5; n++) {
      const abort = new AbortController();
      const onEvents = (batch: Delivered[]) => {
        if (batch.some(({ event }) => event.type === "run-end")) abort.abort();
      };
      await read(baseUrl, { signal: abort.signal, onEvents });
    }
  });

  it("rejects with what the caller's own function threw, and reads no further", async () => {
    let calls = 0;
    let close!: () => void;
    const closed = new Promise<void>((done) => (close = done));
    const baseUrl = await serve((_, response) => {
      calls++;
      response.writeHead(200, STREAM).write(log(2)[0]);
      response.on("close", close);
    });
    const mine = new Error("mine");
    const onEvents = () => {
      throw mine;
    };
    await expect(read(baseUrl, { onEvents })).rejects.toBe(mine);
    await closed;
    expect(calls).toBe(1);
  });

  it("refuses ids that are none, before any request", () => {
    const client = new TokenwireClient({ baseUrl: "http://127.0.0.1:1" });
    for (const bad of ["", "../x", "a/b", "x".repeat(65), "run 0123456789abcdef"]) {
      expect(() => client.follow(bad, { onEvents: () => undefined })).toThrow(/run id/);
    }
    expect(() => client.approve(RUN, "../../x", { approved: true })).toThrow(/call id/);
  });
});

describe("start", () => {
  it("is sent again with the same key when no answer came", async () => {
    const keys: unknown[] = [];
    const baseUrl = await serve((request, response) => {
      keys.push(request.headers["idempotency-key"]);
      if (keys.length === 1) response.destroy();
      else response.writeHead(201).end(JSON.stringify({ id: RUN, state: "running" }));
    });
    const client = new TokenwireClient({ baseUrl });
    expect((await client.start({ prompt: "x" })).id).toBe(RUN);
    expect(keys).toHaveLength(2);
    expect(keys[0]).toBe(keys[1]);
  });

  it("never follows a redirect with its key", async () => {
    let reached = false;
    const other = await serve((_, response) => {
      reached = true;
      response.end("{}");
    });
    const baseUrl = await serve((_, response) => {
      response.writeHead(307, { location: other }).end();
    });
    const client = new TokenwireClient({ baseUrl, token: () => "secret" });
    await expect(client.info(RUN)).rejects.toThrow();
    expect(reached).toBe(false);
  });
});
