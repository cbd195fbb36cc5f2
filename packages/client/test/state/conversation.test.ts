import { expect, test } from "vitest";
import { Conversation } from "../../src/state/conversation.js";
import { TokenwireClient } from "../../src/index.js";

/** A server that keeps runs and what they were asked, and ends each at once. */
class Kept {
  runs: { id: string; state: string; created: number; metadata: Record<string, unknown> }[] = [];
  inputs: Record<string, unknown>[][] = [];
  asked: string[] = [];
  /** Runs of one page. */
  pages = 100;

  fetch: typeof fetch = async (input, init) => {
    const { pathname: path, search } = new URL(String(input), "http://x");
    this.asked.push(`${init?.method ?? "GET"} ${path}`);
    const json = (value: unknown) => new Response(JSON.stringify(value));
    if (path === "/v1/runs") {
      const { messages, metadata } = JSON.parse(String(init?.body)) as {
        messages: Record<string, unknown>[];
        metadata: Record<string, unknown>;
      };
      const id = `run_${String(this.runs.length + 1).padStart(16, "0")}`;
      this.runs.push({ id, state: "complete", created: this.runs.length, metadata });
      this.inputs.push(messages);
      return json({ id, state: "complete" });
    }
    if (path.startsWith("/v1/threads/")) {
      const newest = [...this.runs].reverse();
      const before = new URLSearchParams(search).get("before");
      const from = before ? newest.findIndex(({ id }) => id === before) + 1 : 0;
      const runs = newest.slice(from, from + this.pages);
      const more = newest.length > from + this.pages;
      return json({ runs, ...(more ? { next: runs.at(-1)!.id } : {}) });
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
    return json({ id: this.runs[at]!.id, input: this.inputs[at] });
  };

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

test("files go again with every later question", async () => {
  const kept = new Kept();
  const chat = kept.open();
  const [first, second] = [[PICTURE, NOTES, words("What is it?")], [NOTES]];
  await started(chat, () => chat.send("What is it?", { content: first }), kept);
  await started(chat, () => chat.send("", { content: second }), kept);
  expect(kept.inputs).toEqual([[question(...first)], [question(...first), question(...second)]]);
});

test("another page reads the files of a whole branch with one request", async () => {
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
  const infos = kept.asked.filter((path) => /runs\/run_\d+$/.test(path));
  expect(infos).toEqual([`GET /v1/runs/${kept.runs[3]!.id}`]);
});

test("where another client sent another history, each question is read by itself", async () => {
  const kept = new Kept();
  const chat = kept.open();
  await started(chat, () => chat.send("One", { content: [PICTURE, words("One")] }), kept);
  // Knows nothing of what was before, and says more.
  kept.runs.push({ id: "run_0000000000000002", state: "complete", created: 2, metadata: {} });
  kept.inputs.push([question(words("Other")), question(words("Look"), { ...NOTES, name: undefined })]);
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
  const first = question(PICTURE, words("One"));
  expect(kept.inputs.slice(1)).toEqual([
    [first],
    [first, { role: "user", content: "Two" }],
    [{ role: "user", content: "None" }],
  ]);
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

test("earlier pages are read on demand, and the model hears them before", async () => {
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
  const heard = kept.inputs.at(-1)!.filter(({ role }) => role === "user");
  expect(heard.map(({ content }) => content)).toEqual([
    ...Array.from({ length: 25 }, (_, n) => `Question ${n}`),
    "And now?",
  ]);
  await Promise.all([other.loadEarlier(), other.loadEarlier()]);
  expect(prompts()).toHaveLength(21);
  await other.loadEarlier();
  expect(prompts()).toEqual([...Array.from({ length: 25 }, (_, n) => `Question ${n}`), "And now?"]);
  expect(other.getSnapshot().earlier).toBe(false);
});
