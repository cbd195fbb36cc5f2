import { expect, test, vi } from "vitest";
import { Conversation, type UnsentQuestion } from "../../src/state/conversation.js";
import { TokenwireClient } from "../../src/index.js";

interface Run {
  id: string;
  state: string;
  created: number;
  metadata: Record<string, unknown>;
  history?: { parent?: string };
}

/** A server that keeps runs and what they were asked, and ends each at once. */
class Kept {
  runs: Run[] = [];
  /** The own messages of each run. */
  inputs: Record<string, unknown>[][] = [];
  bodies: Record<string, unknown>[] = [];
  head: string | undefined;
  asked: string[] = [];
  /** Runs of one page. */
  pages = 100;

  fetch: typeof fetch = async (input, init) => {
    const { pathname: path, search } = new URL(String(input), "http://x");
    this.asked.push(`${init?.method ?? "GET"} ${path}`);
    const json = (value: unknown) => new Response(JSON.stringify(value));
    if (path === "/v1/runs") {
      const body = JSON.parse(String(init?.body)) as {
        messages?: Record<string, unknown>[];
        metadata: Record<string, unknown>;
        replaces?: string;
        parent?: string;
      };
      this.bodies.push(body);
      const id = `run_${String(this.runs.length + 1).padStart(16, "0")}`;
      const at = this.runs.findIndex((run) => run.id === body.replaces);
      const parent = body.parent ?? (at < 0 ? this.head : this.runs[at]!.history?.parent);
      const history = parent ? { parent } : {};
      this.runs.push({ id, state: "complete", created: this.runs.length, metadata: body.metadata, history });
      this.inputs.push(body.messages ?? this.inputs[at]!);
      this.head = id;
      return json({ id, state: "complete", history });
    }
    if (path.endsWith("/head")) {
      this.head = (JSON.parse(String(init?.body)) as { run: string }).run;
      return json({ queue: [], head: this.head });
    }
    if (path.endsWith("/turns")) {
      const query = new URLSearchParams(search);
      const start = query.has("before") ? this.#run(query.get("before")!)?.history?.parent : this.head;
      const turns = this.#branch(start).slice(-Number(query.get("limit")));
      return json({ turns: turns.map((run) => ({ run: run.id, messages: this.inputs[this.runs.indexOf(run)] })) });
    }
    if (path.startsWith("/v1/threads/")) {
      const newest = [...this.runs].reverse();
      const before = new URLSearchParams(search).get("before");
      const from = before ? newest.findIndex(({ id }) => id === before) + 1 : 0;
      const runs = newest.slice(from, from + this.pages);
      const more = newest.length > from + this.pages;
      return json({ head: this.head, queue: [], runs, ...(more ? { next: runs.at(-1)!.id } : {}) });
    }
    const at = this.runs.findIndex(({ id }) => path.includes(id));
    if (at < 0) return new Response("{}", { status: 404 });
    const events = [
      { type: "run-start", run: this.runs[at]!.id },
      { type: "run-end", outcome: "complete" },
    ];
    if (search.includes("live=no")) {
      return json({ events: events.map((event, n) => ({ cursor: `${n + 1}-a`, event })) });
    }
    if (path.endsWith("/events")) {
      const body = events.map((event, n) => `id: ${n + 1}-a\ndata: ${JSON.stringify(event)}\n\n`).join("");
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    }
    return json({ id: this.runs[at]!.id, input: this.given(at) });
  };

  /** What the model of a run is given. */
  given(at: number): Record<string, unknown>[] {
    return this.#branch(this.runs[at]!.id).flatMap((run) => this.inputs[this.runs.indexOf(run)]!);
  }

  #run(id: string | undefined): Run | undefined {
    return this.runs.find((run) => run.id === id);
  }

  #branch(head: string | undefined): Run[] {
    const branch: Run[] = [];
    for (let run = this.#run(head); run; run = this.#run(run.history?.parent)) branch.unshift(run);
    return branch;
  }

  open(): Conversation {
    const client = new TokenwireClient({ fetch: this.fetch, shareTabs: false });
    return new Conversation(client, { thread: "thread-1" });
  }
}

const PICTURE = { type: "file", media_type: "image/png", data: "QUFB", name: "cat.png" };
const NOTES = { type: "file", media_type: "text/plain", data: "aGk=", name: "notes.txt" };
const words = (text: string) => ({ type: "text", text });
const question = (...content: object[]) => ({ role: "user", content });

async function started(chat: Conversation, act: () => void, kept: Kept): Promise<void> {
  const before = kept.runs.length;
  act();
  await expect.poll(() => kept.runs.length).toBe(before + 1);
  await expect.poll(() => chat.getSnapshot().turns.every((turn) => turn.run)).toBe(true);
}

