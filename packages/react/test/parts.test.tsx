// @vitest-environment happy-dom

/* The components without styling: what each of them shows, and how often. */

import { Fold, RunStore, type RunEvent } from "@tokenwire/client";
import type { Turn } from "@tokenwire/client/conversation";
import { act, cleanup, fireEvent, render } from "@testing-library/react";
import { Profiler, StrictMode } from "react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Message, MessageParts, RunError, toolStatus, type PartProps } from "../src/index.js";

afterEach(cleanup);

function drawn(...events: RunEvent[]) {
  const fold = new Fold();
  const onApprove = vi.fn();
  const view = render(<MessageParts run={fold.state} onApprove={onApprove} />);
  const say = (...more: RunEvent[]) => {
    for (const event of more) fold.apply(event);
    view.rerender(<MessageParts run={fold.state} onApprove={onApprove} />);
  };
  say({ type: "run-start", run: "r" }, { type: "step-start", step: 1 }, ...events);
  const find = (what: string) => view.container.querySelector(what);
  return { fold, view, say, find, onApprove, text: () => view.container.textContent };
}

const CALL: RunEvent = { type: "tool-call-start", part: 0, step: 1, name: "look", call_id: "c1" };

describe("parts", () => {
  it("text and refusals as they grow, reasoning folded, files by name, nothing of what is opaque", () => {
    const { say, find, text } = drawn(
      { type: "reasoning-start", part: 0 },
      { type: "reasoning-delta", part: 0, text: "Hm." },
    );
    expect(find("details[data-part=reasoning] summary")!.textContent).toBe("Thinking");
    say({ type: "reasoning-end", part: 0 }, { type: "text-start", part: 1 });
    expect(find("summary")!.textContent).toBe("Reasoning");
    say({ type: "text-delta", part: 1, text: "One" });
    expect(find("[data-part=text]")!.textContent).toBe("One");
    say({ type: "text-delta", part: 1, text: ", two" });
    expect(find("[data-part=text]")!.textContent).toBe("One, two");
    say(
      { type: "refusal-start", part: 2 },
      { type: "refusal-delta", part: 2, text: "No." },
      { type: "file-start", part: 3, name: "<b>a.png</b>" },
      { type: "opaque-start", part: 4, name: "secret", payload: "secret" },
      { type: "text-start", part: 5, choice: 1 },
      { type: "text-delta", part: 5, text: "another choice" },
    );
    expect(text()).toBe("ReasoningHm.One, twoNo.<b>a.png</b>");
    expect(find("b")).toBeNull();
  });

  it("a tool call: its arguments while they are written, its progress, its result", () => {
    const { say, find } = drawn(CALL);
    const status = () => find("[data-part=tool-call]")!.getAttribute("data-status");
    expect([find("strong")!.textContent, status()]).toEqual(["look", "writing"]);
    say({ type: "tool-call-delta", part: 0, text: '{"at":' });
    expect(find("pre")!.textContent).toBe('{"at":');
    say({ type: "tool-call-delta", part: 0, text: '"sky"}' }, { type: "tool-call-end", part: 0, arguments: { at: "sky" } });
    expect([find("pre")!.textContent, status()]).toEqual(['{"at":"sky"}', "running"]);
    say({ type: "tool-start", call_id: "c1", name: "look" });
    const bar = () => find("progress")! as HTMLProgressElement;
    expect([bar().hasAttribute("value"), bar().getAttribute("aria-label")]).toEqual([false, "look is running"]);
    say({ type: "tool-progress", call_id: "c1", fraction: 0.5, message: "half" });
    expect([bar().getAttribute("value"), bar().getAttribute("aria-label")]).toEqual(["0.5", "half"]);
    say({ type: "tool-result", call_id: "c1", content: { sky: "clear" } });
    expect(find("progress")).toBeNull();
    expect([find("pre:last-child")!.textContent, status()]).toEqual(['{\n  "sky": "clear"\n}', "done"]);
  });

  it("a call that failed, and one that was cut", () => {
    const { say, find } = drawn(CALL, { type: "tool-call-end", part: 0, status: "truncated" });
    expect(find("[data-status=truncated]")).not.toBeNull();
    say({ type: "tool-error", call_id: "c1", code: "invalid_arguments", message: "not whole" });
    expect(find("[data-status=failed] [data-error=invalid_arguments]")!.textContent).toBe("not whole");
    expect(toolStatus({ status: "open" } as never, undefined)).toBe("writing");
  });

  it("an approval, once", () => {
    const { say, view, find, onApprove } = drawn(
      CALL,
      { type: "tool-call-end", part: 0, arguments: { at: "sky" } },
      { type: "approval-request", approval_id: "ap", call_id: "c1", name: "look", arguments: { at: "sky" } },
    );
    expect(find("[data-status=waiting] [role=group]")!.getAttribute("aria-label")).toBe("Approve look?");
    fireEvent.click(view.getByText("Allow"));
    fireEvent.click(view.getByText("Deny"));
    expect(onApprove.mock.calls).toEqual([["ap", { approved: true }], ["ap", { approved: false }]]);
    say({ type: "approval-answer", approval_id: "ap", call_id: "c1", approved: true });
    expect(find("[role=group]")).toBeNull();
  });

  it("an error, when there is one", () => {
    const { fold, say } = drawn();
    expect(render(<RunError run={fold.state} />).container.innerHTML).toBe("");
    say({ type: "error", scope: "provider", code: "overloaded", message: "<i>busy</i>" });
    const { getByRole } = render(<RunError run={fold.state} />);
    expect(getByRole("alert").textContent).toBe("<i>busy</i>");
  });

  it("in your own way, kind by kind", () => {
    const fold = new Fold();
    const events: RunEvent[] = [{ type: "step-start", step: 1 }, CALL, { type: "tool-start", call_id: "c1", name: "look" }];
    for (const event of events) fold.apply(event);
    const mine = ({ part, tool }: PartProps) => <i>{`${String(part.attrs.name)} ${tool?.started}`}</i>;
    const view = render(<MessageParts run={fold.state} render={{ "tool-call": mine }} />);
    expect(view.container.innerHTML).toBe("<i>look true</i>");
  });
});

