// @vitest-environment happy-dom

import { stateOf, TokenwireClient, type RunEvent } from "@tokenwire/client";
import { act, cleanup, render, renderHook, waitFor } from "@testing-library/react";
import { StrictMode, type ReactNode } from "react";
import { afterEach, describe, expect, it, vi } from "vitest";
import {
  Message,
  MessageParts,
  Part,
  useChat,
  useObject,
  useRun,
  useThreads,
  type PartProps,
} from "../src/index.js";

afterEach(cleanup);

const RUN = "run_0123456789abcdef";

function answer(...texts: string[]): RunEvent[] {
  return [
    { type: "run-start", run: RUN },
    { type: "step-start", step: 1 },
    { type: "text-start", part: 0, step: 1 },
    ...texts.map((text): RunEvent => ({ type: "text-delta", part: 0, text })),
    { type: "text-end", part: 0 },
    { type: "step-end", step: 1, status: "complete" },
    { type: "run-end", outcome: "complete" },
  ];
}

/** A server in this process: what `fetch` would have brought. */
class Fake {
  runs: {
    id: string;
    state: string;
    created: number;
    metadata: object;
    events: RunEvent[];
    input: unknown;
    history?: { parent?: string };
  }[] = [];
  head: string | undefined;
  bodies: Record<string, unknown>[] = [];
  open = 0;
  /** Streams of runs that go on end nevertheless. */
  breaks = false;
  next: RunEvent[] = answer("Hello");
  /** What was told to runs: the end of the path, and the body. */
  answers: [string, unknown][] = [];
  titles = new Map<string, string>();
  refuse: { code: string; message: string } | undefined;

  fetch: typeof fetch = async (input, init) => {
    const path = new URL(String(input), "http://x").pathname;
    if (path === "/v1/runs") return this.#start(JSON.parse(String(init?.body)));
    const json = (value: unknown) => new Response(JSON.stringify(value));
    if (path === "/v1/threads") {
      const threads = [...this.titles].map(([thread, title], at) => ({ thread, title, updated: at }));
      return json({ threads: threads.reverse() });
    }
    if (path.startsWith("/v1/threads/")) {
      const thread = path.slice("/v1/threads/".length);
      if (init?.method === "PUT") this.titles.set(thread, JSON.parse(String(init.body)).title);
      if (init?.method === "DELETE") this.titles.delete(thread);
      if (path.endsWith("/head")) {
        this.head = JSON.parse(String(init?.body)).run;
        return json({ queue: [], head: this.head });
      }
      if (path.endsWith("/turns")) {
        const turns: unknown[] = [];
        for (let run = this.#run(this.head); run; run = this.#run(run.history?.parent)) {
          turns.unshift({ run: run.id, messages: run.input });
        }
        return json({ turns });
      }
      return json({ head: this.head, runs: [...this.runs].reverse() });
    }
    const run = this.runs.find(({ id }) => path.includes(id));
    if (!run) return new Response("{}", { status: 404 });
    if (path.endsWith("/cancel")) return json({});
    if (/\/(tools|approvals)\//.test(path)) {
      this.answers.push([path.slice(path.indexOf(run.id) + run.id.length), JSON.parse(String(init?.body))]);
      return json({});
    }
    if (path.endsWith(run.id)) {
      const wait = run.events.findLast(({ type }) => type === "run-wait") as { pending?: string[] };
      const left = wait?.pending?.filter((name) => !this.answers.some(([to]) => to.endsWith(`/${name}`)));
      return json({ id: run.id, input: run.input, waiting: left ?? [] });
    }
    if (String(input).includes("live=no")) {
      const events = run.events.map((event, at) => ({ cursor: `${at + 1}-a`, event }));
      return json({ events, closed: true });
    }
    if (init?.signal?.aborted) throw init.signal.reason;
    this.open++;
    const after = parseInt(new Headers(init?.headers).get("last-event-id") ?? "", 10) || 0;
    const blocks = run.events.map((event, at) => `id: ${at + 1}-a\ndata: ${JSON.stringify(event)}\n\n`);
    const text = blocks.slice(after).join("");
    const whole = run.events.at(-1)?.type === "run-end";
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        controller.enqueue(new TextEncoder().encode(text || ": ok\n\n"));
        const over = () => {
          this.open--;
          init?.signal?.removeEventListener("abort", stop);
        };
        const stop = () => {
          over();
          controller.error(init!.signal!.reason);
        };
        init?.signal?.addEventListener("abort", stop);
        if (whole || this.breaks) {
          over();
          controller.close();
        }
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };

  #run(id: string | undefined) {
    return this.runs.find((run) => run.id === id);
  }

  #start(body: Record<string, unknown>): Response {
    if (this.refuse) return new Response(JSON.stringify({ error: this.refuse }), { status: 429 });
    this.bodies.push(body);
    const id = `run_${String(this.runs.length + 1).padStart(16, "0")}`;
    const metadata = body.metadata as object;
    const events = this.next.map((e) => (e.type === "run-start" ? { ...e, run: id } : e));
    const created = 1000 + this.runs.length;
    const replaced = this.#run(body.replaces as string | undefined);
    const parent = replaced ? replaced.history?.parent : this.head;
    const history = body.history === "thread" ? { history: parent ? { parent } : {} } : {};
    const input = body.messages ?? replaced?.input;
    this.runs.push({ id, state: "complete", created, metadata, events, input, ...history });
    this.head = id;
    return new Response(JSON.stringify({ id, state: "running", ...history }), { status: 201 });
  }

  client(): TokenwireClient {
    return new TokenwireClient({ fetch: this.fetch, shareTabs: false });
  }
}

const strict = ({ children }: { children: ReactNode }) => <StrictMode>{children}</StrictMode>;
const texts = (chat: ReturnType<typeof useChat>) =>
  chat.turns.map((turn) => [turn.prompt, turn.store.getSnapshot().state.steps[0]?.parts[0]?.text]);

describe("useRun", () => {
  it("reads a run once, also in strict mode", async () => {
    const fake = new Fake();
    await fake.client().start({ prompt: "x" });
    const client = fake.client();
    const { result } = renderHook(() => useRun(client, "run_0000000000000001"), { wrapper: strict });
    await waitFor(() => expect(result.current.state.outcome).toBe("complete"));
    expect(result.current.state.steps[0]!.parts[0]!.text).toBe("Hello");
  });
});

