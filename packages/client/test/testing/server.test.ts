/* The stand-in for a server: it says what a server says, through every way of reading. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { ORDER, type RunEvent } from "../../src/core/events.generated.js";
import { Fold, RunStore, SSEParser, stateOf, textOf, type Delivered } from "../../src/index.js";
import { TokenwireChatTransport } from "../../src/ai-sdk/transport.js";
import { call, cutEverywhere, events, eventuallyEnds, failure, pause, type Piece, reasoning, ScriptedServer } from "../../src/testing/index.js";

const conformance = join(import.meta.dirname, "../../../../conformance");
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const EVERYTHING: Piece[] = [
  reasoning("Hm."),
  "Hé",
  "llo 👩‍💻",
  call("clock", { zone: "UTC" }, { result: "12:00" }),
  call("fails", {}, { error: "no" }),
  "Then ",
  call("delete", { path: "x" }, { needsApproval: true, result: 1 }),
  call("where", {}, { inPage: true }),
  "done.",
];

/** Reads a run to its end, and answers whatever it waits for. */
async function readAll(server: ScriptedServer, approved = true): Promise<RunEvent[]> {
  const client = server.client();
  const { id } = await client.start({ prompt: "Hi", thread: "chat-1" });
  const all: RunEvent[] = [];
  const answered = (batch: Delivered[]) => {
    for (const { event } of batch) {
      all.push(event);
      if (event.type !== "run-wait") continue;
      const pending = event.pending![0]!;
      if (event.reason === "approval") void client.approve(id, pending, { approved, reason: "mine" });
      else void client.answerTool(id, pending, { lat: 1 });
    }
  };
  await client.follow(id, { onEvents: answered });
  return all;
}

function expectOrder(all: readonly RunEvent[]): void {
  let state = "new";
  for (const event of all) {
    const next = ORDER[state]![event.type];
    expect([state, event.type, next]).toEqual([state, event.type, expect.any(String)]);
    state = next!;
  }
  expect(state).toBe("ended");
  expect(all.map(({ seq }) => seq)).toEqual(all.map((_, at) => at + 1));
}

it("says a run in the order of the protocol, as the Python model has it", async () => {
  const all = await readAll(new ScriptedServer(EVERYTHING));
  expectOrder(all);
  // tests/testing/test_scripted_server.py holds these to the rules of the Python side.
  const recorded = JSON.parse(readFileSync(join(conformance, "cassettes/scripted.json"), "utf8")) as Record<string, RunEvent[]>;
  expect(all).toEqual(recorded.everything);
  expect(await readAll(new ScriptedServer(EVERYTHING), false)).toEqual(recorded.denied);
  expect(await readAll(new ScriptedServer(["Half ", failure("tired", "overloaded")]))).toEqual(recorded.failure);
  expect(await readAll(new ScriptedServer([]))).toEqual(recorded.empty);
  const cancelled = new ScriptedServer(["Half", pause(), " never"]);
  const client = cancelled.client();
  const { id } = await client.start({ prompt: "x", thread: "chat-1" });
  expect(await client.cancel(id, "enough")).toEqual({});
  expect(await eventuallyEnds(client, id)).toEqual({ [id]: "cancelled" });
  expect(cancelled.events(id)).toEqual(recorded.cancelled);
  const fold = new Fold();
  for (const event of all) fold.apply(event);
  expect(textOf(fold.state)).toBe("Héllo 👩‍💻Then done.");
  expect(stateOf(fold.state)).toBe("complete");
});

it.each(readdirSync(join(conformance, "wire")))("plays the events of conformance/wire/%s", async (name) => {
  const { events: list, bytes } = JSON.parse(readFileSync(join(conformance, "wire", name), "utf8")) as {
    events: RunEvent[];
    bytes: { native: string };
  };
  const expected = framesOf(bytes.native);
  const server = new ScriptedServer([events(list)]);
  const { id } = await server.client().start({ prompt: "x" });
  const first = parseInt(expected[0]!.id, 10) - 1; // where the recorded reader comes back
  const after: Record<string, string> = first ? { "last-event-id": `${first}-${first.toString(16).padStart(16, "0")}` } : {};
  const reader = (await server.fetch(`/v1/runs/${id}/events`, { headers: after })).body!.getReader();
  let text = "";
  while (framesOf(text).length < expected.length) text += new TextDecoder().decode((await reader.read()).value);
  await reader.cancel();
  const received = framesOf(text);
  expect(received.map((frame) => frame.id)).toEqual(expected.map((frame) => frame.id));
  // A server leaves out what is as usual; the names of runs are this server's own.
  const { run: original } = list[0] as { run: string };
  expected.forEach(({ data }, at) => {
    expect(JSON.parse(received[at]!.data)).toMatchObject(JSON.parse(data.replaceAll(original, id)) as object);
  });
});

const framesOf = (text: string) => new SSEParser().feed(new TextEncoder().encode(text));

it("is read by event stream, long polling and WebSocket alike", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0); // fall back at once
  const script: Piece[] = ["One ", "two ", call("clock"), "three"];
  const expected = await readAll(new ScriptedServer(script));
  const behind = new ScriptedServer(script, { eventStreams: false });
  vi.stubGlobal("WebSocket", behind.WebSocket);
  expect(await readAll(behind)).toEqual(expected);
  vi.stubGlobal("WebSocket", undefined);
  const polled = new ScriptedServer(script, { eventStreams: false });
  expect(await readAll(polled)).toEqual(expected);
  expect(polled.requests.some(({ path }) => path.includes("live=long-poll"))).toBe(true);
  expect(polled.open).toBe(0);
});

