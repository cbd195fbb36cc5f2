/* Events to AG-UI events in TanStack AI's dialect; the words of `conformance/wire`.

Always true: `RUN_STARTED` comes first; what was started is ended before `RUN_FINISHED`; exactly
one `RUN_FINISHED` or `RUN_ERROR` ends what is told, and nothing follows; ids name one message or
call each. */

import { MessageList, type AGUIChunk } from "./message-list.js";
import type { RunEvent } from "../core/events.generated.js";
import { atEnd, clean, type End, isWhole, type Of, type Part, Parts, type Start, unsaid, Usage } from "../translate/parts.js";

export type { AGUIChunk };

export interface AGUIOptions {
  /** The client's own names for the conversation and the run; the server's unless told. */
  threadId?: string;
  runId?: string;
  /** The messages of the request. With them a `step-reset` is also told as a `MESSAGES_SNAPSHOT`
   * without what is void. */
  history?: unknown[];
  /** Whether what a `run-wait` names has its answer; such a wait ends nothing. */
  answered?: (pending: string) => boolean;
}

/** start -> [end, the field with the id] */
const PAIRS: Record<string, [end: string, field: string]> = {
  TEXT_MESSAGE_START: ["TEXT_MESSAGE_END", "messageId"],
  TOOL_CALL_START: ["TOOL_CALL_END", "toolCallId"],
  REASONING_MESSAGE_START: ["REASONING_MESSAGE_END", "messageId"],
  REASONING_START: ["REASONING_END", "messageId"],
  STEP_STARTED: ["STEP_FINISHED", "stepName"],
};
const STARTS = new Map(Object.entries(PAIRS).map(([start, [end]]) => [end, start]));
const PARTS = Object.keys(PAIRS).filter((start) => start !== "STEP_STARTED");
const TEXTS = ["text", "refusal", "reasoning"];
const COUNTS: Record<string, string> = {
  input_tokens: "inputTokens",
  output_tokens: "outputTokens",
  total_tokens: "totalTokens",
  reasoning_tokens: "reasoningTokens",
  cached_input_tokens: "cachedInputTokens",
  cache_write_tokens: "cacheWriteInputTokens",
};
const FIELDS = { approved: { type: "boolean" }, reason: { type: "string" } };
const APPROVAL_ANSWER = { type: "object", properties: FIELDS, required: ["approved"] };

export class AGUIFold {
  /** Whether the end was told. The run itself may go on: it waits for a person. */
  ended = false;
  #run = "";
  #thread: string | undefined;
  #model: string | undefined;
  #provider: string | undefined;
  #usage = new Usage();
  #reason = "stop";
  #error: Of<"error"> | undefined;
  #parts = new Parts();
  #approvals = new Map<string, Of<"approval-request">>();
  #calls = new Map<string, Part>();
  /** The assistant message that calls hang on. */
  #parent: string | undefined;
  /** What the client has open, in the order in which it was opened. */
  #started = new Map<string, [start: string, name: string]>();
  #gone: string[] = [];
  #messages: MessageList | undefined;

  constructor(readonly options: AGUIOptions = {}) {
    this.#messages = options.history && new MessageList(options.history);
  }

  /** What says the same as the next event of the run. */
  take(event: RunEvent): AGUIChunk[] {
    const chunks = this.#tell(event);
    for (const chunk of chunks) this.#seen(chunk);
    return chunks;
  }

