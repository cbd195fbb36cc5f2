import { afterAll, beforeAll, expect, test } from "vitest";
import { TokenwireClient } from "../../src/index.js";
import { hasBegun, Thread } from "../../src/threads/thread.js";
import { serve } from "../serve.js";
import { startServer, type Real } from "../real.js";

let server: Real;
beforeAll(async () => void (server = await startServer()), 60_000);
afterAll(() => server.stop());

const client = () => new TokenwireClient({ baseUrl: server.url, shareTabs: false });
const ended = (run: string) => client().follow(run, { onEvents: () => undefined });
const prompts = async (thread: Thread) =>
  (await thread.turns()).turns.map(({ messages }) => messages.map(({ content }) => content).join());

test("a conversation is continued, read and branched", async () => {
  const thread = new Thread(client(), "trip");
  const one = await thread.send({ prompt: "one" });
  await ended(one.id);
  const two = await thread.send({ messages: [{ role: "user", content: "two" }] });
  await ended(two.id);
  const page = await thread.turns({ limit: 1 });
  expect(page).toMatchObject({ turns: [{ run: two.id, parent: one.id, state: "complete" }], next: two.id });
  expect((await thread.turns({ before: page.next! })).turns.map(({ run }) => run)).toEqual([one.id]);
  const edited = await thread.send({ prompt: "better", replaces: two.id });
  await ended(edited.id);
  expect(await prompts(thread)).toEqual(["one", "better"]);
  expect((await thread.setHead(two.id)).head).toBe(two.id);
  expect(await prompts(thread)).toEqual(["one", "two"]);
}, 60_000);

test("turns that wait are edited, withdrawn and sent now", async () => {
  const thread = new Thread(client(), "busy");
  const busy = await thread.send({ prompt: "scenario:stall" });
  const one = await thread.send({ prompt: "one", while_busy: "queue" });
  const two = await thread.send({ prompt: "two", while_busy: "queue" });
  expect([hasBegun(busy), hasBegun(one), two.position]).toEqual([true, false, 2]);
  expect((await thread.edit(one.id, "first")).queue.map(({ text }) => text)).toEqual(["first", "two"]);
  expect(await thread.waiting(one.id)).toMatchObject({ position: 1, messages: [{ content: "first" }] });
  await expect(thread.send({ prompt: "x", while_busy: "reject" })).rejects.toMatchObject({
    code: "thread_busy",
    status: 409,
  });
  expect((await thread.withdraw(one.id)).queue.map(({ id }) => id)).toEqual([two.id]);
  expect((await thread.sendNow(two.id)).id).toBe(two.id);
  await expect.poll(async () => (await thread.queue()).head, { timeout: 30_000 }).toBe(two.id);
  await ended(two.id);
  expect(await prompts(thread)).toEqual(["scenario:stall", "two"]);
  await expect(thread.edit(two.id, "late")).rejects.toMatchObject({ code: "conflict" });
}, 60_000);

test("messages that contradict the stored ones are a conflict", async () => {
  const thread = new Thread(client(), "contradicted");
  const ask = (content: string) => thread.send({ messages: [{ role: "user", content, id: "m-1" }] });
  await ended((await ask("one")).id);
  await expect(ask("other")).rejects.toMatchObject({ code: "history_conflict" });
}, 60_000);

test("a command whose answer was lost has taken effect", async () => {
  const tries: string[] = [];
  const run = "run_0000000000000001";
  const url = await serve((request, response) => {
    tries.push(`${request.method} ${request.url}`);
    if (tries.length === 1) return void request.socket.destroy();
    const isRead = request.method === "GET";
    response.writeHead(isRead ? 200 : request.method === "DELETE" ? 404 : 409);
    response.end(isRead ? JSON.stringify({ id: run, state: "running", queue: [] }) : "{}");
  });
  const thread = new Thread(new TokenwireClient({ baseUrl: url }), "t");
  expect((await thread.withdraw(run)).queue).toEqual([]);
  tries.length = 0;
  expect((await thread.sendNow(run)).id).toBe(run);
  tries.splice(0, 2, "not lost");
  await expect(thread.sendNow(run)).rejects.toMatchObject({ status: 409 });
  await expect(thread.withdraw(run)).rejects.toMatchObject({ status: 404 });
}, 30_000);

test("names are checked before they are part of a path", async () => {
  for (const name of ["", "..", "a/b", "x".repeat(129)]) {
    expect(() => new Thread(client(), name)).toThrow("invalid thread id");
  }
  const thread = new Thread(client(), "t");
  const wrong = [() => thread.send({ prompt: "x", parent: "../x" }), () => thread.edit("a b", "x"), () => thread.turns({ before: "?" })];
  for (const call of wrong) await expect((async () => call())()).rejects.toThrow("invalid run id");
});
