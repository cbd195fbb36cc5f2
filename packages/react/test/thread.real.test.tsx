/* A conversation as React state, from a real server. */

import { TokenwireClient, textOf } from "@tokenwire/client";
import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import { StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Real, startServer } from "../../client/test/real.js";
import { useThread } from "../src/index.js";

let server: Real;
beforeAll(async () => void (server = await startServer()), 60_000);
afterAll(() => server.stop());
afterEach(cleanup);
const LONG = { timeout: 45_000 };

it("shows turns, what waits and what runs say; in strict mode, for another id, until it goes", async () => {
  const streams = new Set<AbortSignal>();
  const counted: typeof fetch = async (input, init) => {
    const isStream = new Headers(init?.headers).get("accept") === "text/event-stream";
    const response = await fetch(input, init);
    if (isStream && init?.signal) streams.add(init.signal);
    return response;
  };
  // Without its sharing a stream comes first: there are no locks here.
  const client = new TokenwireClient({ baseUrl: server.url, fetch: counted, shareTabs: false });
  const open = () => [...streams].filter((signal) => !signal.aborted).length;
  const seen: string[] = [];
  const { result, rerender, unmount } = renderHook(
    ({ id }) => useThread(client, id, { runs: true, onEvent: ({ type }) => seen.push(type) }),
    { wrapper: StrictMode, initialProps: { id: "shown" } },
  );
  await waitFor(() => expect(result.current).toMatchObject({ status: "live", isKnown: true, queue: [] }), LONG);
  expect(open()).toBe(1);
  await act(() => result.current.send({ prompt: "scenario:stall" }));
  const waits = await act(() => result.current.send({ prompt: "and then", while_busy: "queue" }));
  await waitFor(() => expect(result.current.queue).toMatchObject([{ turn: waits.id, text: "and then" }]), LONG);
  await act(() => result.current.edit(waits.id, "and now"));
  await waitFor(() => expect(result.current.queue).toMatchObject([{ text: "and now", edits: 1 }]), LONG);
  const [first] = result.current.running;
  await waitFor(() => expect(textOf(result.current.runs.get(first!.run)!)).not.toBe(""), LONG);
  await act(() => result.current.sendNow(waits.id));
  await waitFor(() => expect(result.current.turns.map(({ state }) => state)).toEqual(["cancelled", "complete"]), LONG);
  expect(result.current).toMatchObject({ head: waits.id, running: [], queue: [] });
  await act(() => result.current.rename("A trip"));
  await waitFor(() => expect(result.current.title).toBe("A trip"), LONG);
  expect(new Set(seen)).toContain("run-ended");
  expect(seen.filter((type) => type === "run-started")).toHaveLength(2); // also in strict mode

  rerender({ id: "another" });
  expect(result.current).toMatchObject({ isKnown: false, title: null, turns: [] });
  await waitFor(() => expect(result.current).toMatchObject({ isKnown: true, turns: [] }), LONG);
  await waitFor(() => expect(open()).toBe(1), LONG);
  unmount();
  await waitFor(() => expect(open()).toBe(0), LONG);
}, 120_000);

it("says what keeps it from reading, and reads on when that is over", async () => {
  let isUp = false;
  let isAllowed = true;
  const flaky: typeof fetch = async (input, init) => {
    if (!isAllowed) return Response.json({ error: { code: "forbidden", message: "no" } }, { status: 403 });
    if (!isUp) throw new TypeError("no server");
    return fetch(input, init);
  };
  const client = new TokenwireClient({ baseUrl: server.url, fetch: flaky, shareTabs: false });
  const { result, rerender } = renderHook(({ id }) => useThread(client, id), { initialProps: { id: "later" as string | undefined } });
  await waitFor(() => expect(result.current).toMatchObject({ status: "reconnecting", error: { code: "network" } }), LONG);
  isUp = true;
  act(() => void window.dispatchEvent(new Event("online")));
  await waitFor(() => expect(result.current).toMatchObject({ status: "live", isKnown: true }), LONG);
  expect(result.current.error).toBeUndefined();
  isAllowed = false;
  rerender({ id: "forbidden" });
  await waitFor(() => expect(result.current).toMatchObject({ status: "failed", error: { code: "forbidden", status: 403 } }), LONG);
  isAllowed = true;
  act(() => result.current.retry());
  await waitFor(() => expect(result.current.status).toBe("live"), LONG);
  rerender({ id: "../x" });
  expect(result.current).toMatchObject({ status: "failed", error: { code: "bad_request" } });
  await expect(result.current.send("x")).rejects.toMatchObject({ code: "bad_request" });
  rerender({ id: undefined });
  expect(result.current.status).toBe("idle");
}, 120_000);

it("is drawn on a server, where nothing is read", () => {
  const client = new TokenwireClient({ baseUrl: "http://127.0.0.1:1" });
  const Shown = () => <p>{useThread(client, "t").status}</p>;
  expect(renderToString(<Shown />)).toBe("<p>idle</p>");
});
