/* TanStack AI's own chat client on our connection, against a real server behind a proxy that cuts. */

import { ChatClient, type ChatClientOptions } from "@tanstack/ai-client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { TokenwireClient } from "../../src/index.js";
import { TokenwireConnection, type ConnectionOptions } from "../../src/ag-ui/tanstack.js";
import { type Proxy, type Real, startProxy, startServer } from "../real.js";

const SLOW = "scenario:slow?rate=90";
const NUMBERS = Array.from({ length: 90 }, (_, n) => `${n + 1} `).join("");

let server: Real;
let proxy: Proxy;
let warned: unknown[][];

beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.stop());
beforeEach(async () => {
  // The headers pass, then ever a little more: each stream is cut in the middle of its events.
  proxy = await startProxy(server.url, (n) => 900 + 400 * n);
  vi.spyOn(Math, "random").mockImplementation(random);
  warned = [];
  for (const level of ["warn", "error"] as const) {
    vi.spyOn(console, level).mockImplementation((...words) => void warned.push(words));
  }
});
afterEach(async () => {
  vi.restoreAllMocks();
  await proxy.stop();
});

/** Small, so that reading comes back at once; and never twice the same, because ids are drawn. */
let drawn = 0;
function random(): number {
  return (drawn = (drawn + 0.000_001) % 0.001);
}

let threads = 0;

function open(more: Partial<ChatClientOptions> = {}, options: ConnectionOptions = {}) {
  const connection = new TokenwireConnection({ baseUrl: proxy.url, ...options });
  const errors: Error[] = [];
  const chunks: string[] = [];
  const chat = new ChatClient({
    threadId: `thread-${++threads}`,
    connection,
    onError: (error: Error) => errors.push(error),
    onChunk: (chunk: { type: string }) => chunks.push(chunk.type),
    ...more,
  } as ChatClientOptions);
  return { chat, connection, errors, chunks, thread: chat["threadId"] as string };
}

const textOf = (chat: ChatClient) =>
  chat
    .getMessages()
    .filter(({ role }) => role === "assistant")
    .flatMap(({ parts }) => parts)
    .map((part) => (part.type === "text" ? part.content : ""))
    .join("");

const callsOf = (chat: ChatClient) =>
  chat.getMessages().flatMap(({ parts }) => parts.filter((part) => part.type === "tool-call"));

async function runsOf(thread: string) {
  const { runs } = await new TokenwireClient({ baseUrl: server.url }).thread(thread);
  return runs.map(({ state }) => state);
}

function storage(): Storage {
  const kept = new Map<string, string>();
  return {
    get length() {
      return kept.size;
    },
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => void kept.set(name, value),
    removeItem: (name: string) => void kept.delete(name),
    key: (at: number) => [...kept.keys()][at] ?? null,
    clear: () => kept.clear(),
  };
}

const until = (check: () => unknown) => vi.waitFor(() => expect(check()).toBeTruthy(), 30_000);

