import type { TokenwireClient } from "@tokenwire/client";
import { expect, test } from "vitest";
import { byAge, found, ThreadList, titleOf, type ThreadEntry } from "../src/threads.js";

const entry = (title: string, updated = 0): ThreadEntry => ({ id: title, title, updated });

test("a title is the first line, bounded", () => {
  expect(titleOf("  What  is\tit?\nMore")).toBe("What is it?");
  expect(titleOf("w".repeat(200))).toBe(`${"w".repeat(79)}…`);
  expect(titleOf(" ")).toBe("Conversation");
});

test("titles are found by their words, without case and accents", () => {
  const list = [entry("Café in Lisbon"), entry("Quicksort"), entry("A lisbon plan")];
  expect(found(list, "lisbon")).toEqual([list[0], list[2]]);
  expect(found(list, " LISBON cafe ")).toEqual([list[0]]);
  expect(found(list, "  ")).toBe(list);
  expect(found(list, "zzz")).toEqual([]);
});

test("groups by age keep every entry and their order", () => {
  const now = new Date(2026, 4, 20, 12);
  const list = [1, 13, 40, 24 * 6, 24 * 20, 24 * 400].map((hours) =>
    entry(`${hours} h`, now.getTime() - hours * 3_600_000),
  );
  const groups = byAge(list, now);
  expect(groups.map(({ name }) => name)).toEqual(["Today", "Yesterday", "Last 7 days", "Earlier"]);
  expect(groups.flatMap(({ entries }) => entries)).toEqual(list);
  expect(groups.map(({ entries }) => entries.length)).toEqual([1, 1, 2, 2]);
  expect(byAge([], now)).toEqual([]);
});

/** A server that answers as told, and what it was asked. */
function server(answers: Record<string, unknown>) {
  const asked: string[] = [];
  const json = async (method: string, path: string) => {
    asked.push(`${method} ${path}`);
    const answer = answers[`${method} ${path}`];
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { client: { json } as unknown as TokenwireClient, asked };
}

const LISTED = { threads: [{ thread: "a", title: "A", updated: 2 }, { thread: "b", updated: 1 }] };

test("what the server refuses is taken back and thrown", async () => {
  const { client } = server({
    "GET /v1/threads": LISTED,
    "PUT /v1/threads/a": new Error("no"),
    "DELETE /v1/threads/a": new Error("no"),
  });
  const list = new ThreadList(client);
  await list.refresh();
  const before = list.getSnapshot();
  expect(before.map(({ title }) => title)).toEqual(["A", "Conversation"]);
  const renamed = list.rename("a", "Mine");
  expect(list.getSnapshot()[0]!.title).toBe("Mine");
  await expect(renamed).rejects.toThrow("no");
  expect(list.getSnapshot()).toEqual(before);
  const removed = list.remove("a");
  expect(list.getSnapshot().map(({ id }) => id)).toEqual(["b"]);
  await expect(removed).rejects.toThrow("no");
  expect(list.getSnapshot()).toEqual(before);
  expect(list.removed.size).toBe(0);
});

test("what was erased does not come back with an older answer, what was begun stays", async () => {
  const { client } = server({ "GET /v1/threads": LISTED, "DELETE /v1/threads/a": null });
  const list = new ThreadList(client);
  await list.refresh();
  list.touch("new", "A new question");
  await list.remove("a");
  await list.refresh();
  expect(list.getSnapshot().map(({ id }) => id)).toEqual(["new", "b"]);
});

test("other tabs hear of what this one does", async () => {
  const { client } = server({
    "GET /v1/threads": LISTED,
    "PUT /v1/threads/a": { title: "Mine" },
    "DELETE /v1/threads/b": null,
  });
  const [here, there] = [new ThreadList(client), new ThreadList(client)];
  await Promise.all([here.refresh(), there.refresh()]);
  await here.rename("a", "Mine");
  await here.remove("b");
  await expect.poll(() => there.getSnapshot().map(({ title }) => title)).toEqual(["Mine"]);
  expect(there.removed.has("b")).toBe(true);
});
