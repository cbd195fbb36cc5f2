/* Events to AG-UI events in TanStack AI's dialect; the words of `conformance/wire`.

Always true: `RUN_STARTED` comes first; what was started is ended before `RUN_FINISHED`; exactly
one `RUN_FINISHED` or `RUN_ERROR` ends what is told, and nothing follows; ids name one message or
call each. */

import { MessageList, type AGUIChunk } from "./message-list.js";
import type { RunEvent } from "../core/events.generated.js";
import { atEnd, budgetOf, clean, cutReason, type End, type Ending, type Of, type Part } from "../translate/parts.js";
import { Translation, type TranslationOptions } from "../translate/translation.js";

export type { AGUIChunk };

export interface AGUIOptions extends TranslationOptions {
  /** The client's own names for the conversation and the run; the server's unless told. */
  threadId?: string;
  runId?: string;
  /** The messages of the request. With them a `step-reset` is also told as a `MESSAGES_SNAPSHOT`
   * without what is void. */
  history?: unknown[];
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

export class AGUIFold extends Translation<AGUIChunk> {
  #run = "";
  #thread: string | undefined;
  #model: string | undefined;
  #provider: string | undefined;
  #approvals = new Map<string, Of<"approval-request">>();
  #calls = new Map<string, Part>();
  /** The assistant message that calls hang on. */
  #parent: string | undefined;
  /** What the client has open, in the order in which it was opened. */
  #started = new Map<string, [start: string, name: string]>();
  /** Open steps, with the names that the client knows them by. */
  #steps = new Map<number, string>();
  #gone: string[] = [];
  #messages: MessageList | undefined;

  constructor(override readonly options: AGUIOptions = {}) {
    super(options);
    this.#messages = options.history && new MessageList(options.history);
  }

