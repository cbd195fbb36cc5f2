import { expect, it } from "vitest";
import type { FollowOptions } from "../../src/core/reader.js";
import { textOf } from "../../src/core/fold.js";
import type { RunEvent } from "../../src/core/events.generated.js";
import { RunStore } from "../../src/state/store.js";

const EVENTS = [
  { type: "run-start", run: "r".repeat(16) },
  { type: "step-start", step: 1 },
  { type: "text-start", part: 1 },
  { type: "text-delta", part: 1, text: "one " },
  { type: "text-delta", part: 1, text: "two " },
  { type: "text-delta", part: 1, text: "three" },
] as RunEvent[];

/** A client whose readers say what the test tells them to, also after they were ended. */
class Client {
  readers: (FollowOptions & { end(error?: Error): void })[] = [];

  follow(_: string, options: FollowOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      this.readers.push({ ...options, end: (error) => (error ? reject(error) : resolve()) });
    });
  }
}

function batch(from: number, to: number) {
  return EVENTS.slice(from, to).map((event, at) => ({ cursor: `${from + at + 1}.x`, event, json: JSON.stringify(event) }));
}

async function settled(): Promise<void> {
  await new Promise((done) => setTimeout(done, 5));
}

it("has one reader: a second one goes on where the first one was, and the first one is ended", async () => {
  const [client, store] = [new Client(), new RunStore()];
  const seen: string[] = [];
  store.onBatch = (events) => seen.push(...events.map(({ cursor }) => cursor));
  void store.follow(client, "run");
  const first = client.readers[0]!;
  first.onEvents(batch(0, 4));
  void store.follow(client, "run");
  const second = client.readers[1]!;
  expect(first.signal?.aborted).toBe(true);
  expect(second.after).toBe("4.x");
  // What was on its way to the first one comes all the same, and to both.
  first.onEvents(batch(4, 6));
  second.onEvents(batch(4, 6));
  first.onReset?.("bad_cursor");
  first.onLink?.("reconnecting");
  second.onLink?.("live");
  first.end(new Error("ended"));
  await settled();
  store.publish();
  expect(textOf(store.getSnapshot().state)).toBe("one two three");
  expect(seen).toEqual(["1.x", "2.x", "3.x", "4.x", "5.x", "6.x"]);
  expect(store.getSnapshot()).toMatchObject({ link: "live", reconnects: 0 });
  second.end();
  await settled();
  expect(store.getSnapshot().link).toBe("ended");
});

it("says at once whether it is read, and a frame later to those who listen", async () => {
  const [client, store] = [new Client(), new RunStore()];
  const life = new AbortController();
  void store.follow(client, "run", life.signal);
  client.readers[0]!.onLink?.("connecting");
  expect(store.link).toBe("connecting");
  expect(store.getSnapshot().link).toBe("idle");
  life.abort();
  expect(client.readers[0]!.signal?.aborted).toBe(true);
  client.readers[0]!.end();
  await settled();
  expect([store.link, store.getSnapshot().link]).toEqual(["idle", "idle"]);
});

it("ends at once for who has left already", async () => {
  const [client, store] = [new Client(), new RunStore()];
  void store.follow(client, "run", AbortSignal.abort());
  expect(client.readers[0]!.signal?.aborted).toBe(true);
});