describe("drawing", () => {
  it("goes once a frame however many events come, and leaves finished parts alone, in strict mode too", async () => {
    const frames: FrameRequestCallback[] = [];
    vi.stubGlobal("requestAnimationFrame", (frame: FrameRequestCallback) => frames.push(frame));
    const store = new RunStore();
    const turn = { id: "t", prompt: "?", store } as Turn;
    const message = { id: "t", role: "assistant", store, turn } as const;
    const texts: number[] = [];
    const text = ({ part }: PartProps) => {
      texts.push(part.part);
      return <p>{part.text}</p>;
    };
    let commits = 0;
    const shown = (
      <StrictMode>
        <Profiler id="answer" onRender={() => commits++}>
          <Message message={message} render={{ text }} />
        </Profiler>
      </StrictMode>
    );
    const view = render(shown);
    const frame = () => act(async () => frames.splice(0).forEach((one) => one(0)));
    store.apply([
      { type: "run-start", run: "r" },
      { type: "step-start", step: 1 },
      { type: "text-start", part: 0 },
      { type: "text-delta", part: 0, text: "finished" },
      { type: "text-end", part: 0 },
      { type: "text-start", part: 1 },
    ]);
    await frame();
    expect(view.container.textContent).toBe("finished");
    commits = 0;
    texts.length = 0;
    for (let n = 0; n < 20; n++) {
      for (let word = 0; word < 50; word++) store.apply([{ type: "text-delta", part: 1, text: "x" }]);
      expect(frames).toHaveLength(1);
      await frame();
    }
    expect(commits).toBe(20);
    expect(new Set(texts)).toEqual(new Set([1]));
    expect(view.container.textContent).toBe(`finished${"x".repeat(1000)}`);
    vi.unstubAllGlobals();
  });
});