it("waits at a pause until the test lets it go on", async () => {
  const server = new ScriptedServer(["One", pause(), " two", pause(), " three"]);
  const client = server.client();
  const store = new RunStore();
  const { id } = await client.start({ prompt: "x" });
  const read = store.follow(client, id);
  const text = () => textOf(store.getSnapshot().state);
  await vi.waitFor(() => expect(text()).toBe("One"));
  server.resume();
  await vi.waitFor(() => expect(text()).toBe("One two"));
  expect(server.open).toBe(1);
  server.resume();
  await read;
  expect(text()).toBe("One two three");
  expect(server.open).toBe(0);
});

it("gives each run its script, and one run to one key", async () => {
  const server = new ScriptedServer(["One"], ["Two"]);
  const client = server.client();
  const ids = [];
  for (const key of ["a", "b", "a", "c"]) ids.push((await client.start({ prompt: "x", thread: "t" }, { key })).id);
  expect(ids).toEqual([ids[0], ids[1], ids[0], server.runs[2]]);
  await eventuallyEnds(client, ids);
  const textIn = (run: string) => server.events(run).flatMap((event) => (event.type === "text-delta" ? [event.text] : []));
  expect(server.runs.map(textIn)).toEqual([["One"], ["Two"], ["Two"]]);
  expect((await client.thread("t")).runs.map(({ id }) => id)).toEqual([...server.runs].reverse());
  expect(server.requests[0]).toMatchObject({ method: "POST", path: "/v1/runs", body: { prompt: "x", thread: "t" } });
  await expect(client.info("run_9999999999999999")).rejects.toMatchObject({ status: 404, code: "unknown_run" });
  await expect(client.approve(ids[0]!, "ap_x", { approved: true })).rejects.toMatchObject({ status: 409 });
  const response = await server.fetch(`/v1/runs/${ids[0]}/events`, { headers: { "last-event-id": "2-beef" } });
  expect(response.status).toBe(400);
});

it("is a chat's server for useChat's transport", async () => {
  const server = new ScriptedServer(["Hello", ", world"]);
  const transport = new TokenwireChatTransport({ client: server.client() });
  const messages = [{ id: "m1", role: "user" as const, parts: [{ type: "text" as const, text: "Hi" }] }];
  const options = { trigger: "submit-message" as const, chatId: "c", messageId: undefined, messages, abortSignal: undefined };
  const stream = await transport.sendMessages(options);
  const deltas: string[] = [];
  for await (const chunk of stream) if (chunk.type === "text-delta") deltas.push(chunk.delta);
  expect(deltas.join("")).toBe("Hello, world");
});

// --- checks ------------------------------------------------------------------------------------

const textBy = async (server: ScriptedServer) => {
  const store = new RunStore();
  const { id } = await server.client().start({ prompt: "x" });
  await store.follow(server.client(), id);
  return textOf(store.getSnapshot().state);
};

it.each(["event", "byte"] as const)("a reader that resumes passes, cut at every %s", async (every) => {
  vi.spyOn(Math, "random").mockReturnValue(0); // come back at once
  const short = events([{ type: "run-start", run: "x" }, { type: "run-end", outcome: "complete" }]);
  await cutEverywhere(every === "event" ? ["One ", call("x"), "two"] : [short], textBy, { every });
});

/** Reads one stream, and takes its end for the run's. */
const careless = async (server: ScriptedServer) => {
  const { id } = await server.client().start({ prompt: "x" });
  const response = await server.fetch(`/v1/runs/${id}/events`);
  return (await response.text()).replace(/.*?"text-delta".*?"text":"(.*?)".*?\n|.*\n/g, "$1");
};
/** Comes back without its cursor, and appends what comes. */
const forgetful = async (server: ScriptedServer) => {
  const { id } = await server.client().start({ prompt: "x" });
  let text = "";
  while (!text.includes("run-end")) {
    const response = await server.fetch(`/v1/runs/${id}/events`);
    const reader = response.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }));
      if (done) break;
      text += new TextDecoder().decode(value);
    }
  }
  return text;
};

it("readers that lose or repeat are said to", async () => {
  const script = ["One ", "two"];
  await expect(cutEverywhere(script, careless)).rejects.toThrow(/cut after \d+ of 10 events \((end|error)\): /);
  await expect(cutEverywhere(script, careless, { atOnce: 1 })).rejects.toThrow(
    'cut after 0 of 10 events (end): the result is another one\n  expected "One two"\n  received ""',
  );
  await expect(cutEverywhere(script, forgetful, { atOnce: 1 })).rejects.toThrow("cut after 1 of 10 events (end): the result");
  await expect(cutEverywhere(script, async () => 1)).rejects.toThrow("no run was started");
  const early = async (server: ScriptedServer) => void (await server.client().start({ prompt: "x" }));
  await expect(cutEverywhere([pause()], early)).rejects.toThrow("the run did not end");
});

it("runs that do not end are named with what they wait for", async () => {
  const server = new ScriptedServer(["Hi"], ["Shall I?", call("delete", {}, { needsApproval: true })]);
  const client = server.client();
  const [one, two] = [await client.start({ prompt: "x" }), await client.start({ prompt: "y" })];
  await expect(eventuallyEnds(client, [one.id, two.id], { timeout: 0.05 })).rejects.toThrow(
    `1 of 2 runs did not end in 0.05 s:\n  ${two.id}: state waiting, 14 events, waits for ap_call_1`,
  );
  await client.cancel(two.id);
  expect(await eventuallyEnds(client, [one.id, two.id])).toEqual({ [one.id]: "complete", [two.id]: "cancelled" });
});
