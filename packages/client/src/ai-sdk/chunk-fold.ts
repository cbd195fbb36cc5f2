/* Events to the chunks that say the same to the AI SDK's `useChat`; the words of `conformance/wire`.

Always true: `finish`, `error` or `abort` comes once, last; a delta's part is open; a result is
told only for a call that was told. */

import type { RunEvent } from "../core/events.generated.js";
import { atEnd, budgetOf, clean, cutReason, type End, type Ending, type Of, type Part, type Start, TEXT_KINDS } from "../translate/parts.js";
import { Translation, type TranslationOptions } from "../translate/translation.js";

/** Which major version of `ai` reads: `5` takes no approvals, `6` no `reset-step`; `common` is what
 * all three take. */
export type Compat = "5" | "common" | "6" | "7";

export interface UIChunk {
  type: string;
  [field: string]: unknown;
}

export interface UIMessageOptions extends TranslationOptions {
  compat?: Compat;
  /** Of the assistant message that is continued; the run's id unless told. */
  messageId?: string;
}

const FINISH: Record<string, string> = {
  stop: "stop",
  length: "length",
  context_overflow: "length",
  content_filter: "content-filter",
  refusal: "content-filter",
  tool_calls: "tool-calls",
  error: "error",
  malformed_tool_call: "error",
};
const LETTER: Record<string, string> = { text: "t", refusal: "f", reasoning: "r" };
const NOT_COMPLETE: Record<string, string> = {
  truncated: "The call was cut off before its end.",
  invalid: "The call's arguments are not valid.",
  discarded: "The call was discarded.",
};

export class UIMessageFold extends Translation<UIChunk> {
  #calls = new Set<string>();
  #stepCalls = new Set<string>();
  #answered = new Set<string>();
  #stepTold = false;
  #stepOpen = false;
  #hidden = new Set<number>();
  #compat: Compat;

  constructor(override readonly options: UIMessageOptions = {}) {
    super(options);
    this.#compat = options.compat ?? "7";
  }

  /** Nothing: the client goes on with the message that it has. */
  again(): UIChunk[] {
    return [];
  }

