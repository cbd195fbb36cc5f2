import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { ORDER, type RunEvent } from "../../src/core/events.js";
import { historyOf } from "../../src/state/history.js";
import {
  Fold,
  finishReasonOf,
  RunStore,
  stateOf,
  textOf,
  usageOf,
  type RunState,
} from "../../src/index.js";

interface Case {
  id: string;
  title: string;
  events: RunEvent[];
  expected: Record<string, unknown>;
}

const file = join(import.meta.dirname, "../../../../conformance/fold/cases.json");
const { cases } = JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] };

function reading(state: RunState) {
  return {
    state: stateOf(state),
    text: textOf(state),
    finish_reason: finishReasonOf(state) ?? null,
    usage: usageOf(state),
    waiting: state.waiting,
    history: historyOf(state),
    error: state.error ?? null,
    shared: state.shared ?? null,
    progress: state.progress ?? null,
    budget: state.budget ?? null,
  };
}

describe("fold", () => {
  for (const { id, title, events, expected } of cases) {
    it(`${id}: ${title}`, () => {
      const fold = new Fold();
      for (const event of events) fold.apply(event);
      expect(JSON.parse(JSON.stringify(reading(fold.state)))).toEqual(expected);
    });

    it(`${id}: looked at after every event, what was given out stays as it was`, () => {
      const fold = new Fold();
      const seen: [RunState, string][] = [];
      const written = (state: RunState) => JSON.stringify([reading(state), [...state.tools]]);
      for (const event of events) {
        fold.apply(event);
        seen.push([fold.state, written(fold.state)]);
      }
      expect(JSON.parse(JSON.stringify(reading(fold.state)))).toEqual(expected);
      for (const [state, before] of seen) expect(written(state)).toBe(before);
    });
  }

  it("shares what an event did not touch", () => {
    const { events } = cases.find(({ id }) => id === "interleaved")!;
    const fold = new Fold();
    for (const event of events.slice(0, 6)) fold.apply(event);
    const before = fold.state;
    fold.apply(events[6]!); // a piece for the first part
    const after = fold.state;
    expect(after).not.toBe(before);
    expect(after.steps[0]!.parts[0]).not.toBe(before.steps[0]!.parts[0]);
    expect(after.steps[0]!.parts[1]).toBe(before.steps[0]!.parts[1]);
    expect(after.tools).toBe(before.tools);
  });

  it("keeps facts in order, and replaces those of the same name and id", () => {
    const fold = new Fold();
    const say = (event: object) => fold.apply({ type: "data", ...event } as RunEvent);
    say({ name: "sources", payload: 1 });
    say({ name: "sources", payload: 2 });
    say({ name: "weather", id: "a", payload: 3 });
    const before = fold.state;
    say({ name: "weather", id: "b", payload: 4 });
    say({ name: "weather", id: "a", payload: 5 });
    say({ name: "other", id: "a" });
    say({ name: "toast", payload: 6, transient: true });
    expect(fold.state.data).toEqual([
      { name: "sources", payload: 1 },
      { name: "sources", payload: 2 },
      { name: "weather", id: "a", payload: 5 },
      { name: "weather", id: "b", payload: 4 },
      { name: "other", id: "a", payload: null },
    ]);
    expect(before.data).toHaveLength(3);
    expect(before.data[2]).toEqual({ name: "weather", id: "a", payload: 3 });
  });

  it("says whose work a step is", () => {
    const fold = new Fold();
    const agent = { id: "a1", name: "Router" };
    fold.apply({ type: "step-start", step: 1, kind: "agent", name: "main", agent });
    expect(fold.state.steps[0]).toMatchObject({ kind: "agent", name: "main", agent });
  });

  it("pollutes no prototype", () => {
    for (const { events } of cases) {
      const fold = new Fold();
      for (const event of events) fold.apply(event);
    }
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });

  it("has the order table of the model", () => {
    for (const { id, events } of cases) {
      let state = "new";
      for (const event of events) {
        const next = ORDER[state]![event.type] ?? (String(event.type) === "hologram-start" ? state : undefined);
        expect([id, event.type, next]).not.toEqual([id, event.type, undefined]);
        state = next!;
      }
    }
  });
});

describe("RunStore", () => {
  it("tells once for many events, and keeps its snapshot until then", async () => {
    const store = new RunStore();
    let told = 0;
    const first = store.getSnapshot();
    const stop = store.subscribe(() => told++);
    const { events } = cases.find(({ id }) => id === "tool-loop")!;
    for (const event of events) store.apply([event]);
    expect(store.getSnapshot()).toBe(first);
    await new Promise((done) => setTimeout(done, 20));
    expect(told).toBe(1);
    expect(textOf(store.getSnapshot().state)).toBe("13 degrees");
    stop();
    store.apply([{ type: "data", name: "x" }]);
    store.publish();
    expect(told).toBe(1);
  });

  it("tells once in an animation frame; a hidden page by a timer", () => {
    vi.useFakeTimers();
    const frames: (() => void)[] = [];
    vi.stubGlobal("requestAnimationFrame", (frame: () => void) => frames.push(frame));
    const page = { hidden: false };
    vi.stubGlobal("document", page);
    const store = new RunStore();
    let told = 0;
    store.subscribe(() => told++);
    for (let frame = 1; frame <= 3; frame++) {
      for (let n = 0; n < 100; n++) store.apply([{ type: "data", name: `${n}`, payload: frame }]);
      expect([told, frames.length]).toEqual([frame - 1, 1]);
      frames.pop()!();
      expect(told).toBe(frame);
      vi.advanceTimersByTime(1000);
      expect(told).toBe(frame);
    }
    // The page is hidden before its frame comes: no frame will come.
    store.apply([{ type: "data", name: "x" }]);
    vi.advanceTimersByTime(250);
    expect(told).toBe(4);
    frames.pop()!(); // it comes after all, and has nothing to tell
    expect(told).toBe(4);
    page.hidden = true;
    store.apply([{ type: "data", name: "y" }]);
    expect(frames).toEqual([]);
    vi.advanceTimersByTime(250);
    expect(told).toBe(5);
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });

  it.each([
    ["model", "restart", true],
    ["model", "retry", true],
    ["model", "fallback", true],
    ["model", "refused", false],
    ["agent", "restart", false],
    ["task", "restart", false],
  ] as const)("a lost step of kind %s (%s): nobody counted it: %s", (kind, reason, isUnknown) => {
    const fold = new Fold();
    fold.apply({ type: "step-start", step: 1, kind } as RunEvent);
    fold.apply({ type: "step-reset", step: 1, attempt: 2, reason } as RunEvent);
    expect(fold.state.usage_unknown).toBe(isUnknown);
  });
});