test("a later question goes without what was before, and its files", async () => {
  const kept = new Kept();
  const chat = kept.open();
  const [first, second] = [[PICTURE, NOTES, words("What is it?")], [NOTES]];
  await started(chat, () => chat.send("What is it?", { content: first }), kept);
  await started(chat, () => chat.send("", { content: second }), kept);
  expect(kept.bodies.map(({ messages }) => messages)).toEqual([[question(...first)], [question(...second)]]);
});

test("another page reads the questions of the branch with one request, those of another with two", async () => {
  const kept = new Kept();
  const chat = kept.open();
  const contents = [[PICTURE, words("One")], [NOTES], undefined, [NOTES, words("w".repeat(4000))]];
  const prompts = ["One", "", "Three", "w".repeat(4000)];
  for (const [at, content] of contents.entries()) {
    await started(chat, () => chat.send(prompts[at]!, { content }), kept);
  }
  kept.asked = [];
  const other = kept.open();
  await other.refresh();
  const { turns } = other.getSnapshot();
  expect(turns.map(({ prompt }) => prompt)).toEqual(prompts);
  expect(turns.map(({ content }) => content)).toEqual(contents);
  const questions = () => kept.asked.filter((path) => /runs\/run_\d+$|turns$/.test(path));
  expect(questions()).toEqual(["GET /v1/threads/thread-1/turns"]);
  await started(chat, () => chat.edit(chat.getSnapshot().turns[1]!, "Other", { content: undefined }), kept);
  kept.asked = [];
  const third = kept.open();
  await third.refresh();
  expect(third.getSnapshot().turns.map(({ prompt }) => prompt)).toEqual(["One", "Other"]);
  const page = "GET /v1/threads/thread-1/turns";
  expect(questions()).toEqual([page, `GET /v1/runs/${kept.runs[3]!.id}`, page]);
  expect(third.versions(third.getSnapshot().turns[1]!).map(({ content }) => content)).toEqual([[NOTES], undefined]);
});

test("where another client sent another history, each question is read by itself", async () => {
  const kept = new Kept();
  const chat = kept.open();
  await started(chat, () => chat.send("One", { content: [PICTURE, words("One")] }), kept);
  // Knows nothing of what was before, and says more.
  kept.runs.push({ id: "run_0000000000000002", state: "complete", created: 2, metadata: {} });
  kept.inputs.push([question(words("Other")), question(words("Look"), { ...NOTES, name: undefined })]);
  kept.head = "run_0000000000000002";
  const other = kept.open();
  await other.refresh();
  const { turns } = other.getSnapshot();
  expect(turns.map(({ prompt }) => prompt)).toEqual(["One", "Look"]);
  expect(turns[0]!.content).toEqual([PICTURE, words("One")]);
  expect(turns[1]!.content).toEqual([words("Look"), { ...NOTES, name: undefined }]);
});

test("asked again, edited and followed up from another page, the files stay", async () => {
  const kept = new Kept();
  const chat = kept.open();
  await started(chat, () => chat.send("One", { content: [PICTURE, words("One")] }), kept);
  const acts = [
    (other: Conversation) => other.retry(other.getSnapshot().turns[0]!),
    (other: Conversation) => other.send("Two"),
    (other: Conversation) => other.edit(other.getSnapshot().turns[0]!, "None", { content: undefined }),
  ];
  for (const act of acts) {
    const other = kept.open();
    await other.refresh();
    await started(other, () => act(other), kept);
  }
  const sent = kept.bodies.slice(1).map(({ messages, replaces }) => ({ messages, replaces }));
  const runs = kept.runs.map(({ id }) => id);
  expect(sent).toEqual([
    { replaces: runs[0] },
    { messages: [{ role: "user", content: "Two" }] },
    { messages: [{ role: "user", content: "None" }], replaces: runs[1] },
  ]);
  expect(kept.given(2)).toEqual([question(PICTURE, words("One")), { role: "user", content: "Two" }]);
  expect(kept.given(3)).toEqual([{ role: "user", content: "None" }]);
});

test("what a client sent as a whole conversation is edited with what was before", async () => {
  const kept = new Kept();
  const messages = [question(words("One")), { role: "assistant", content: "Yes" }, question(words("Two"))];
  kept.runs.push({ id: "run_0000000000000001", state: "complete", created: 0, metadata: { prompt: "Two" } });
  kept.inputs.push(messages);
  kept.head = "run_0000000000000001";
  const chat = kept.open();
  await chat.refresh();
  await started(chat, () => chat.edit(chat.getSnapshot().turns[0]!, "Three"), kept);
  expect(kept.bodies[0]).toMatchObject({
    parent: "",
    messages: [...messages.slice(0, 2), { role: "user", content: "Three" }],
  });
  const other = kept.open();
  await other.refresh();
  expect(other.getSnapshot().turns.map(({ prompt }) => prompt)).toEqual(["Three"]);
  expect(other.versions(other.getSnapshot().turns[0]!).map(({ prompt }) => prompt)).toEqual(["Two", "Three"]);
  await started(other, () => other.send("Four"), kept);
  expect(kept.runs[2]!.history).toEqual({ parent: kept.runs[1]!.id });
});