describe("useChat", () => {
  it("sends, answers, and sends no more than what is new with the next question", async () => {
    const fake = new Fake();
    const client = fake.client();
    const { result } = renderHook(() => useChat({ client }), { wrapper: strict });
    expect(result.current.status).toBe("ready");
    act(() => void result.current.send("Hi"));
    expect(result.current.turns).toHaveLength(1);
    expect(result.current.status).toBe("submitted");
    await waitFor(() => expect(texts(result.current)).toEqual([["Hi", "Hello"]]));
    await waitFor(() => expect(result.current.status).toBe("ready"));
    act(() => void result.current.send("More"));
    await waitFor(() => expect(fake.bodies).toHaveLength(2));
    expect(fake.bodies[1]).toMatchObject({
      thread: result.current.thread,
      history: "thread",
      messages: [{ role: "user", content: "More" }],
    });
  });

  it("shows the same conversation after a reload, with its branches", async () => {
    const fake = new Fake();
    const client = fake.client();
    const { result } = renderHook(() => useChat({ client, thread: "thread-1" }));
    act(() => void result.current.send("One"));
    await waitFor(() => expect(result.current.status).toBe("ready"));
    fake.next = answer("Other");
    act(() => void result.current.edit(result.current.turns[0]!, "Two"));
    await waitFor(() => expect(texts(result.current)).toEqual([["Two", "Other"]]));

    const other = fake.client();
    const reload = renderHook(() => useChat({ client: other, thread: "thread-1" }));
    await waitFor(() => expect(texts(reload.result.current)).toEqual([["Two", "Other"]]));
    const versions = reload.result.current.versions(reload.result.current.turns[0]!);
    expect(versions.map(({ prompt }) => prompt)).toEqual(["One", "Two"]);
    act(() => reload.result.current.choose(versions[0]!));
    expect(texts(reload.result.current)).toEqual([["One", "Hello"]]);
    await waitFor(() => expect(fake.head).toBe("run_0000000000000001"));
    await act(() => result.current.refresh());
    expect(texts(result.current)).toEqual([["One", "Hello"]]);
  });

  it("says why a question could not be sent, and sends it again", async () => {
    const fake = new Fake();
    let refuse = true;
    const client = new TokenwireClient({
      shareTabs: false,
      fetch: async (input, init) => {
        if (refuse && String(input) === "/v1/runs") {
          return new Response('{"error":{"code":"busy","message":"too many"}}', { status: 429 });
        }
        return fake.fetch(input, init);
      },
    });
    const { result } = renderHook(() => useChat({ client }));
    act(() => void result.current.send("Hi"));
    await waitFor(() => expect(result.current.status).toBe("error"));
    expect(result.current.turns[0]!.error).toMatchObject({ code: "busy", message: "too many" });
    refuse = false;
    act(() => void result.current.retry(result.current.turns[0]!));
    await waitFor(() => expect(texts(result.current)).toEqual([["Hi", "Hello"]]));
    expect(result.current.versions(result.current.turns[0]!)).toHaveLength(1);
  });

  it("says that a budget is used up, before an answer and in its middle", async () => {
    const fake = new Fake();
    let refuse = true;
    const client = new TokenwireClient({
      shareTabs: false,
      fetch: async (input, init) => {
        if (refuse && String(input) === "/v1/runs") {
          const error = { code: "budget", message: "the budget of 20 tokens for today is used up" };
          return new Response(JSON.stringify({ error }), { status: 402, headers: { "retry-after": "60" } });
        }
        return fake.fetch(input, init);
      },
    });
    const { result } = renderHook(() => useChat({ client }));
    act(() => void result.current.send("Hi"));
    await waitFor(() => expect(result.current.status).toBe("error"));
    expect(result.current.error).toMatchObject({ code: "budget", status: 402, retryAfter: 60_000, retryable: false });
    refuse = false;
    fake.next = [...answer("Hel").slice(0, -1), { type: "run-end", outcome: "incomplete", reason: "budget" }] as typeof fake.next;
    act(() => void result.current.retry(result.current.turns[0]!));
    await waitFor(() => expect(texts(result.current)).toEqual([["Hi", "Hel"]]));
    const { state } = result.current.turns[0]!.store.getSnapshot();
    expect([stateOf(state), state.end_reason, result.current.error]).toEqual(["incomplete", "budget", undefined]);
  });

  it("leaves nothing behind after a thousand mounts", async () => {
    const fake = new Fake();
    fake.next = answer("Hello").slice(0, -1); // it goes on and on
    const client = fake.client();
    const counts = { listeners: 0, channels: 0 };
    const count = <T extends object>(on: T, name: keyof T, what: keyof typeof counts, by: number) => {
      const real = on[name] as (...given: unknown[]) => unknown;
      vi.spyOn(on, name as never).mockImplementation(function (this: unknown, ...given: unknown[]) {
        counts[what] += by;
        return real.apply(this, given);
      } as never);
    };
    for (const on of [window, document]) {
      count(on, "addEventListener", "listeners", 1);
      count(on, "removeEventListener", "listeners", -1);
    }
    const timers = new Set<unknown>();
    const { setInterval: begin, clearInterval: end } = globalThis;
    vi.stubGlobal("setInterval", (work: () => void, ms: number) => {
      const timer = begin(work, ms);
      if (ms >= 1000) timers.add(timer); // shorter ones are of those who wait in tests
      return timer;
    });
    vi.stubGlobal("clearInterval", (timer: Parameters<typeof end>[0]) => {
      timers.delete(timer);
      end(timer);
    });
    class Counted extends BroadcastChannel {
      constructor(name: string) {
        super(name);
        counts.channels++;
      }
      override close(): void {
        counts.channels--;
        super.close();
      }
    }
    vi.stubGlobal("BroadcastChannel", Counted);
    await client.start({ prompt: "x" });
    const schema = { type: "object" };
    const most = { listeners: 0, timers: 0 };
    for (let n = 0; n < 1000; n++) {
      const { unmount } = renderHook(() => {
        useRun(client, "run_0000000000000001");
        useObject({ client, schema });
        return useChat({ client, thread: "thread-1" });
      });
      if (n % 50 === 0) await waitFor(() => expect(fake.open).toBeGreaterThan(0));
      most.listeners = Math.max(most.listeners, counts.listeners);
      most.timers = Math.max(most.timers, timers.size);
      unmount();
    }
    await waitFor(() => {
      expect({ ...counts, timers: timers.size, open: fake.open }).toEqual({
        listeners: 0,
        channels: 0,
        timers: 0,
        open: 0,
      });
    });
    expect(most.listeners).toBeGreaterThan(0);
    expect(most.timers).toBeGreaterThan(0);
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
  }, 60_000);
});