  /** The end, while the run waits. */
  wait(): UIChunk[] {
    this.ended = true;
    return [this.#finish("tool_calls", "waiting")];
  }

  protected runStart({ run, thread, model }: Of<"run-start">): UIChunk[] {
    const tokenwire = clean({ run, thread, model });
    const messageId = this.options.messageId ?? run;
    return [{ type: "start", messageId, messageMetadata: { tokenwire } }];
  }

  protected stepStart(): UIChunk[] {
    // Of an attempt before this one the client may have the start, and nothing else.
    const isTold = this.#stepOpen && !this.#stepTold;
    this.#stepCalls.clear();
    [this.#stepTold, this.#stepOpen] = [false, true];
    return isTold ? [] : [{ type: "start-step" }];
  }

  protected stepEnd(): UIChunk[] {
    this.#stepOpen = false;
    return [{ type: "finish-step" }];
  }

  /** A task of an agent: one data part, replaced when the task ends. */
  protected taskStart({ step, name }: Of<"step-start">): UIChunk[] {
    const data = clean({ name, step, status: "running" });
    return [{ type: "data-step", id: `step-${step}`, data }];
  }

  protected taskEnd({ step, status, size }: Of<"step-end">, { name }: Of<"step-start">): UIChunk[] {
    const data = { ...clean({ name, step, status }), ...(size === undefined ? {} : { size }) };
    return [{ type: "data-step", id: `step-${step}`, data }];
  }

  /** Data parts are replaced, not patched, so each holds the whole. */
  protected state(): UIChunk[] {
    return [{ type: "data-state", id: "state", data: this.shared ?? null }];
  }

  /** This wire has one speaker: what a subagent says is left out, its calls are not. */
  override take(event: RunEvent): UIChunk[] {
    if (!("part" in event)) return super.take(event);
    if (event.type.endsWith("-start")) {
      const { agent } = event as { agent?: { parent?: string } };
      const isCall = event.type === "tool-call-start" || event.type === "provider-result-start";
      if (!isCall && agent?.parent !== undefined) this.#hidden.add(event.part);
      else this.#hidden.delete(event.part);
    }
    return this.#hidden.has(event.part) ? [] : super.take(event);
  }

  // --- parts ----------------------------------------------------------------------------------

  protected override partStart(event: Start, part: Part): void {
    part.attrs = clean({ meta: (event as { meta?: unknown }).meta });
  }

  protected openText(number: number, part: Part): UIChunk[] {
    this.#stepTold = true;
    const chunk: UIChunk = { type: `${wordOf(part)}-start`, id: nameOf(number, part) };
    if (part.kind === "refusal") chunk.providerMetadata = { tokenwire: { kind: "refusal" } };
    return [chunk];
  }

  protected openCall(_number: number, part: Part): UIChunk[] {
    this.#stepTold = true;
    this.#calls.add(part.callId);
    this.#stepCalls.add(part.callId);
    return [{ type: "tool-input-start", ...this.#named(part) }];
  }

  #named(part: Part) {
    const provider = part.executor === "provider" ? { providerExecuted: true } : {};
    return { toolCallId: part.callId, toolName: part.name, ...provider };
  }

  protected callDelta(part: Part, inputTextDelta: string): UIChunk {
    return { type: "tool-input-delta", toolCallId: part.callId, inputTextDelta };
  }

  protected textDelta(number: number, part: Part, delta: string): UIChunk {
    return { type: `${wordOf(part)}-delta`, id: nameOf(number, part), delta };
  }

  protected endOther(event: End, part: Part): UIChunk[] {
    if (event.type === "provider-result-end") return this.#providerResult(event, part);
    if ((event.status ?? "complete") !== "complete") return [];
    if (event.type === "file-end") {
      this.#stepTold = true;
      const url = part.url ?? `data:${part.mediaType};base64,${part.text}`;
      return [{ type: "file", url, mediaType: part.mediaType }];
    }
    if (event.type !== "opaque-end") return [];
    // Kept for the provider, as the AI SDK keeps redacted thinking: reasoning without text.
    this.#stepTold = true;
    const id = `r${event.part}`;
    const opaque = clean({ name: part.name, payload: part.payload, ...part.attrs });
    const providerMetadata = { tokenwire: { opaque } };
    return [{ type: "reasoning-start", id }, { type: "reasoning-end", id, providerMetadata }];
  }

  protected endText(event: End, part: Part): UIChunk[] {
    const { missing, fits } = atEnd(event, part);
    const signed = Object.keys(part.attrs).length > 0;
    const chunks = missing || signed ? this.openPart(event.part, part) : [];
    if (!part.opened) return chunks;
    const id = nameOf(event.part, part);
    if (missing) chunks.push(this.textDelta(event.part, part, missing));
    const metadata = signed ? { providerMetadata: { tokenwire: part.attrs } } : {};
    chunks.push({ type: `${wordOf(part)}-end`, id, ...metadata });
    if (!fits) {
      const data = { part: event.part, text: event.text };
      chunks.push({ type: "data-text-correction", id: `fix-${event.part}`, data });
    }
    return chunks;
  }

  protected endCall(event: Of<"tool-call-end">, part: Part): UIChunk[] {
    const chunks = this.openPart(event.part, part);
    const named = this.#named(part);
    const status = event.status ?? "complete";
    if (status === "complete") {
      const input = event.arguments ?? (part.text || {});
      const signed = Object.keys(part.attrs).length > 0;
      const metadata = signed ? { providerMetadata: { tokenwire: part.attrs } } : {};
      return [...chunks, { type: "tool-input-available", ...named, ...metadata, input }];
    }
    const errorText = event.error || NOT_COMPLETE[status];
    return [...chunks, { type: "tool-input-error", ...named, input: part.text, errorText }];
  }

  #providerResult(event: Of<"provider-result-end">, part: Part): UIChunk[] {
    const chunks: UIChunk[] = [];
    const toolCallId = part.callId || `call-${event.part}`;
    const providerExecuted = true;
    if (!this.#calls.has(toolCallId)) {
      this.#calls.add(toolCallId);
      const toolName = part.name || "provider_tool";
      const call = { type: "tool-input-available", toolCallId, toolName, input: {} };
      chunks.push({ ...call, providerExecuted });
    }
    const output = event.content ?? part.payload ?? part.text;
    chunks.push({ type: "tool-output-available", toolCallId, output, providerExecuted });
    return chunks;
  }

  protected attribute({ name, value, seq }: Of<"part-attr">, part: Part): UIChunk[] {
    if (name === "signature" || name === "encrypted") {
      part.attrs = { ...part.attrs, ...clean({ [name]: value }) };
    } else if (name === "meta" && value && typeof value === "object") {
      part.attrs = { ...part.attrs, meta: { ...(part.attrs.meta as object), ...value } };
    }
    return name === "citation" ? sourceOf(value, seq ?? 0) : [];
  }

  // --- ends and waits -------------------------------------------------------------------------

  protected stepReset(event: Of<"step-reset">, open: number[]): UIChunk[] {
    if (!this.#stepTold) return [];
    if (this.#compat === "7") {
      for (const call of this.#stepCalls) this.#calls.delete(call);
      return [{ type: "reset-step" }];
    }
    const chunks = open.flatMap((number): UIChunk[] => {
      const part = this.parts.get(number)!;
      if (!part.opened || !TEXT_KINDS.includes(part.kind)) return [];
      return [{ type: `${wordOf(part)}-end`, id: nameOf(number, part) }];
    });
    const errorText = "The step was started again; this call is not made.";
    for (const toolCallId of this.#stepCalls) {
      if (!this.#answered.has(toolCallId)) {
        chunks.push({ type: "tool-output-error", toolCallId, errorText });
      }
    }
    const { step, attempt, reason } = event;
    const data = clean({ step, attempt, reason });
    return [...chunks, { type: "data-step-reset", id: `reset-${event.seq ?? 0}`, data }];
  }

  protected override runWait(event: Of<"run-wait">): UIChunk[] {
    const old = this.#compat === "5" || this.#compat === "common";
    if (event.reason === "approval" && old) return [];
    return super.runWait(event);
  }

  protected runEnd(event: Of<"run-end">, ending: Ending): UIChunk[] {
    if (ending === "cancelled") return [{ type: "abort" }];
    if (ending === "failed") return [{ type: "error", errorText: this.failure(event).message }];
    const reason = ending === "cut" ? cutReason(this.reason) : this.reason;
    return [this.#finish(reason, event.outcome)];
  }

  #finish(reason: string, outcome: string): UIChunk {
    const total = this.usage.total();
    const usage = total.size ? Object.fromEntries(total) : undefined;
    const tokenwire = clean({ outcome, finishReason: reason, usage });
    const word = this.#compat === "5" ? {} : { finishReason: FINISH[reason] ?? "other" };
    return { type: "finish", ...word, messageMetadata: { tokenwire } };
  }

  // --- what is not text -----------------------------------------------------------------------

  protected other(event: RunEvent): UIChunk[] {
    switch (event.type) {
      case "tool-result":
      case "tool-error":
        this.#answered.add(event.call_id);
        return this.#calls.has(event.call_id) ? [this.#result(event)] : [];
      case "approval-request":
      case "approval-answer":
        return this.#calls.has(event.call_id) ? this.#approval(event) : [];
      case "tool-progress":
      case "tool-output": {
        const { call_id: toolCallId } = event;
        const told =
          event.type === "tool-output"
            ? { text: event.text }
            : clean({ fraction: event.fraction, message: event.message });
        return [{ type: "data-tool-progress", data: { toolCallId, ...told }, transient: true }];
      }
      case "progress": {
        const { fraction, message } = event;
        return [{ type: "data-progress", id: "progress", data: clean({ fraction, message }) }];
      }
      case "budget":
        return [{ type: "data-budget", id: "budget", data: budgetOf(event) }];
      case "data": {
        const id = event.id === undefined ? {} : { id: event.id };
        const transient = event.transient ? { transient: true } : {};
        return [{ type: `data-${event.name}`, ...id, ...transient, data: event.payload ?? null }];
      }
      default:
        return [];
    }
  }

  #result(event: Of<"tool-result"> | Of<"tool-error">): UIChunk {
    const { call_id: toolCallId } = event;
    if (event.type === "tool-result") {
      return { type: "tool-output-available", toolCallId, output: event.content ?? "" };
    }
    if (event.code === "denied" && (this.#compat === "6" || this.#compat === "7")) {
      return { type: "tool-output-denied", toolCallId };
    }
    return { type: "tool-output-error", toolCallId, errorText: event.message };
  }

  #approval(event: Of<"approval-request"> | Of<"approval-answer">): UIChunk[] {
    const { approval_id: approvalId, call_id: toolCallId, reason } = event;
    const names = { approvalId, toolCallId };
    const own = this.#compat === "6" || this.#compat === "7";
    if (event.type === "approval-request") {
      if (own) return [{ type: "tool-approval-request", ...names }];
      const asked = clean({ toolName: event.name, input: event.arguments, reason });
      return [{ type: "data-approval", id: approvalId, data: { ...names, ...asked } }];
    }
    const answer = clean({ approved: event.approved, reason });
    if (this.#compat === "7") return [{ type: "tool-approval-response", approvalId, ...answer }];
    if (own) return []; // the client gave the answer; this version has no chunk for it
    return [{ type: "data-approval", id: approvalId, data: { ...names, ...answer } }];
  }
}

function wordOf(part: Part): string {
  return part.kind === "reasoning" ? "reasoning" : "text";
}

function nameOf(number: number, part: Part): string {
  return `${LETTER[part.kind]!}${number}`;
}

/** A citation as a source: by its address, or else as a document. */
function sourceOf(value: unknown, seq: number): UIChunk[] {
  if (!value || typeof value !== "object") return [];
  const { url, title, document_title, filename, media_type } = value as Record<string, unknown>;
  const sourceId = `s${seq}`;
  if (typeof url === "string" && url) {
    const named = typeof title === "string" ? { title } : {};
    return [{ type: "source-url", sourceId, url, ...named }];
  }
  const named = title || document_title || filename;
  if (typeof named !== "string" || !named) return [];
  const mediaType = String(media_type || "text/plain");
  return [{ type: "source-document", sourceId, mediaType, title: named }];
}
