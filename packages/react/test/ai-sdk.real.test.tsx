/* The AI SDK's own useChat on our transport, against a real server behind a proxy that cuts. */

import { useChat } from "@ai-sdk/react";
import { TokenwireClient } from "@tokenwire/client";
import { TokenwireChatTransport, type ChatTransportOptions } from "@tokenwire/client/ai";
import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import {
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
  type ChatInit,
  type UIMessage,
} from "ai";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { type Proxy, type Real, startProxy, startServer } from "../../client/test/real.js";

const SLOW = "scenario:slow?rate=90";
const NUMBERS = Array.from({ length: 90 }, (_, n) => `${n + 1} `).join("");
const WAIT = { timeout: 30_000 };

let server: Real;
let proxy: Proxy;

beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.stop());
beforeEach(async () => {
  proxy = await startProxy(server.url, (n) => 900 + 400 * n);
  vi.spyOn(Math, "random").mockImplementation(() => (drawn = (drawn + 0.000_001) % 0.001));
});
afterEach(async () => {
  cleanup();
  vi.restoreAllMocks();
  await proxy.stop();
});

let drawn = 0;
let chats = 0;

function opened(more: Partial<ChatInit<UIMessage>> = {}, options: ChatTransportOptions = {}) {
  const id = more.id ?? `chat-${++chats}`;
  const transport = new TokenwireChatTransport({ baseUrl: proxy.url, ...options });
  const seen = new Set<string>();
  const { result, unmount } = renderHook(() => {
    const chat = useChat({ ...more, id, transport });
    seen.add(chat.status);
    return chat;
  });
  return { id, chat: result, seen, unmount, transport };
}

const textOf = (messages: UIMessage[]) =>
  messages
    .filter(({ role }) => role === "assistant")
    .flatMap(({ parts }) => parts)
    .map((part) => (part.type === "text" ? part.text : ""))
    .join("");

async function runsOf(thread: string) {
  const { runs } = await new TokenwireClient({ baseUrl: server.url }).thread(thread);
  return runs.map(({ state }) => state);
}