describe("what a run asks the page for", () => {
  const asking = (waits: RunEvent[], goes: RunEvent[]): RunEvent[] => [
    { type: "run-start", run: RUN },
    { type: "step-start", step: 1 },
    { type: "tool-call-start", part: 0, step: 1, name: "locate", call_id: "c1", executor: "client" },
    { type: "tool-call-delta", part: 0, text: '{"exact":true}' },
    { type: "tool-call-end", part: 0, arguments: { exact: true } },
    { type: "step-end", step: 1, status: "complete" },
    ...waits,
    ...goes,
  ];
  const WAIT: RunEvent = { type: "run-wait", reason: "client_tool", pending: ["c1"] };

  it("runs a tool of the page once, tells its result, and tells of it at the start", async () => {
    const fake = new Fake();
    fake.breaks = true;
    fake.next = asking([WAIT], []);
    const client = fake.client();
    const execute = vi.fn(async ({ exact }: { exact: boolean }) => ({ city: "Lyon", exact }));
    const parameters = { type: "object", properties: { exact: { type: "boolean" } } };
    const tools = { locate: { description: "Where?", parameters, execute } };
    const { result } = renderHook(() => useChat({ client, tools }), { wrapper: strict });
    act(() => void result.current.send("Where am I?"));
    await waitFor(() => expect(fake.answers).toHaveLength(1));
    expect(fake.bodies[0]!.tools).toEqual([{ name: "locate", description: "Where?", parameters }]);
    expect(fake.answers[0]).toEqual(["/tools/c1", { content: { city: "Lyon", exact: true } }]);
    expect(result.current.status).toBe("waiting");
    // The stream breaks and comes back many times; the run still says that it waits.
    await waitFor(() => expect(result.current.turns[0]!.store.getSnapshot().reconnects).toBeGreaterThan(2), {
      timeout: 10_000,
    });
    expect(execute).toHaveBeenCalledTimes(1);
  });

  it("tells the model what a tool threw, and leaves alone what it has no tool for", async () => {
    const fake = new Fake();
    fake.next = asking([{ ...WAIT, pending: ["c1", "other"] }], []);
    const client = fake.client();
    const tools = {
      locate: {
        execute: () => {
          throw new Error("no satellites");
        },
      },
    };
    const { result } = renderHook(() => useChat({ client, tools }));
    act(() => void result.current.send("Where am I?"));
    await waitFor(() => expect(fake.answers).toHaveLength(1));
    expect(fake.answers[0]).toEqual(["/tools/c1", { content: { error: "no satellites" } }]);
  });

  it("lists the approvals that wait, and none once they are answered", async () => {
    const fake = new Fake();
    const asked: RunEvent[] = [
      { type: "approval-request", approval_id: "ap", call_id: "c1", name: "locate", arguments: { exact: true } },
      { type: "run-wait", reason: "approval", pending: ["ap"] },
    ];
    fake.next = asking(asked, []);
    const client = fake.client();
    const { result } = renderHook(() => useChat({ client }));
    act(() => void result.current.send("Where am I?"));
    await waitFor(() => expect(result.current.approvals).toHaveLength(1));
    const [approval] = result.current.approvals;
    expect(approval).toMatchObject({ approval_id: "ap", name: "locate", arguments: { exact: true } });
    await act(() => result.current.approve(approval!.turn, "ap", { approved: false }));
    expect(fake.answers).toEqual([["/approvals/ap", { approved: false }]]);
    act(() => {
      approval!.turn.store.apply([
        { type: "approval-answer", approval_id: "ap", call_id: "c1", approved: false },
      ]);
      approval!.turn.store.publish();
    });
    expect(result.current.approvals).toEqual([]);
  });
});

describe("a conversation", () => {
  it("chains runs that another client started in its thread", async () => {
    const fake = new Fake();
    for (const text of ["One", "Two"]) {
      fake.next = answer(`to ${text}`);
      const messages = [{ role: "user", content: [{ type: "text", text }] }];
      await fake.client().start({ messages, thread: "thread-1" });
    }
    const client = fake.client();
    const { result } = renderHook(() => useChat({ client, thread: "thread-1" }));
    await waitFor(() => expect(texts(result.current)).toEqual([["One", "to One"], ["Two", "to Two"]]));
  });

  it("asks with files, keeps them when the question is edited or loaded again", async () => {
    const fake = new Fake();
    const client = fake.client();
    const file = { type: "file", media_type: "image/png", data: "iVBORw0KGgo=" };
    const content = [{ type: "text", text: "What is this?" }, file];
    const { result } = renderHook(() => useChat({ client, thread: "thread-1" }));
    act(() => void result.current.send("What is this?", { content }));
    await waitFor(() => expect(result.current.status).toBe("ready"));
    expect(fake.bodies[0]!.messages).toEqual([{ role: "user", content }]);

    const other = fake.client();
    const reload = renderHook(() => useChat({ client: other, thread: "thread-1" }));
    await waitFor(() => expect(reload.result.current.turns[0]?.content).toEqual(content));
    const [turn] = reload.result.current.turns;
    expect(turn!.prompt).toBe("What is this?");
    act(() => void reload.result.current.edit(turn!, "And now?"));
    await waitFor(() => expect(fake.bodies).toHaveLength(2));
    const edited = [{ type: "text", text: "And now?" }, file];
    expect(fake.bodies[1]!.messages).toEqual([{ role: "user", content: edited }]);
  });

  it("is listed, named by its first question, renamed and erased", async () => {
    const fake = new Fake();
    const client = fake.client();
    const { result } = renderHook(() => useThreads(client), { wrapper: strict });
    await waitFor(() => expect(result.current.loading).toBe(false));
    act(() => result.current.touch("t1", "  Why is the sky blue?\nTell me. "));
    act(() => result.current.touch("t2", "x".repeat(90)));
    expect(result.current.threads.map(({ thread }) => thread)).toEqual(["t2", "t1"]);
    expect(result.current.threads[1]!.title).toBe("Why is the sky blue?");
    expect(result.current.threads[0]!.title).toHaveLength(80);
    await act(() => result.current.rename("t1", "Sky"));
    expect(fake.titles.get("t1")).toBe("Sky");
    await act(() => result.current.remove("t2"));
    expect(fake.titles.has("t2")).toBe(false);
    await act(() => result.current.rename("..", "x"));
    expect(result.current.error).toMatchObject({ code: "bad_request" });
  });
});

