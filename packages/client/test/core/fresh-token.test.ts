/* A token that the server refuses is replaced once, and no word is lost or repeated. */

import { expect, it, vi } from "vitest";
import { TokenwireClient } from "../../src/core/client.js";

const RUN = "r".repeat(22);
const line = (seq: number, fields: object) =>
  `id: ${seq}-${"0".repeat(16)}\ndata: ${JSON.stringify({ seq, ...fields })}\n\n`;
const EVENTS = [
  { type: "run-start", run: RUN },
  { type: "data", name: "one" },
  { type: "data", name: "two" },
  { type: "run-end", outcome: "complete" },
].map((event, index) => line(index + 1, event));

function refusal(): Response {
  return Response.json({ error: { code: "not_authenticated", message: "expired" } }, { status: 401 });
}

function stream(events: string[]): Response {
  return new Response(events.join(""), { headers: { "content-type": "text/event-stream" } });
}

it("asks once for another token, in the middle of a run", async () => {
  let good = "first";
  const seen: (string | null)[] = [];
  const fake = vi.fn(async (_: unknown, init?: RequestInit) => {
    const headers = new Headers(init?.headers);
    seen.push(headers.get("authorization"));
    if (headers.get("authorization") !== `Bearer ${good}`) return refusal();
    const after = Number.parseInt(headers.get("last-event-id") ?? "0", 10);
    if (after === 0) good = "second"; // the first ends after two events
    return stream(after === 0 ? EVENTS.slice(0, 2) : EVENTS.slice(after));
  });
  let current = "first";
  const token = vi.fn((refused?: string) => {
    if (refused === current) current = "second";
    return current;
  });
  const client = new TokenwireClient({ baseUrl: "http://t.test", token, fetch: fake, shareTabs: false });
  const types: string[] = [];
  await client.follow(RUN, {
    onEvents: (batch) => types.push(...batch.map(({ event }) => event.type)),
  });
  expect(types).toEqual(["run-start", "data", "data", "run-end"]);
  expect(seen).toEqual(["Bearer first", "Bearer first", "Bearer second"]);
});

it.each([() => "same", () => "", (refused?: string) => (refused ? `${refused}-more` : "one")])(
  "gives up when the other one is refused too, or there is none",
  async (token) => {
    const fake = vi.fn(async () => refusal());
    const client = new TokenwireClient({ baseUrl: "http://t.test", token, fetch: fake });
    await expect(client.start({ prompt: "x" })).rejects.toMatchObject({ status: 401 });
    expect(fake.mock.calls.length).toBe(token("one") === "one-more" ? 2 : 1);
  },
);