describe("TokenwireChatTransport", () => {
  it("gives useChat whole answers over cuts, and the conversation to the model", async () => {
    const { id, chat, seen } = opened();
    await act(() => chat.current.sendMessage({ text: SLOW }));
    await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
    expect(textOf(chat.current.messages)).toBe(NUMBERS);
    expect(proxy.cuts()).toBeGreaterThan(2);
    await act(() => chat.current.sendMessage({ text: "scenario:tool?rate=500" }));
    await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
    const parts = chat.current.messages.at(-1)!.parts;
    expect(parts.find(({ type }) => type === "tool-get_weather")).toMatchObject({
      state: "output-available",
      output: { city: "Paris" },
    });
    expect(chat.current.messages.at(-1)!.metadata).toMatchObject({ tokenwire: { finishReason: "stop" } });
    await act(() => chat.current.sendMessage({ text: "scenario:text?rate=2000" }));
    await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
    expect([chat.current.error, seen.has("error")]).toEqual([undefined, false]);
    expect(await runsOf(id)).toEqual(["complete", "complete", "complete"]);
  });

  it("goes on with the same run, in the same message, when a person answers", async () => {
    for (const approved of [true, false]) {
      const { id, chat } = opened({
        sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
      });
      await act(() => chat.current.sendMessage({ text: "scenario:approval?rate=500" }));
      await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
      const call = () =>
        chat.current.messages[1]!.parts.find(({ type }) => type === "tool-delete_file") as {
          state: string;
          approval: { id: string };
        };
      expect(call().state).toBe("approval-requested");
      const answer = { id: call().approval.id, approved };
      await act(async () => chat.current.addToolApprovalResponse(answer));
      const wanted = approved ? "output-available" : "output-denied";
      await waitFor(() => expect(call().state).toBe(wanted), WAIT);
      await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
      expect(chat.current.messages.map(({ role }) => role)).toEqual(["user", "assistant"]);
      expect(await runsOf(id)).toEqual(["complete"]);
      expect(chat.current.error).toBeUndefined();
    }
  });

  /** A chat of the page loaded anew that shows an approval; `hold` names the first request that
   * waits for `go`. */
  async function loadedAnew(hold: RegExp, skip = 0) {
    const first = opened();
    await act(() => first.chat.current.sendMessage({ text: "scenario:approval?rate=2000" }));
    await waitFor(() => expect(first.chat.current.status).toBe("ready"), WAIT);
    const messages = await first.transport.messages(first.id);
    first.unmount();
    let go = () => {};
    const held = new Promise<void>((open) => (go = open));
    let seen = 0;
    const slow: typeof fetch = async (input, init) => {
      if (hold.test(String(input)) && seen++ === skip) await held;
      return fetch(input, init);
    };
    const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
    const { chat } = opened({ id: first.id, messages, sendAutomaticallyWhen }, { fetch: slow });
    const call = () =>
      chat.current.messages.at(-1)!.parts.find(({ type }) => type === "tool-delete_file") as {
        state: string;
        approval: { id: string };
      };
    const allow = () => {
      const answer = { id: call().approval.id, approved: true };
      return act(async () => chat.current.addToolApprovalResponse(answer));
    };
    return { id: first.id, chat, call, allow, go, isHeld: () => seen > skip };
  }

  it.each([
    ["the conversation", /\/v1\/threads\//, "soon"],
    ["the conversation", /\/v1\/threads\//, "late"],
    ["the run", /\/v1\/runs\/[^/]+$/, "soon"],
    ["the run", /\/v1\/runs\/[^/]+$/, "late"],
    ["the events", /\/events$/, "soon"],
    ["the events", /\/events$/, "late"],
  ])("takes an answer given before the resume has read %s (%s, %s)", async (_, hold, when) => {
    const { id, chat, call, allow, go, isHeld } = await loadedAnew(hold);
    let resumed = Promise.resolve();
    act(() => void (resumed = chat.current.resumeStream()));
    await waitFor(() => expect(isHeld()).toBe(true), WAIT);
    await allow();
    if (when === "late") await waitFor(() => expect(call().state).toBe("output-available"), WAIT);
    go();
    await act(() => resumed);
    await waitFor(() => expect(call().state).toBe("output-available"), WAIT);
    await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
    expect(chat.current.messages.map(({ role }) => role)).toEqual(["user", "assistant"]);
    expect(chat.current.error).toBeUndefined();
    expect(await runsOf(id)).toEqual(["complete"]);
  });

  it("shows an answer once that is resumed where its tool was allowed", async () => {
    const { chat, call, allow, go, isHeld } = await loadedAnew(/\/events$/);
    await allow();
    await waitFor(() => expect(isHeld()).toBe(true), WAIT);
    const before = chat.current.messages.at(-1)!.parts.map(({ type }) => type);
    await act(() => chat.current.stop());
    go();
    expect(call().state).toBe("approval-responded");
    await act(() => chat.current.resumeStream());
    await waitFor(() => expect(call().state).toBe("output-available"), WAIT);
    const shown = chat.current.messages.at(-1)!.parts.map(({ type }) => type);
    expect(shown.slice(0, before.length)).toEqual(before);
    expect(shown.filter((type) => type === "tool-delete_file")).toHaveLength(1);
    expect(shown.filter((type) => type === "step-start")).toHaveLength(2);
    expect(chat.current.messages).toHaveLength(2);
  });

  it("takes the results of tools that the page runs", async () => {
    const locate = { name: "locate", description: "Where?", parameters: { type: "object", properties: {} } };
    const { id, chat } = opened(
      {
        sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
        onToolCall: ({ toolCall }) => {
          const output = { city: "Lyon" };
          void chat.current.addToolOutput({ tool: "locate", toolCallId: toolCall.toolCallId, output } as never);
        },
      },
      { request: { tools: [locate] } },
    );
    await act(() => chat.current.sendMessage({ text: "Please locate me." }));
    await waitFor(() => expect(textOf(chat.current.messages)).not.toBe(""), WAIT);
    await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
    const part = chat.current.messages[1]!.parts.find(({ type }) => type === "tool-locate");
    expect(part).toMatchObject({ state: "output-available", output: { city: "Lyon" } });
    expect(chat.current.messages).toHaveLength(2);
    expect(await runsOf(id)).toEqual(["complete"]);
  });

  it("reads the answer under way again after a reload", async () => {
    const first = opened();
    act(() => void first.chat.current.sendMessage({ text: SLOW }));
    await waitFor(() => expect(textOf(first.chat.current.messages).length).toBeGreaterThan(5), WAIT);
    const messages = first.chat.current.messages.slice(0, 1);
    first.unmount();
    const { chat } = opened({ id: first.id, messages });
    await act(() => chat.current.resumeStream());
    await waitFor(() => expect(textOf(chat.current.messages)).toBe(NUMBERS), WAIT);
    expect(await runsOf(first.id)).toEqual(["complete"]);
    await act(() => chat.current.resumeStream()); // nothing to resume
    expect(chat.current.error).toBeUndefined();
  });

  it("stops the run by a command, or with the chat where that is wanted", async () => {
    for (const onStop of ["detach", "cancel"] as const) {
      const { id, chat, transport } = opened({}, { onStop });
      act(() => void chat.current.sendMessage({ text: SLOW }));
      await waitFor(() => expect(textOf(chat.current.messages).length).toBeGreaterThan(5), WAIT);
      await act(() => (onStop === "cancel" ? chat.current.stop() : transport.stop(id)));
      await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
      await waitFor(async () => expect(await runsOf(id)).toEqual(["cancelled"]), WAIT);
      expect(chat.current.error).toBeUndefined();
    }
  });

  it("says why an answer failed, and keeps what came before", async () => {
    const { chat } = opened();
    await act(() => chat.current.sendMessage({ text: "scenario:error?rate=500" }));
    await waitFor(() => expect(chat.current.status).toBe("error"), WAIT);
    expect(chat.current.error!.message).not.toBe("");
    expect(textOf(chat.current.messages.slice(-1))).toContain("This answer starts well");
  });

  /** A fetch whose requests of this method to `path` fail between `fail` and `mend`. */
  function failing(method: string, path: RegExp, how: (typeof FAILURES)[number]) {
    let failures = 0;
    let isOn = false;
    const failingFetch: typeof fetch = async (input, init) => {
      const url = new URL(input instanceof Request ? input.url : String(input));
      if (!isOn || (init?.method ?? "GET") !== method || !path.test(url.pathname)) return fetch(input, init);
      failures++;
      if (how === "page") return new Response("<p>Sign in</p>", { headers: { "content-type": "text/html" } });
      if (how === "empty") return new Response("", { status: 500 });
      const error = { code: "not_allowed", message: "you may not" };
      return Response.json({ error }, { status: 403 });
    };
    const fail = () => (isOn = true);
    const mend = () => (isOn = false);
    return { fetch: failingFetch, fail, mend, failures: () => failures };
  }
  const FAILURES = ["refused", "page", "empty"] as const;

  it.each(FAILURES)("tells of a question or a regeneration that fails (%s)", async (how) => {
    const broken = failing("POST", /^\/v1\/runs$/, how);
    const { id, chat } = opened({}, { fetch: broken.fetch });
    await act(() => chat.current.sendMessage({ text: "Hello" }));
    await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
    broken.fail();
    for (const again of [() => chat.current.regenerate(), () => chat.current.sendMessage({ text: "More" })]) {
      await act(again);
      await waitFor(() => expect(chat.current.status).toBe("error"), WAIT);
      expect(chat.current.error?.message).toBeTruthy();
      act(() => chat.current.clearError());
    }
    expect(broken.failures()).toBeGreaterThan(1);
    expect(await runsOf(id)).toEqual(["complete"]);
  });

  it.each(FAILURES)("tells of an answer to an approval that fails (%s)", async (how) => {
    const broken = failing("POST", /\/approvals/, how);
    const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
    const { id, chat } = opened({ sendAutomaticallyWhen }, { fetch: broken.fetch });
    await act(() => chat.current.sendMessage({ text: "scenario:approval?rate=2000" }));
    await waitFor(() => expect(chat.current.status).toBe("ready"), WAIT);
    const call = chat.current.messages[1]!.parts.find(({ type }) => type === "tool-delete_file");
    broken.fail();
    const { approval } = call as unknown as { approval: { id: string } };
    await act(async () => chat.current.addToolApprovalResponse({ id: approval.id, approved: true }));
    await waitFor(() => expect(chat.current.status).toBe("error"), WAIT);
    expect(chat.current.error?.message).toBeTruthy();
    expect(broken.failures()).toBeGreaterThan(0);
    expect(await runsOf(id)).toEqual(["waiting"]);
  });

  it.each([
    ...FAILURES.map((how) => [how, "the conversation", /\/v1\/threads\//] as const),
    ...FAILURES.map((how) => [how, "the run", /\/v1\/runs\/[^/]+$/] as const),
    ["refused", "the events", /\/events$/] as const, // others are tried again for minutes
  ])("tells of a reload that cannot read (%s: %s)", async (how, _, path) => {
    const first = opened();
    act(() => void first.chat.current.sendMessage({ text: SLOW }));
    await waitFor(() => expect(textOf(first.chat.current.messages).length).toBeGreaterThan(5), WAIT);
    const messages = first.chat.current.messages.slice(0, 1);
    first.unmount();
    const broken = failing("GET", path, how);
    broken.fail();
    const { chat } = opened({ id: first.id, messages }, { fetch: broken.fetch });
    await act(() => chat.current.resumeStream());
    await waitFor(() => expect(chat.current.status).toBe("error"), WAIT);
    expect(chat.current.error?.message).toBeTruthy();
    expect(broken.failures()).toBeGreaterThan(0);
  });

  it.each(FAILURES)("takes no failure of a stop for a stop, and reads on (%s)", async (how) => {
    const broken = failing("POST", /\/(cancel|stop)$/, how);
    const { id, chat, transport } = opened({}, { fetch: broken.fetch });
    act(() => void chat.current.sendMessage({ text: SLOW }));
    await waitFor(() => expect(textOf(chat.current.messages).length).toBeGreaterThan(5), WAIT);
    broken.fail();
    let result = "none";
    const stop = transport.stop(id).then(
      () => (result = "stopped"),
      () => (result = "failed"),
    );
    await waitFor(() => expect(textOf(chat.current.messages)).toBe(NUMBERS), WAIT);
    expect(broken.failures()).toBeGreaterThan(0);
    expect(await runsOf(id)).toEqual(["complete"]);
    // What the server refused is a failure; what is no answer of the server's is sent again.
    expect(result).toBe(how === "refused" ? "failed" : "none");
    broken.mend();
    await stop;
    expect(result).toBe(how === "refused" ? "failed" : "stopped");
  });
});
