/* A run in the words of another client's stream: what all such streams do alike, event by event.

Always true: a task's step holds no parts and may overlap others; a part is opened before its first delta; a delta of a part that was never started, or
has ended, says nothing; the reason, error and usage are those of the last attempt. */

import type { RunEvent } from "../core/events.generated.js";
import { patched } from "../core/json-patch.js";
import {
  type End,
  type Ending,
  endingOf,
  type Failure,
  failureOf,
  type Of,
  type Part,
  Parts,
  type Start,
  TEXT_KINDS,
  unsaid,
  Usage,
} from "./parts.js";

export interface TranslationOptions {
  /** Whether what a `run-wait` names has its answer; such a wait ends nothing. */
  answered?: (pending: string) => boolean;
}

/** `C`: a chunk of the stream. */
export abstract class Translation<C> {
  /** Whether the end was said. The run itself may go on: it waits for a person. */
  ended = false;
  protected readonly parts = new Parts();
  protected readonly usage = new Usage();
  /** Why the model ended, in the step under way. */
  protected finish: Of<"finish"> | undefined;
  protected error: Of<"error"> | undefined;
  /** Open steps of the kind `task`, by number. */
  protected readonly tasks = new Map<number, Of<"step-start">>();
  /** The state that an agent shares. */
  protected shared: unknown;

  constructor(readonly options: TranslationOptions) {}

  protected get reason(): string {
    return this.finish?.reason ?? "stop";
  }

  /** What says the same as the next event of the run. */
  take(event: RunEvent): C[] {
    switch (event.type) {
      case "state": {
        const before = this.shared;
        this.shared = patched(before, event.snapshot, event.patch);
        return this.state(event, before);
      }
      case "run-start":
        return this.runStart(event);
      case "step-start":
        if (event.kind === "task") {
          this.tasks.set(event.step, event);
          return this.taskStart(event);
        }
        this.parts.clear();
        this.finish = undefined;
        return this.stepStart(event);
      case "step-end": {
        const task = this.tasks.get(event.step);
        if (task && this.tasks.delete(event.step)) return this.taskEnd(event, task);
        this.usage.settle();
        return this.stepEnd(event);
      }
      case "step-reset":
        // A task that is started again; its start follows.
        return this.tasks.delete(event.step) ? [] : this.#reset(event);
      case "run-wait":
        return this.runWait(event);
      case "run-end":
        this.ended = true;
        this.usage.end(event);
        return this.runEnd(event, endingOf(event, this.reason, !!this.error));
      case "finish":
        if (!event.choice) this.finish = event;
        return [];
      case "usage":
        this.usage.count(event);
        return [];
      case "error":
        this.error = event;
        return [];
      case "part-attr":
        return this.#attribute(event);
    }
    if (!("part" in event)) return this.other(event);
    if (event.type.endsWith("-delta")) return this.#delta(event as Of<"text-delta">);
    if (event.type.endsWith("-start")) return this.#start(event as Start);
    return event.type.endsWith("-end") ? this.#end(event as End) : [];
  }

  /** What opens a further stream of the same run. */
  abstract again(): C[];
  /** The end, while the run waits for `pending`. */
  abstract wait(pending: string[]): C[];

  protected abstract runStart(event: Of<"run-start">): C[];
  protected abstract stepStart(event: Of<"step-start">): C[];
  protected abstract stepEnd(event: Of<"step-end">): C[];
  protected abstract taskStart(event: Of<"step-start">): C[];
  protected abstract taskEnd(event: Of<"step-end">, start: Of<"step-start">): C[];
  /** `before`: the shared state before the event; `shared` is the one after it. */
  protected abstract state(event: Of<"state">, before: unknown): C[];
  /** `open`: numbers of the parts that were open. */
  protected abstract stepReset(event: Of<"step-reset">, open: number[]): C[];
  protected abstract runEnd(event: Of<"run-end">, ending: Ending): C[];

  /** Why the run has no answer to show. */
  protected failure(event: Of<"run-end">): Failure {
    return failureOf(event, this.finish, this.error);
  }

  /** What belongs to no part. */
  protected abstract other(event: RunEvent): C[];

  /** A part that has just started; text and calls are opened by it. */
  protected partStart(_event: Start, _part: Part): void {}
  protected abstract openText(number: number, part: Part): C[];
  /** The call has its id and its name. */
  protected abstract openCall(number: number, part: Part): C[];
  protected abstract textDelta(number: number, part: Part, delta: string): C;
  protected abstract callDelta(part: Part, delta: string): C;
  protected abstract endText(event: End, part: Part): C[];
  protected abstract endCall(event: Of<"tool-call-end">, part: Part): C[];
  /** The end of any other part. */
  protected abstract endOther(event: End, part: Part): C[];
  /** What a `part-attr` is remembered as, and says where it is not of a call. */
  protected abstract attribute(event: Of<"part-attr">, part: Part): C[];

  protected runWait(event: Of<"run-wait">): C[] {
    const left = event.pending.filter((name) => !this.options.answered?.(name));
    return left.length ? this.wait(left) : [];
  }

  /** Opens the part, once. */
  protected openPart(number: number, part: Part): C[] {
    if (part.opened) return [];
    if (TEXT_KINDS.includes(part.kind)) {
      part.opened = true;
      return this.openText(number, part);
    }
    if (part.kind !== "tool-call" || !part.callId || !part.name) return [];
    part.opened = true;
    return [...this.openCall(number, part), ...this.#arguments(part)];
  }

  #arguments(part: Part): C[] {
    const delta = unsaid(part);
    return delta ? [this.callDelta(part, delta)] : [];
  }

  #start(event: Start): C[] {
    const part = this.parts.start(event);
    this.partStart(event, part);
    // Reasoning may be empty; it is opened by its first text.
    return part.kind === "reasoning" ? [] : this.openPart(event.part, part);
  }

  #delta(event: Of<"text-delta">): C[] {
    const part = this.parts.growing(event.part);
    if (!part || !event.text) return [];
    part.text += event.text;
    if (TEXT_KINDS.includes(part.kind)) {
      const delta = this.textDelta(event.part, part, event.text);
      return [...this.openPart(event.part, part), delta];
    }
    return part.kind === "tool-call" && part.opened ? this.#arguments(part) : [];
  }

  #end(event: End): C[] {
    const part = this.parts.end(event.part);
    if (!part) return [];
    if (TEXT_KINDS.includes(part.kind)) return this.endText(event, part);
    if (event.text !== undefined) part.text = event.text;
    if (event.type !== "tool-call-end") return this.endOther(event, part);
    part.callId ||= `call-${event.part}`;
    part.name ||= "unknown";
    return this.endCall(event, part);
  }

  #attribute(event: Of<"part-attr">): C[] {
    const part = this.parts.growing(event.part);
    if (!part) return [];
    if (event.name === "call_id") part.callId ||= String(event.value);
    else if (event.name === "tool_name") part.name = String(event.value);
    const chunks = this.attribute(event, part);
    return part.kind === "tool-call" ? this.openPart(event.part, part) : chunks;
  }

  #reset(event: Of<"step-reset">): C[] {
    this.usage.settle();
    this.error = this.finish = undefined;
    const open = [...this.parts.open];
    this.parts.open.clear();
    return this.stepReset(event, open);
  }
}
