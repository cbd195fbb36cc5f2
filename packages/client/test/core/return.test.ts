// @vitest-environment happy-dom

/* When reading comes back: after a random delay, at once when the person or the network is back, and
never before the server said. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { retryAfter } from "../../src/core/errors.js";
import { type Connect, follow, TokenwireError } from "../../src/index.js";
import { backoff, pause } from "../../src/core/wait.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const WAYS_BACK: [string, () => void][] = [
  ["online", () => void window.dispatchEvent(new Event("online"))],
  ["pageshow", () => void window.dispatchEvent(new Event("pageshow"))],
  ["visibilitychange", () => void document.dispatchEvent(new Event("visibilitychange"))],
];
const RUN_END = '{"type":"run-end","outcome":"complete"}';
const settled = () => vi.advanceTimersByTimeAsync(0);

/** A way that fails with `error` on its first connection, and then brings the end. */
function failing(error: unknown) {
  let calls = 0;
  const way: Connect = async ({ take, flush, alive }) => {
    if (++calls === 1) throw error;
    alive();
    take("1-ab", RUN_END);
    flush();
  };
  return { way, calls: () => calls };
}

describe("the delay", () => {
  it("has full jitter under a cap that doubles", () => {
    for (let n = 0; n < 20; n++) {
      const cap = Math.min(15000, 500 * 2 ** n);
      expect(backoff(n, 500, 15000, () => 0)).toBe(0);
      expect(backoff(n, 500, 15000, () => 0.5)).toBe(cap / 2);
      expect(backoff(n)).toBeLessThan(cap);
    }
  });

  it.each(WAYS_BACK)("ends at once on %s", async (_, fire) => {
    vi.spyOn(Math, "random").mockReturnValue(0.999);
    const { way, calls } = failing(new TypeError("failed to fetch"));
    const reading = follow([way], { onEvents: () => undefined });
    await settled();
    expect(calls()).toBe(1);
    fire();
    await reading;
    expect(calls()).toBe(2);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("does not end while the page stays hidden", async () => {
    vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
    let over = false;
    void pause(1000).then(() => (over = true));
    document.dispatchEvent(new Event("visibilitychange"));
    await settled();
    expect(over).toBe(false);
    await vi.advanceTimersByTimeAsync(1000);
    expect(over).toBe(true);
  });

  it("is never shorter than Retry-After says", async () => {
    const { way, calls } = failing(new TokenwireError("busy", "later", 503, true, 30_000));
    const reading = follow([way], { onEvents: () => undefined });
    for (const [, fire] of WAYS_BACK) fire();
    await vi.advanceTimersByTimeAsync(29_999);
    for (const [, fire] of WAYS_BACK) fire();
    await settled();
    expect(calls()).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    await reading;
    expect(calls()).toBe(2);
  });

  it("ends on abort, and leaves nothing behind", async () => {
    const added = vi.spyOn(window, "addEventListener");
    const removed = vi.spyOn(window, "removeEventListener");
    const life = new AbortController();
    const { way } = failing(new TypeError("failed to fetch"));
    vi.spyOn(Math, "random").mockReturnValue(0.999);
    const reading = follow([way], { onEvents: () => undefined, signal: life.signal });
    await settled();
    life.abort();
    await reading;
    expect(vi.getTimerCount()).toBe(0);
    expect(added.mock.calls.length).toBeGreaterThan(0);
    expect(removed.mock.calls.length).toBe(added.mock.calls.length);
  });
});

describe("a connection that was quiet while the person was away", () => {
  it.each(WAYS_BACK)("is opened anew on %s", async (_, fire) => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    let calls = 0;
    const way: Connect = async ({ alive, take, flush, signal }) => {
      alive();
      if (++calls === 2) {
        take("1-ab", RUN_END);
        flush();
      } else await new Promise((_, no) => signal.addEventListener("abort", () => no(signal.reason)));
    };
    const reading = follow([way], { onEvents: () => undefined });
    await settled();
    fire();
    await settled();
    expect(calls).toBe(1); // it spoke a moment ago
    await vi.advanceTimersByTimeAsync(10_000);
    fire();
    await vi.advanceTimersByTimeAsync(1);
    await reading;
    expect(calls).toBe(2);
  });
});

it("Retry-After is read as seconds or as a date", () => {
  vi.setSystemTime(new Date("2026-11-25T10:00:00Z"));
  const told = (value?: string) =>
    retryAfter(new Response(null, value === undefined ? {} : { headers: { "retry-after": value } }));
  expect(told("7")).toBe(7000);
  expect(told("0")).toBe(0);
  expect(told("Wed, 25 Nov 2026 10:00:05 GMT")).toBe(5000);
  expect(told("Wed, 25 Nov 2026 09:00:00 GMT")).toBeUndefined();
  for (const odd of [undefined, "", "soon", "-3"]) expect(told(odd)).toBeUndefined();
});
