import { expect, test } from "vitest";
import { TokenwireError, type TokenwireClient } from "../../src/index.js";
import { Threads, titleOf } from "../../src/state/threads.js";

test("a title is the first line, bounded", () => {
  expect(titleOf("  What  is\tit?\nMore")).toBe("What is it?");
  expect(titleOf("w".repeat(200))).toBe(`${"w".repeat(79)}…`);
  expect(titleOf(" ")).toBe("Conversation");
});

/** A client whose server answers as told. */
function client(answers: Record<string, unknown>): TokenwireClient {
  const json = async (method: string, path: string) => {
    const answer = answers[`${method} ${path}`];
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { baseUrl: "", json } as unknown as TokenwireClient;
}

const LISTED = { threads: [{ thread: "a", title: "A", updated: 2 }, { thread: "b", updated: 1 }] };
const ids = (list: Threads) => list.getSnapshot().threads.map(({ thread }) => thread);

test("what the server refuses is taken back and shown", async () => {
  const list = new Threads(
    client({
      "GET /v1/threads": LISTED,
      "PUT /v1/threads/a": new TokenwireError("bad_request", "no title"),
      "DELETE /v1/threads/a": new TokenwireError("bad_request", "no end"),
    }),
  );
  await list.refresh();
  const { threads } = list.getSnapshot();
  const renamed = list.rename("a", "Mine");
  expect(list.getSnapshot().threads[0]!.title).toBe("Mine");
  await renamed;
  expect(list.getSnapshot()).toMatchObject({ threads, error: { message: "no title" } });
  const removed = list.remove("a");
  expect(ids(list)).toEqual(["b"]);
  expect(list.isRemoved("a")).toBe(true);
  await removed;
  expect(list.getSnapshot()).toMatchObject({ threads, error: { message: "no end" } });
  expect(list.isRemoved("a")).toBe(false);
});

test("what was erased does not come back with an older answer, what was begun stays", async () => {
  const list = new Threads(client({ "GET /v1/threads": LISTED, "DELETE /v1/threads/a": null }));
  await list.refresh();
  list.touch("new", "A new question");
  await list.remove("a");
  await list.refresh();
  expect(ids(list)).toEqual(["new", "b"]);
});

test("an empty title gives back the name that the server knows", async () => {
  const told = { thread: "a", title: "First question", updated: 2 };
  const list = new Threads(client({ "GET /v1/threads": LISTED, "PUT /v1/threads/a": told }));
  await list.refresh();
  await list.rename("a", "");
  expect(list.getSnapshot().threads[0]).toEqual(told);
});

test("other tabs of the same reader hear of what this one does, while they listen", async () => {
  const server = client({
    "GET /v1/threads": { ...LISTED, reader: "ann" },
    "PUT /v1/threads/a": { thread: "a", title: "Mine", updated: 2 },
    "DELETE /v1/threads/b": null,
  });
  const [here, there, gone] = [new Threads(server), new Threads(server), new Threads(server)];
  const other = new Threads(client({ "GET /v1/threads": { ...LISTED, reader: "bob" } }));
  const leave = [here, there, other].map((list) => list.subscribe(() => undefined));
  gone.subscribe(() => undefined)();
  await Promise.all([here, there, gone, other].map((list) => list.refresh()));
  await here.rename("a", "Mine");
  await here.remove("b");
  await expect.poll(() => there.getSnapshot().threads.map(({ title }) => title)).toEqual(["Mine"]);
  expect(there.isRemoved("b")).toBe(true);
  expect(ids(gone)).toEqual(["a", "b"]);
  expect(ids(other)).toEqual(["a", "b"]);
  for (const end of leave) end();
});
