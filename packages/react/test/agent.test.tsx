// @vitest-environment happy-dom

/* What an agent tells beside its words, as a component sees it. */

import { Fold, RunStore, type RunEvent } from "@tokenwire/client";
import { act, cleanup, render } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import { blocksOf, MessageParts, RunProgress, tasksOf, useAgent, type AgentView } from "../src/index.js";

afterEach(cleanup);

function folded(...events: RunEvent[]) {
  const fold = new Fold();
  for (const event of events) fold.apply(event);
  return fold.state;
}

const START: RunEvent = { type: "run-start", run: "r" };
const task = (step: number, name: string): RunEvent => ({ type: "step-start", step, kind: "task", name });
const text = (part: number, words: string, agent?: { id: string; name?: string; parent?: string }): RunEvent[] => [
  { type: "text-start", part, step: 9, ...(agent ? { agent } : {}) },
  { type: "text-delta", part, text: words },
  { type: "text-end", part },
];
const SPEAK: RunEvent = { type: "step-start", step: 9, kind: "agent" };

describe("blocks of a run", () => {
  it("are tasks in a row and parts in a row of one speaker", () => {
    const helper = { id: "h", name: "Helper", parent: "r" };
    const run = folded(
      START,
      task(1, "search"),
      task(2, "read"),
      { type: "step-end", step: 1, status: "complete" },
      SPEAK,
      ...text(0, "a"),
      ...text(1, "b", helper),
      ...text(2, "c", helper),
      ...text(3, "d"),
    );
    const shown = blocksOf(run).map((block) =>
      block.kind === "tasks"
        ? block.tasks.map(({ name, status }) => `${name} ${status}`)
        : [block.speaker?.name, ...block.parts.map((part) => part.text)],
    );
    expect(shown).toEqual([
      ["search done", "read running"],
      [undefined, "a"],
      ["Helper", "b", "c"],
      [undefined, "d"],
    ]);
  });

  it("name nobody where one speaks alone, and everybody where several do", () => {
    const one = { id: "1", name: "One" };
    const two = { id: "2", name: "Two" };
    const names = (...events: RunEvent[]) =>
      blocksOf(folded(START, SPEAK, ...events)).map((block) => block.kind === "parts" && block.speaker?.name);
    expect(names(...text(0, "a", one), ...text(1, "b", one))).toEqual([undefined]);
    expect(names(...text(0, "a", one), ...text(1, "b", two))).toEqual(["One", "Two"]);
    expect(names(...text(0, "a", { ...one, parent: "0" }))).toEqual(["One"]);
  });

  it("leave out other choices and what was discarded", () => {
    const run = folded(START, SPEAK, { type: "text-start", part: 0, choice: 1 }, { type: "text-start", part: 1 }, {
      type: "text-end",
      part: 1,
      status: "discarded",
    });
    expect(blocksOf(run)).toEqual([]);
  });
});

it("a task ends as it ended: done, failed, stopped, or left open by the end of the run", () => {
  const events: RunEvent[] = [
    START,
    ...["a", "b", "c", "d", "e"].map((name, at) => task(at + 1, name)),
    { type: "step-end", step: 1, status: "complete" },
    { type: "step-end", step: 2, status: "error" },
    { type: "step-end", step: 3, status: "cancelled" },
    { type: "step-end", step: 4, status: "incomplete" },
  ];
  const status = (...more: RunEvent[]) => tasksOf(folded(...events, ...more)).map((one) => one.status);
  expect(status()).toEqual(["done", "failed", "stopped", "failed", "running"]);
  expect(status({ type: "run-end", outcome: "interrupted" })[4]).toBe("stopped");
});

describe("useAgent", () => {
  it("gives progress, state, tasks and facts, and the same view while only words come", () => {
    const store = new RunStore();
    const views: AgentView<{ stage: string }>[] = [];
    function Shown() {
      const view = useAgent<{ stage: string }>(store);
      views.push(view);
      return <p>{view.state?.stage}</p>;
    }
    const view = render(<Shown />);
    const say = (...events: RunEvent[]) => act(() => {
      store.apply(events);
      store.publish();
    });
    say(START, task(1, "search"), { type: "progress", fraction: 0.5, message: "reading" });
    say({ type: "state", snapshot: { stage: "drafting" } }, { type: "data", name: "sources", payload: ["a"] });
    expect(view.container.textContent).toBe("drafting");
    expect(views.at(-1)).toMatchObject({
      progress: { fraction: 0.5, message: "reading" },
      state: { stage: "drafting" },
      tasks: [{ name: "search", status: "running" }],
      data: [{ name: "sources", payload: ["a"] }],
    });
    const before = views.length;
    say(SPEAK, ...text(0, "words"));
    say({ type: "text-start", part: 1, step: 9 }, { type: "text-delta", part: 1, text: "more" });
    expect(views).toHaveLength(before);
    say({ type: "state", patch: [{ op: "replace", path: "/stage", value: "done" }] });
    expect(view.container.textContent).toBe("done");
    say({ type: "step-end", step: 1, status: "complete" });
    expect(views.at(-1)!.tasks[0]!.status).toBe("done");
  });

  it("takes a turn, and no turn", () => {
    const store = new RunStore();
    let view: AgentView<unknown> | undefined;
    function Shown({ turn }: { turn?: { store: RunStore } }) {
      view = useAgent(turn as never);
      return null;
    }
    const { rerender } = render(<Shown />);
    expect(view).toEqual({ progress: undefined, state: undefined, tasks: [], data: [] });
    store.apply([START, { type: "progress", message: "x" }]);
    store.publish();
    rerender(<Shown turn={{ store }} />);
    expect(view!.progress).toEqual({ message: "x" });
  });
});

it("the components without styling draw tasks, speakers and progress, in your way too", () => {
  const helper = { id: "h", name: "Helper", parent: "r" };
  const run = folded(START, task(1, "search"), SPEAK, ...text(0, "a", helper), { type: "progress", fraction: 0.25 });
  const view = render(<><MessageParts run={run} /><RunProgress run={run} /></>);
  expect(view.getByRole("list", { name: "Tasks" }).textContent).toBe("search: running");
  expect(view.getByRole("group", { name: "Helper" }).textContent).toContain("a");
  expect(view.getByRole("progressbar").getAttribute("value")).toBe("0.25");
  view.rerender(
    <MessageParts
      run={run}
      tasks={(tasks) => <i>{tasks.length} tasks</i>}
      speaker={({ name }, children) => <q title={name}>{children}</q>}
    />,
  );
  expect(view.container.querySelector("i")!.textContent).toBe("1 tasks");
  expect(view.container.querySelector("q")!.textContent).toBe("a");
  view.rerender(<RunProgress run={{ ...run, outcome: "complete" }} />);
  expect(view.queryByRole("progressbar")).toBeNull();
});