describe("Message", () => {
  it("draws question and answer, and why there is none", async () => {
    const fake = new Fake();
    const client = fake.client();
    const { result } = renderHook(() => useChat({ client }));
    act(() => void result.current.send("Hi"));
    const shown = () => result.current.messages.map((one) => <Message key={one.id} message={one} />);
    const view = render(<>{shown()}</>);
    await waitFor(() => expect(view.container.textContent).toBe("HiHello"));
    const before = result.current.messages;
    fake.refuse = { code: "busy", message: "too many" };
    act(() => void result.current.send("More"));
    view.rerender(<>{shown()}</>);
    await waitFor(() => expect(view.getByRole("alert").textContent).toBe("too many"));
    expect(result.current.messages.slice(0, 2)).toEqual(before);
    expect(result.current.messages[1]).toBe(before[1]);
    const states = [...view.container.querySelectorAll("[data-state]")];
    expect(states.map((one) => one.getAttribute("data-state"))).toEqual(["complete", "error"]);
  });
});

describe("useObject", () => {
  it("grows", async () => {
    const fake = new Fake();
    fake.next = answer('{"city":"Par', 'is","days":[1,', "2]}");
    const client = fake.client();
    const schema = { type: "object" };
    const { result } = renderHook(() => useObject<{ city?: string }>({ client, schema }));
    await act(() => result.current.submit("plan"));
    await waitFor(() => expect(result.current.complete).toBe(true));
    expect(result.current.object).toEqual({ city: "Paris", days: [1, 2] });
    expect(fake.bodies[0]).toMatchObject({ prompt: "plan", output: { schema } });
  });
});

describe("MessageParts", () => {
  it("draws only the part that changed", async () => {
    const { Fold } = await import("@tokenwire/client");
    const fold = new Fold();
    const drawn: number[] = [];
    const render_ = { text: ({ part }: PartProps) => (drawn.push(part.part), part.text) };
    for (const event of [
      { type: "step-start", step: 1 },
      { type: "text-start", part: 0, step: 1 },
      { type: "text-delta", part: 0, text: "a" },
      { type: "text-end", part: 0 },
      { type: "text-start", part: 1, step: 1 },
    ] as RunEvent[]) {
      fold.apply(event);
    }
    const view = render(<MessageParts run={fold.state} render={render_} />);
    drawn.length = 0;
    for (let n = 0; n < 50; n++) {
      fold.apply({ type: "text-delta", part: 1, text: `${n} ` });
      view.rerender(<MessageParts run={fold.state} render={render_} />);
    }
    expect(drawn).toEqual(Array(50).fill(1));
    expect(view.container.textContent).toContain("a0 1 2");
  });

  it("shows what tools wrote as text", () => {
    const attrs = { name: "<b>x</b>", call_id: "c" };
    const part = { part: 0, kind: "tool-call", step: 1, choice: 0, text: "{}", status: "complete", attrs };
    const tool = { call_id: "c", name: "x", started: true, done: true, output: "", content: "<img src=x>" };
    const view = render(<Part part={part} tool={tool} />);
    expect(view.container.querySelector("img")).toBeNull();
    expect(view.container.textContent).toContain("<img src=x>");
  });
});