  /** The start again: a new run of the client goes on with this run. */
  again(): AGUIChunk[] {
    this.ended = false;
    return [{ type: "RUN_STARTED", ...this.#names() }];
  }

  /** The end, while the run waits for `pending`. */
  wait(pending: string[]): AGUIChunk[] {
    this.ended = true;
    const interrupts = pending.map((name) => this.#interrupt(name));
    const chunks = this.#close(...Object.keys(PAIRS));
    chunks.push(this.#finished({ type: "interrupt", interrupts }, "tool_calls"));
    for (const chunk of chunks) this.#seen(chunk);
    return chunks;
  }

  #tell(event: RunEvent): AGUIChunk[] {
    switch (event.type) {
      case "run-start":
        this.#run = event.run;
        this.#thread = event.thread;
        this.#model = event.model;
        return [{ type: "RUN_STARTED", ...this.#names() }];
      case "step-start":
        this.#provider = event.provider || this.#provider;
        this.#parts.clear();
        this.#reason = "stop";
        this.#parent = undefined;
        this.#gone = [];
        return [{ type: "STEP_STARTED", stepName: `step-${event.step}` }];
      case "step-end":
        this.#usage.settle();
        return this.#close(...PARTS, "STEP_STARTED");
      case "step-reset":
        return this.#reset(event);
      case "run-wait": {
        const answered = this.options.answered;
        const left = event.pending.filter((name) => !answered?.(name));
        return left.length ? this.wait(left) : [];
      }
      case "run-end":
        return this.#runEnd(event);
      case "finish":
        if (!event.choice) this.#reason = event.reason;
        return [];
      case "usage":
        this.#usage.count(event);
        return [];
      case "error":
        this.#error = event;
        return [];
      case "part-attr":
        return this.#attr(event);
    }
    if (!("part" in event)) return this.#other(event);
    if (event.type.endsWith("-delta")) return this.#delta(event as Of<"text-delta">);
    if (event.type.endsWith("-start")) return this.#start(event as Start);
    return event.type.endsWith("-end") ? this.#end(event as End) : [];
  }

  // --- parts ----------------------------------------------------------------------------------

  #start(event: Start): AGUIChunk[] {
    const part = this.#parts.start(event);
    const { kind } = part;
    return kind === "text" || kind === "refusal" || kind === "tool-call"
      ? this.#openPart(event.part, part)
      : [];
  }

  #openPart(number: number, part: Part): AGUIChunk[] {
    if (part.told) return [];
    const messageId = this.#messageId(number);
    if (part.kind === "text" || part.kind === "refusal") {
      part.told = true;
      this.#parent = messageId;
      this.#gone.push(messageId);
      const metadata = this.#model ? { metadata: { tanstack: { model: this.#model } } } : {};
      return [{ type: "TEXT_MESSAGE_START", messageId, role: "assistant", ...metadata }];
    }
    if (part.kind === "reasoning") {
      part.told = true;
      this.#gone.push(messageId);
      return [
        { type: "REASONING_START", messageId },
        { type: "REASONING_MESSAGE_START", messageId, role: "reasoning" },
      ];
    }
    if (part.kind !== "tool-call" || !part.callId || !part.name) return [];
    part.told = true;
    this.#calls.set(part.callId, part);
    // The first call without text before it makes the message that the others hang on.
    const parentMessageId = (this.#parent ??= messageId);
    this.#gone.push(part.callId);
    const named = { toolCallId: part.callId, toolCallName: part.name, parentMessageId };
    return [{ type: "TOOL_CALL_START", ...named }, ...this.#arguments(part)];
  }

  #arguments(part: Part): AGUIChunk[] {
    const delta = unsaid(part);
    return delta ? [{ type: "TOOL_CALL_ARGS", toolCallId: part.callId, delta }] : [];
  }

  #delta(event: Of<"text-delta">): AGUIChunk[] {
    const part = this.#parts.growing(event.part);
    if (!part || !event.text) return [];
    part.text += event.text;
    if (TEXTS.includes(part.kind)) {
      const messageId = this.#messageId(event.part);
      const content = { type: `${wordOf(part)}_CONTENT`, messageId, delta: event.text };
      return [...this.#openPart(event.part, part), content];
    }
    return part.kind === "tool-call" && part.told ? this.#arguments(part) : [];
  }

  #end(event: End): AGUIChunk[] {
    const part = this.#parts.end(event.part);
    if (!part) return [];
    if (TEXTS.includes(part.kind)) return this.#endText(event, part);
    if (event.text !== undefined) part.text = event.text;
    if (event.type === "tool-call-end") return this.#endCall(event, part);
    const complete = (event.status ?? "complete") === "complete";
    const { text, payload } = part;
    if (event.type === "provider-result-end") {
      const content = event.content ?? payload ?? text;
      const callId = part.callId || undefined;
      return custom("provider-result", { callId, name: part.name || undefined, content });
    }
    if (event.type === "file-end" && complete) {
      const { mediaType, url, name } = part;
      return custom("file", { mediaType, url, data: text || undefined, name });
    }
    if (event.type === "opaque-end" && complete) {
      return custom("opaque", { name: part.name, payload, ...part.attrs });
    }
    return [];
  }

  #endText(event: End, part: Part): AGUIChunk[] {
    const messageId = this.#messageId(event.part);
    const word = wordOf(part);
    const { missing, fits } = atEnd(event, part);
    const signed = part.kind === "reasoning" && (part.attrs.signature ?? part.attrs.encrypted);
    const chunks = missing || signed ? this.#openPart(event.part, part) : [];
    if (missing) chunks.push({ type: `${word}_CONTENT`, messageId, delta: missing });
    if (part.told) {
      chunks.push({ type: `${word}_END`, messageId });
      if (part.kind === "reasoning") {
        chunks.push(...encrypted(part, "message", messageId));
        chunks.push({ type: "REASONING_END", messageId });
      }
    }
    if (!fits) chunks.push(...custom("text-correction", { messageId, text: event.text }));
    return chunks;
  }

  #endCall(event: Of<"tool-call-end">, part: Part): AGUIChunk[] {
    part.payload = event.arguments;
    part.callId ||= `call-${event.part}`;
    part.name ||= "unknown";
    const chunks = this.#openPart(event.part, part);
    const status = event.status ?? "complete";
    if (status === "complete" && !part.text && event.arguments !== undefined) {
      const delta = asText(event.arguments);
      chunks.push({ type: "TOOL_CALL_ARGS", toolCallId: part.callId, delta });
    }
    const facts = clean({ status, error: event.error });
    const metadata = status === "complete" ? {} : { metadata: { tokenwire: facts } };
    chunks.push({ type: "TOOL_CALL_END", toolCallId: part.callId, ...metadata });
    return [...chunks, ...encrypted(part, "tool-call", part.callId)];
  }

  #attr(event: Of<"part-attr">): AGUIChunk[] {
    const part = this.#parts.growing(event.part);
    if (!part) return [];
    if (event.name === "call_id") part.callId ||= String(event.value);
    else if (event.name === "tool_name") part.name = String(event.value);
    else if (!["citation", "meta", "logprobs"].includes(event.name)) {
      part.attrs[event.name] = event.value;
    }
    if (part.kind === "tool-call") return this.#openPart(event.part, part);
    const messageId = this.#messageId(event.part);
    return event.name === "citation" ? custom("citation", { messageId, citation: event.value }) : [];
  }