  override take(event: RunEvent): AGUIChunk[] {
    const chunks = super.take(event);
    // The end while the run waits is seen by `wait`.
    if (event.type !== "run-wait") for (const chunk of chunks) this.#seen(chunk);
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

  protected runStart(event: Of<"run-start">): AGUIChunk[] {
    this.#run = event.run;
    this.#thread = event.thread;
    this.#model = event.model;
    return [{ type: "RUN_STARTED", ...this.#names() }];
  }

  protected stepStart(event: Of<"step-start">): AGUIChunk[] {
    this.#provider = event.provider || this.#provider;
    this.#parent = undefined;
    this.#gone = [];
    return [this.#stepStarted(event.step, `step-${event.step}`)];
  }

  protected stepEnd({ step }: Of<"step-end">): AGUIChunk[] {
    return [...this.#close(...PARTS), ...this.#closeStep(step)];
  }

  protected taskStart({ step, name }: Of<"step-start">): AGUIChunk[] {
    if (this.#steps.has(step)) return []; // a task that is started again
    // Tasks overlap, and a name may be open once only.
    const own = name || `step-${step}`;
    const taken = [...this.#started.values()].some(([start, open]) => start === "STEP_STARTED" && open === own);
    return [this.#stepStarted(step, taken ? `${own}-${step}` : own)];
  }

  protected taskEnd({ step }: Of<"step-end">): AGUIChunk[] {
    return this.#closeStep(step);
  }

  #stepStarted(step: number, stepName: string): AGUIChunk {
    this.#steps.set(step, stepName);
    return { type: "STEP_STARTED", stepName };
  }

  #closeStep(step: number): AGUIChunk[] {
    const stepName = this.#steps.get(step);
    this.#steps.delete(step);
    if (stepName === undefined || !this.#started.has(`STEP_STARTED ${stepName}`)) return [];
    return [{ type: "STEP_FINISHED", stepName }];
  }

  /** A patch only to a client that has what it changes. */
  protected state({ patch }: Of<"state">, before: unknown): AGUIChunk[] {
    if (patch && this.shared === before) return []; // nothing changed
    if (!patch || !before || typeof before !== "object") {
      return [{ type: "STATE_SNAPSHOT", snapshot: this.shared ?? {} }];
    }
    return [{ type: "STATE_DELTA", delta: patch }];
  }

  // --- parts ----------------------------------------------------------------------------------

  protected openText(number: number, part: Part): AGUIChunk[] {
    const messageId = this.#messageId(number);
    this.#gone.push(messageId);
    if (part.kind === "reasoning") {
      return [
        { type: "REASONING_START", messageId },
        { type: "REASONING_MESSAGE_START", messageId, role: "reasoning" },
      ];
    }
    this.#parent = messageId;
    const { agent } = part;
    const facts = {
      ...(this.#model ? { tanstack: { model: this.#model } } : {}),
      ...(agent ? { tokenwire: { agent: clean({ id: agent.id, name: agent.name, parent: agent.parent }) } } : {}),
    };
    return [
      {
        type: "TEXT_MESSAGE_START",
        messageId,
        role: "assistant",
        ...(agent?.name ? { name: agent.name } : {}),
        ...(Object.keys(facts).length ? { metadata: facts } : {}),
      },
    ];
  }

  protected openCall(number: number, part: Part): AGUIChunk[] {
    this.#calls.set(part.callId, part);
    // The first call without text before it makes the message that the others hang on.
    const parentMessageId = (this.#parent ??= this.#messageId(number));
    this.#gone.push(part.callId);
    const named = { toolCallId: part.callId, toolCallName: part.name, parentMessageId };
    return [{ type: "TOOL_CALL_START", ...named }];
  }

  protected callDelta(part: Part, delta: string): AGUIChunk {
    return { type: "TOOL_CALL_ARGS", toolCallId: part.callId, delta };
  }

  protected textDelta(number: number, part: Part, delta: string): AGUIChunk {
    return { type: `${wordOf(part)}_CONTENT`, messageId: this.#messageId(number), delta };
  }

  protected endOther(event: End, part: Part): AGUIChunk[] {
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

  protected endText(event: End, part: Part): AGUIChunk[] {
    const messageId = this.#messageId(event.part);
    const word = wordOf(part);
    const { missing, fits } = atEnd(event, part);
    const signed = part.kind === "reasoning" && (part.attrs.signature ?? part.attrs.encrypted);
    const chunks = missing || signed ? this.openPart(event.part, part) : [];
    if (missing) chunks.push({ type: `${word}_CONTENT`, messageId, delta: missing });
    if (part.opened) {
      chunks.push({ type: `${word}_END`, messageId });
      if (part.kind === "reasoning") {
        chunks.push(...encrypted(part, "message", messageId));
        chunks.push({ type: "REASONING_END", messageId });
      }
    }
    if (!fits) chunks.push(...custom("text-correction", { messageId, text: event.text }));
    return chunks;
  }

  protected endCall(event: Of<"tool-call-end">, part: Part): AGUIChunk[] {
    part.payload = event.arguments;
    const chunks = this.openPart(event.part, part);
    const status = event.status ?? "complete";
    if (status === "complete" && !part.text && event.arguments !== undefined) {
      chunks.push(this.callDelta(part, asText(event.arguments)));
    }
    const facts = clean({ status, error: event.error });
    const metadata = status === "complete" ? {} : { metadata: { tokenwire: facts } };
    chunks.push({ type: "TOOL_CALL_END", toolCallId: part.callId, ...metadata });
    return [...chunks, ...encrypted(part, "tool-call", part.callId)];
  }

  protected attribute(event: Of<"part-attr">, part: Part): AGUIChunk[] {
    const { name, value } = event;
    if (!["call_id", "tool_name", "citation", "meta", "logprobs"].includes(name)) {
      part.attrs[name] = value;
    }
    const messageId = this.#messageId(event.part);
    return name === "citation" ? custom("citation", { messageId, citation: value }) : [];
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

  protected stepReset(event: Of<"step-reset">): AGUIChunk[] {
    const chunks = [...this.#close(...PARTS), ...this.#closeStep(event.step)];
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

  protected runEnd(event: Of<"run-end">, ending: Ending): AGUIChunk[] {
    const chunks = this.#close(...Object.keys(PAIRS));
    if (ending === "cancelled") return [...chunks, this.#finished({ type: "cancelled" }, "stop")];
    if (ending !== "failed") {
      const reason = ending === "cut" ? cutReason(this.reason) : this.reason;
      return [...chunks, this.#finished({ type: "success" }, reason)];
    }
    const { message, code } = this.failure(event);
    return [...chunks, { type: "RUN_ERROR", message, code, ...this.#names() }];
  }

  #finished(outcome: object, reason: string): AGUIChunk {
    const filtered = reason === "content_filter" || reason === "refusal";
    const isLength = ["length", "context_overflow", "pause"].includes(reason);
    const word = isLength ? "length" : reason === "tool_calls" ? reason : "stop";
    const finishReason = filtered ? "content_filter" : word;
    const usage = this.usage.total();
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

  protected other(event: RunEvent): AGUIChunk[] {
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
      case "progress": {
        const { fraction, message } = event;
        return custom("progress", { fraction, message });
      }
      case "budget":
        return custom("budget", budgetOf(event));
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
