/* What SECURITY.md promises of the client: where a key goes, which ids become part of an address. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Fold, RunStore, streamChat, TokenwireClient, type RunEvent } from "../../src/index.js";
import { PartialJSON } from "../../src/core/partial-json.js";

const RUN = "run_0123456789abcdef";
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** Every way in which the client asks the server. */
function everything(client: TokenwireClient): Promise<unknown>[] {
  const life = AbortSignal.timeout(50);
  return [
    client.start({ prompt: "x" }),
    client.follow(RUN, { onEvents: () => undefined, maxTries: 0, signal: life }),
    client.info(RUN),
    client.thread("thread-1"),
    client.snapshot(RUN),
    client.cancel(RUN),
    client.delete(RUN),
    client.approve(RUN, "ap", { approved: true }),
    client.answerTool(RUN, "call", 1),
    client.json("GET", "/v1/models"),
    client.text("/metrics"),
  ];
}

describe("requests", () => {
  it("carry the key to the configured server, follow no redirect, and are not cached", async () => {
    const asked: [string, RequestInit][] = [];
    const fake: typeof fetch = async (input, init) => {
      asked.push([String(input), init!]);
      const end = 'id: 1-a\ndata: {"type":"run-end","outcome":"complete"}\n\n';
      const stream = String(input).endsWith("/events");
      return new Response(stream ? end : "{}", {
        headers: { "content-type": stream ? "text/event-stream" : "application/json" },
      });
    };
    const token = vi.fn(() => "secret");
    let times = 0;
    const headers = () => ({ "tokenwire-reader": `reader ${++times}`, authorization: "Bearer other" });
    const client = new TokenwireClient({ baseUrl: "https://chat.test/", token, headers, fetch: fake, shareTabs: false });
    await Promise.all(everything(client));
    expect(asked).toHaveLength(11);
    expect(token).toHaveBeenCalledTimes(11);
    const readers = asked.map(([, init]) => new Headers(init.headers).get("tokenwire-reader"));
    expect(new Set(readers).size).toBe(11); // as it is at the moment of each
    for (const [url, init] of asked) {
      expect(url.startsWith("https://chat.test/")).toBe(true);
      expect(url).not.toContain("secret");
      expect(new Headers(init.headers).get("authorization")).toBe("Bearer secret");
      expect(init).toMatchObject({ redirect: "error", credentials: "same-origin", cache: "no-store" });
    }
    await streamChat("x", () => undefined, { fetch: fake }).catch(() => undefined);
    expect(asked.at(-1)![1]).toMatchObject({ redirect: "error" });
  });

  it("say the key in the first message of a socket, and not in its address", async () => {
    const said: string[] = [];
    const addresses: string[] = [];
    vi.stubGlobal(
      "WebSocket",
      class {
        readyState = 1;
        onopen?: () => void;
        onclose?: () => void;
        onmessage?: (message: { data: string }) => void;
        constructor(url: string) {
          addresses.push(url);
          setTimeout(() => {
            this.onopen?.();
            const events = [{ cursor: "1-a", event: { type: "run-end", outcome: "complete" } }];
            this.onmessage?.({ data: JSON.stringify({ op: "events", events }) });
            this.onclose?.();
          });
        }
        send(text: string): void {
          said.push(text);
        }
        close(): void {}
      },
    );
    vi.spyOn(Math, "random").mockReturnValue(0);
    const fake: typeof fetch = async () => new Response("<p>no streams</p>");
    const client = new TokenwireClient({ baseUrl: "https://chat.test", token: () => "secret", fetch: fake });
    await client.follow(RUN, { onEvents: () => undefined });
    expect(addresses).toEqual(["wss://chat.test/ws"]);
    expect(said.map((text) => JSON.parse(text))).toEqual([
      { op: "auth", key: "secret" },
      { op: "follow", run: RUN },
    ]);
  });
});