  // --- ends and waits -------------------------------------------------------------------------

  #seen(chunk: AGUIChunk): void {
    const pair = PAIRS[chunk.type];
    if (pair) {
      const name = String(chunk[pair[1]]);
      this.#started.set(`${chunk.type} ${name}`, [chunk.type, name]);
    }
    const start = STARTS.get(chunk.type);
    if (start) this.#started.delete(`${start} ${String(chunk[PAIRS[start]![1]])}`);
    this.#messages?.see(chunk);
  }

  #close(...starts: string[]): AGUIChunk[] {
    return [...this.#started.values()]
      .reverse()
      .filter(([start]) => starts.includes(start))
      .map(([start, name]) => ({ type: PAIRS[start]![0], [PAIRS[start]![1]]: name }));
  }

  #reset(event: Of<"step-reset">): AGUIChunk[] {
    this.#usage.settle();
    this.#parts.open.clear();
    this.#error = undefined;
    this.#reason = "stop";
    const chunks = this.#close(...PARTS, "STEP_STARTED");
    if (!this.#gone.length) return chunks;
    const { step, attempt, reason } = event;
    chunks.push(...custom("step-reset", { step, attempt, reason, discard: [...this.#gone] }));
    if (this.#messages) {
      chunks.push({ type: "MESSAGES_SNAPSHOT", messages: this.#messages.without(this.#gone) });
    }
    return chunks;
  }

  #interrupt(pending: string): Record<string, unknown> {
    const asked = this.#approvals.get(pending);
    if (!asked) {
      const call = this.#calls.get(pending);
      const input = call?.payload ?? {};
      const metadata = { kind: "client_tool", toolName: call?.name ?? "", input };
      const reason = "client_tool_input";
      return { id: pending, reason, toolCallId: pending, metadata };
    }
    return {
      id: asked.approval_id,
      reason: "approval_required",
      message: asked.reason || `May the tool ${asked.name} run?`,
      toolCallId: asked.call_id,
      responseSchema: APPROVAL_ANSWER,
      metadata: { kind: "approval", toolName: asked.name, input: asked.arguments ?? {} },
    };
  }

  #runEnd(event: Of<"run-end">): AGUIChunk[] {
    this.ended = true;
    this.#usage.end(event);
    const chunks = this.#close(...Object.keys(PAIRS));
    const { outcome, reason = "" } = event;
    if (outcome === "cancelled") {
      return [...chunks, this.#finished({ type: "cancelled" }, "stop")];
    }
    if (isWhole(event, this.#reason, !!this.#error)) {
      return [...chunks, this.#finished({ type: "success" }, this.#reason)];
    }
    const message = this.#error?.message ?? (reason || `The run was ${outcome}.`);
    const code = this.#error?.code ?? outcome;
    return [...chunks, { type: "RUN_ERROR", message, code, ...this.#names() }];
  }

  #finished(outcome: object, reason: string): AGUIChunk {
    const filtered = reason === "content_filter" || reason === "refusal";
    const word = ["stop", "length", "tool_calls"].includes(reason) ? reason : "stop";
    const finishReason = filtered ? "content_filter" : word;
    const usage = this.#usage.total();
    const counts = Object.entries(COUNTS).map(([ours, theirs]) => [theirs, usage.get(ours)]);
    const told = clean({
      provider: this.#provider,
      model: this.#model,
      ...(Object.fromEntries(counts) as Record<string, unknown>),
    });
    return {
      type: "RUN_FINISHED",
      ...this.#names(),
      outcome,
      ...(usage.size ? { usage: [told] } : {}),
      metadata: {
        tokenwire: { finishReason: reason },
        tanstack: clean({ finishReason, model: this.#model }),
      },
    };
  }

  #other(event: RunEvent): AGUIChunk[] {
    switch (event.type) {
      case "tool-result":
      case "tool-error": {
        const failed = event.type === "tool-error";
        const metadata = failed && {
          metadata: { tokenwire: { error: event.code }, tanstack: { state: "output-error" } },
        };
        return [
          {
            type: "TOOL_CALL_RESULT",
            messageId: `${this.#run}-result-${event.call_id}`,
            toolCallId: event.call_id,
            content: failed ? event.message : asText(event.content ?? null),
            role: "tool",
            ...metadata,
          },
        ];
      }
      case "approval-request":
        this.#approvals.set(event.approval_id, event);
        return [];
      case "tool-progress": {
        const { call_id, fraction, message } = event;
        return custom("tool-progress", { toolCallId: call_id, fraction, message });
      }
      case "data":
        return [{ type: "CUSTOM", name: event.name, value: event.payload ?? {} }];
      case "raw":
        return [{ type: "RAW", event: event.payload ?? {}, source: event.dialect }];
      default:
        return [];
    }
  }

  // --- what is remembered ---------------------------------------------------------------------

  #names(): { threadId: string; runId: string } {
    const runId = this.options.runId ?? this.#run;
    return { threadId: this.options.threadId ?? this.#thread ?? runId, runId };
  }

  #messageId(part: number): string {
    return `${this.#run}-${part}`;
  }
}

function wordOf(part: Part): string {
  return part.kind === "reasoning" ? "REASONING_MESSAGE" : "TEXT_MESSAGE";
}

function custom(name: string, value: Record<string, unknown>): AGUIChunk[] {
  return [{ type: "CUSTOM", name, value: clean(value) }];
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function encrypted(part: Part, subtype: string, entityId: string): AGUIChunk[] {
  const value = part.attrs.encrypted || part.attrs.signature;
  if (typeof value !== "string" || !value) return [];
  return [{ type: "REASONING_ENCRYPTED_VALUE", subtype, entityId, encryptedValue: value }];
}