describe("TokenwireConnection", () => {
  it("never shows the chat client a cut", async () => {
    const { chat, errors, chunks, thread } = open();
    await chat.sendMessage(SLOW);
    expect(textOf(chat)).toBe(NUMBERS);
    expect(proxy.cuts()).toBeGreaterThan(1);
    expect(chunks.filter((type) => type === "RUN_STARTED")).toHaveLength(1);
    expect(chunks.at(-1)).toBe("RUN_FINISHED");
    expect([errors, warned, await runsOf(thread)]).toEqual([[], [], ["complete"]]);
  });

  it("tells reasoning, tool calls and their results", async () => {
    const { chat, errors } = open();
    await chat.sendMessage("scenario:reasoning?rate=500");
    expect(chat.getMessages().flatMap(({ parts }) => parts.map(({ type }) => type))).toContain("thinking");
    await chat.sendMessage("scenario:tool?rate=500");
    expect(callsOf(chat)[0]).toMatchObject({ name: "get_weather", output: { city: "Paris" } });
    expect(textOf(chat)).toContain("Paris");
    // The whole conversation goes along with the next question, calls and results included.
    await chat.sendMessage("scenario:text?rate=2000");
    expect([errors, warned]).toEqual([[], []]);
  });

  it("tells a failed answer as an error, and keeps what came before", async () => {
    const { chat, errors } = open();
    await chat.sendMessage("scenario:error");
    expect(errors).toHaveLength(1);
    expect(textOf(chat)).toContain("This answer starts well");
  });

  it("goes on with the same run when a person approves", async () => {
    for (const approved of [true, false]) {
      const { chat, errors, thread } = open();
      await chat.sendMessage("scenario:approval");
      expect(await runsOf(thread)).toEqual(["waiting"]);
      const [interrupt] = chat.getInterrupts();
      (interrupt as { resolveInterrupt(answer: unknown): void }).resolveInterrupt({ approved });
      await until(() => !chat.getIsLoading() && chat.getInterrupts().length === 0);
      expect(await runsOf(thread)).toEqual(["complete"]);
      const [call] = callsOf(chat);
      expect(call).toMatchObject({ name: "delete_file" });
      expect(JSON.stringify(call!.output ?? "").includes("report.txt")).toBe(approved);
      expect([errors, warned]).toEqual([[], []]);
    }
  });

  it("lets the page run its own tools", async () => {
    const locate = {
      name: "locate",
      description: "Tell where the person is.",
      inputSchema: { type: "object", properties: {} },
      execute: () => ({ city: "Lyon" }),
    };
    const tools = [{ ...locate, __toolSide: "client" as const }];
    const { chat, errors, thread } = open({ tools } as Partial<ChatClientOptions>);
    await chat.sendMessage("Please locate me.");
    await until(() => !chat.getIsLoading() && textOf(chat));
    expect(await runsOf(thread)).toEqual(["complete"]);
    expect(callsOf(chat)[0]).toMatchObject({ name: "locate", output: { city: "Lyon" } });
    expect([errors, warned]).toEqual([[], []]);
  });

  it("stops the run by a command; an abort only ends the reading", async () => {
    const { chat, connection, thread, errors } = open();
    const sent = chat.sendMessage(SLOW);
    await until(() => textOf(chat).length > 5);
    await connection.stop();
    await sent;
    expect(await runsOf(thread)).toEqual(["cancelled"]);
    expect(textOf(chat).length).toBeLessThan(NUMBERS.length);
    expect(errors).toEqual([]);

    const other = open();
    void other.chat.sendMessage(SLOW);
    await until(() => textOf(other.chat).length > 5);
    other.chat.stop();
    expect(await runsOf(other.thread)).toEqual(["running"]);

    const ending = open({}, { onAbort: "cancel" });
    void ending.chat.sendMessage(SLOW);
    await until(() => textOf(ending.chat).length > 5);
    ending.chat.stop();
    await vi.waitFor(async () => expect(await runsOf(ending.thread)).toEqual(["cancelled"]), 30_000);
  });

  it("shows a page that is loaded again the whole conversation, and joins the run", async () => {
    const first = open();
    await first.chat.sendMessage("Hello");
    const greeting = textOf(first.chat);
    void first.chat.sendMessage(SLOW);
    await until(() => textOf(first.chat).length > greeting.length + 5);
    first.chat.dispose();
    const second = open({ threadId: first.thread, persistence: true } as Partial<ChatClientOptions>);
    second.chat.attach();
    await until(() => textOf(second.chat) === greeting + NUMBERS && !second.chat.getIsLoading());
    const roles = second.chat.getMessages().map(({ role }) => role);
    expect(roles).toEqual(["user", "assistant", "user", "assistant"]);
    expect(await runsOf(first.thread)).toEqual(["complete", "complete"]);
    second.chat.dispose();
  });

  it("asks again for an approval after a reload", async () => {
    const first = open();
    await first.chat.sendMessage("scenario:approval");
    first.chat.dispose();
    const { chat, thread, errors } = open({ threadId: first.thread, persistence: true } as Partial<ChatClientOptions>);
    chat.attach();
    await until(() => chat.getInterrupts().length);
    const [interrupt] = chat.getInterrupts();
    expect(interrupt).toMatchObject({
      message: "May the tool delete_file run?",
      metadata: { kind: "approval", toolName: "delete_file", input: { path: "report.txt" } },
    });
    expect(callsOf(chat)).toHaveLength(1);
    (interrupt as { resolveInterrupt(answer: unknown): void }).resolveInterrupt({ approved: true });
    await until(() => !chat.getIsLoading() && chat.getInterrupts().length === 0);
    expect(await runsOf(thread)).toEqual(["complete"]);
    expect(errors).toEqual([]);
    chat.dispose();
  });

  it("finds its run again when the conversation is kept in the browser", async () => {
    vi.stubGlobal("localStorage", storage());
    const records = new Map<string, unknown>();
    const persistence = {
      getItem: (id: string) => records.get(id),
      setItem: (id: string, value: unknown) => void records.set(id, structuredClone(value)),
      removeItem: (id: string) => void records.delete(id),
    };
    const first = open({ persistence } as Partial<ChatClientOptions>);
    void first.chat.sendMessage(SLOW);
    await until(() => textOf(first.chat).length > 5);
    await until(() => records.size);
    first.chat.dispose();
    const again = { threadId: first.thread, persistence } as Partial<ChatClientOptions>;
    const second = open(again);
    second.chat.attach();
    await until(() => textOf(second.chat) === NUMBERS && !second.chat.getIsLoading());
    expect(await runsOf(first.thread)).toEqual(["complete"]);
    expect(localStorage).toHaveLength(0);
    second.chat.dispose();
    vi.unstubAllGlobals();
  });

  it("says why a question could not be asked", async () => {
    const { chat, errors } = open({}, { model: "no-such-model" });
    await chat.sendMessage("Hello");
    expect(errors[0]).toMatchObject({ code: "unknown_model" });
  });
});