describe("ids", () => {
  const client = new TokenwireClient({
    fetch: async () => {
      throw new Error("nothing may be asked");
    },
  });

  it("that are none are refused before a request is made", async () => {
    const runs = ["", "short", "../../etc/passwd0000", "a/b".repeat(8), `${RUN}?x=1`, `${RUN}#`, "x".repeat(65)];
    for (const run of runs) {
      expect(() => client.follow(run, { onEvents: () => undefined })).toThrow(/run id/);
      for (const ask of [
        () => client.info(run),
        () => client.cancel(run),
        () => client.delete(run),
        () => client.snapshot(run),
        () => client.approve(run, "a", { approved: true }),
        () => client.answerTool(run, "c", 1),
      ]) {
        expect(ask).toThrow(/run id/);
      }
    }
    for (const call of ["", ".", "..", "a/b", "a?b", "a#b", "a\\b", "a b", "x".repeat(201)]) {
      expect(() => client.answerTool(RUN, call, 1)).toThrow(/call id/);
      expect(() => client.approve(RUN, call, { approved: true })).toThrow(/call id/);
    }
    for (const thread of ["", ".", "..", "a/b", "a?b", "ü", "x".repeat(129)]) {
      expect(() => client.thread(thread)).toThrow(/thread id/);
    }
  });
});

describe("names that a model makes up", () => {
  const NAMES = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"];

  it("are data: no prototype is changed, and no inherited value is read", () => {
    for (const name of NAMES) {
      const args = JSON.parse(`{"${name}":{"polluted":1}}`) as unknown;
      const events = [
        { type: "run-start", run: RUN, metadata: args },
        { type: "step-start", step: 1 },
        { type: "tool-call-start", part: 0, step: 1, name, call_id: name, meta: args },
        { type: "part-attr", part: 0, name, value: args },
        { type: "part-attr", part: 0, name: "meta", value: args },
        { type: "tool-call-end", part: 0, arguments: args },
        { type: "usage", [`${name}_tokens`]: 3, mode: "increment" },
        { type: "tool-start", call_id: name, name },
        { type: "tool-result", call_id: name, content: args },
        { type: "approval-request", approval_id: name, call_id: name, name, arguments: args },
        { type: "data", name, payload: args },
        JSON.parse(`{"type":"error","scope":"tool","code":"x","message":"y","${name}":{"polluted":1}}`),
      ] as RunEvent[];
      const fold = new Fold();
      for (const event of events) fold.apply(event);
      const { state } = fold;
      expect(({} as Record<string, unknown>).polluted).toBeUndefined();
      expect(Object.getPrototypeOf(state)).toBe(Object.prototype);
      const [part] = state.steps[0]!.parts;
      expect(part!.attrs[name === "__proto__" ? "arguments" : name]).toEqual(args);
      expect(state.tools.get(name)!.content).toEqual(args);
      expect(state.data).toEqual([{ name, payload: args }]);
      expect(Object.keys(new PartialJSON().feed(JSON.stringify(args)).value as object)).toEqual([name]);
    }
    const empty = new Fold().state;
    for (const name of NAMES) {
      expect(empty.tools.get(name)).toBeUndefined();
    }
  });

  it("reach a store's readers as data", () => {
    const store = new RunStore();
    store.apply([JSON.parse('{"type":"data","name":"__proto__","payload":{"polluted":1}}') as RunEvent]);
    store.publish();
    expect(store.getSnapshot().state.data).toEqual([
      { name: "__proto__", payload: { polluted: 1 } },
    ]);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});

it("nothing is evaluated, nothing becomes markup, nothing is needed at run time", () => {
  for (const name of ["client", "react"]) {
    const folder = join(import.meta.dirname, "../../..", name);
    const files = readdirSync(join(folder, "src"), { recursive: true, encoding: "utf8" });
    const sources = files.filter((file) => /\.tsx?$/.test(file));
    expect(sources.length).toBeGreaterThan(4);
    for (const file of sources) {
      const text = readFileSync(join(folder, "src", file), "utf8");
      expect([file, /\beval\(|new Function|innerHTML|insertAdjacent|document\.write/.test(text)]).toEqual([file, false]);
    }
  }
  const told = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8")) as object;
  expect(told).not.toHaveProperty("dependencies");
});