test("the branch that another device chose is shown, and one that was chosen here stays", async () => {
  const kept = new Kept();
  const [chat, other] = [kept.open(), kept.open()];
  await started(chat, () => chat.send("One"), kept);
  await started(chat, () => chat.edit(chat.getSnapshot().turns[0]!, "Two"), kept);
  await started(chat, () => chat.send("More"), kept);
  const prompts = (one: Conversation) => one.getSnapshot().turns.map(({ prompt }) => prompt);
  await other.refresh();
  expect(prompts(other)).toEqual(["Two", "More"]);
  other.choose(other.versions(other.getSnapshot().turns[0]!)[0]!);
  expect(prompts(other)).toEqual(["One"]);
  await expect.poll(() => kept.head).toBe(kept.runs[0]!.id);
  await chat.refresh();
  expect(prompts(chat)).toEqual(["One"]);
  await other.refresh();
  expect(prompts(other)).toEqual(["One"]);
  await started(chat, () => chat.send("After"), kept);
  expect(kept.runs.at(-1)!.history).toEqual({ parent: kept.runs[0]!.id });
});

test("of a conversation longer than the server lists, the newest part is shown", async () => {
  const kept = new Kept();
  for (let n = 2; n < 5; n++) {
    const parent = `run_${String(n - 1).padStart(16, "0")}`;
    const id = `run_${String(n).padStart(16, "0")}`;
    kept.runs.push({ id, state: "complete", created: n, metadata: { prompt: `Question ${n}`, parent } });
    kept.inputs.push([]);
  }
  const chat = kept.open();
  await chat.refresh();
  expect(chat.getSnapshot().turns.map(({ prompt }) => prompt)).toEqual(["Question 2", "Question 3", "Question 4"]);
});

test("earlier pages are read on demand, and the model is given them before", async () => {
  const kept = new Kept();
  kept.pages = 10;
  const chat = kept.open();
  for (let number = 0; number < 25; number++) {
    await started(chat, () => chat.send(`Question ${number}`), kept);
  }
  const other = kept.open();
  await other.refresh();
  const prompts = () => other.getSnapshot().turns.map(({ prompt }) => prompt);
  expect(prompts()).toEqual(Array.from({ length: 10 }, (_, n) => `Question ${n + 15}`));
  expect(other.getSnapshot().earlier).toBe(true);
  await started(other, () => other.send("And now?"), kept);
  expect(kept.given(25).map(({ content }) => content)).toEqual([
    ...Array.from({ length: 25 }, (_, n) => `Question ${n}`),
    "And now?",
  ]);
  await Promise.all([other.loadEarlier(), other.loadEarlier()]);
  expect(prompts()).toHaveLength(21);
  await other.loadEarlier();
  expect(prompts()).toEqual([...Array.from({ length: 25 }, (_, n) => `Question ${n}`), "And now?"]);
  expect(other.getSnapshot().earlier).toBe(false);
});

test("a question stays with its writer where it would have gone out as somebody else", async () => {
  const server = new Kept();
  let signedIn = "ann";
  const client = (reader: string) =>
    new TokenwireClient({
      baseUrl: "http://kept.test",
      headers: () => ({ "tokenwire-reader": reader }),
      fetch: (input, init) => {
        if (new Headers(init?.headers).get("tokenwire-reader") === signedIn) return server.fetch(input, init);
        const error = { code: "other_reader", message: "another principal" };
        return Promise.resolve(new Response(JSON.stringify({ error }), { status: 412 }));
      },
    });
  const left = new Map<string, UnsentQuestion[]>();
  const place = { read: (thread: string) => left.get(thread) ?? [], write: left.set.bind(left) };
  const page = () => {
    const conversation = new Conversation(client("ann"), { thread: "one", holdsUnsent: true });
    conversation.keepUnsent(place);
    return conversation;
  };
  const first = page();
  signedIn = "bob";
  const turn = first.send("of Ann");
  await vi.waitFor(() => expect(turn.error?.code).toBe("other_reader"));
  expect(server.runs).toEqual([]);
  expect(left.get("one")?.map(({ prompt }) => prompt)).toEqual(["of Ann"]);
  // Not as him by another page of hers either, and once as herself.
  const second = page();
  await vi.waitFor(() => expect(second.getSnapshot().turns[0]?.error?.code).toBe("other_reader"));
  signedIn = "ann";
  const again = page();
  await vi.waitFor(() => expect(again.getSnapshot().turns.map(({ run }) => !!run)).toEqual([true]));
  expect(server.runs.map(({ metadata }) => metadata.ask)).toEqual([turn.key]);
  expect(left.get("one")).toEqual([]);
});
