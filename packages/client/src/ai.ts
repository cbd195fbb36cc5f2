/* A transport for the AI SDK's `useChat` that never shows it a cut.

The cursor and the reconnecting are inside: `useChat` reads one continuous stream of chunks made
from the run's events, whatever happens to the connection below. */

import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import { TokenwireClient, type ClientOptions } from "./client.js";
import type { RunEvent } from "./events.generated.js";
import { asError } from "./reader.js";

export interface ChatTransportOptions extends ClientOptions {
  client?: TokenwireClient;
  model?: string;
  system?: string;
  /** More fields of every start. */
  request?: Record<string, unknown>;
  /** What `chat.stop()` does to the run: end it (the default), or only stop reading. */
  onStop?: "cancel" | "detach";
}

const ENDED = ["complete", "incomplete", "cancelled", "error", "interrupted"];

export class TokenwireChatTransport<M extends UIMessage = UIMessage> implements ChatTransport<M> {
  readonly #client: TokenwireClient;

  constructor(readonly options: ChatTransportOptions = {}) {
    this.#client = options.client ?? new TokenwireClient({ ...options, shareTabs: false });
  }

  async sendMessages({
    chatId,
    messages,
    abortSignal,
    body,
  }: Parameters<ChatTransport<M>["sendMessages"]>[0]): Promise<ReadableStream<UIMessageChunk>> {
    const { model, system, request } = this.options;
    const run = await this.#client.start(
      {
        ...request,
        ...body,
        messages: messages.map(toMessage),
        thread: chatId,
        ...(model ? { model } : {}),
        ...(system ? { system } : {}),
      },
      abortSignal ? { signal: abortSignal } : {},
    );
    return this.#read(run.id, abortSignal);
  }

  /** The chat's run under way, from its beginning; null when there is none. */
  async reconnectToStream({
    chatId,
  }: Parameters<ChatTransport<M>["reconnectToStream"]>[0]): Promise<ReadableStream<UIMessageChunk> | null> {
    const path = `/v1/threads/${encodeURIComponent(chatId)}`;
    try {
      const { runs } = (await this.#client.json("GET", path)) as {
        runs: { id: string; state: string }[];
      };
      const active = runs.find(({ state }) => !ENDED.includes(state));
      return active ? this.#read(active.id) : null;
    } catch (error) {
      if (asError(error).status === 404) return null;
      throw error;
    }
  }

  #read(run: string, stop?: AbortSignal): ReadableStream<UIMessageChunk> {
    const life = new AbortController();
    const onStop = () => {
      if (this.options.onStop !== "detach") void this.#client.stop(run).catch(() => undefined);
      life.abort();
    };
    if (stop?.aborted) onStop();
    stop?.addEventListener("abort", onStop);
    const chunks = new ChunkFold();
    return new ReadableStream<UIMessageChunk>({
      start: async (controller) => {
        try {
          await this.#client.follow(run, {
            signal: life.signal,
            onEvents: (batch) => {
              for (const { event } of batch) {
                for (const chunk of chunks.take(event)) controller.enqueue(chunk);
              }
            },
          });
          if (stop?.aborted) controller.enqueue({ type: "abort" });
          controller.close();
        } catch (error) {
          controller.error(error);
        } finally {
          stop?.removeEventListener("abort", onStop);
        }
      },
      cancel: () => life.abort(),
    });
  }
}

/** Events to the chunks that say the same to `useChat`. */
export class ChunkFold {
  #calls = new Map<number, { id: string; name: string; text: string }>();
  #failed = false;

  take(event: RunEvent): UIMessageChunk[] {
    const id = "part" in event ? `part-${event.part}` : "";
    switch (event.type) {
      case "run-start":
        return [{ type: "start", messageId: event.run }];
      case "step-start":
        return [{ type: "start-step" }];
      case "step-end":
        return [{ type: "finish-step" }];
      case "text-start":
      case "refusal-start":
        return [{ type: "text-start", id }];
      case "text-delta":
      case "refusal-delta":
        return [{ type: "text-delta", id, delta: event.text }];
      case "text-end":
      case "refusal-end":
        return [{ type: "text-end", id }];
      case "reasoning-start":
        return [{ type: "reasoning-start", id }];
      case "reasoning-delta":
        return [{ type: "reasoning-delta", id, delta: event.text }];
      case "reasoning-end":
        return [{ type: "reasoning-end", id }];
      case "tool-call-start":
      case "tool-call-delta":
      case "tool-call-end":
        return this.#call(event);
      case "tool-result":
        return [{ type: "tool-output-available", toolCallId: event.call_id, output: event.content }];
      case "tool-error":
        return [
          { type: "tool-output-error", toolCallId: event.call_id, errorText: event.message },
        ];
      case "approval-request":
        return [
          {
            type: "tool-approval-request",
            approvalId: event.approval_id,
            toolCallId: event.call_id,
          },
        ];
      case "data":
        return [
          {
            type: `data-${event.name}`,
            data: event.payload,
            ...(event.id ? { id: event.id } : {}),
            ...(event.transient ? { transient: true } : {}),
          },
        ];
      case "error":
        if (this.#failed) return [];
        this.#failed = true;
        return [{ type: "error", errorText: event.message }];
      case "run-end":
        if (this.#failed) return [];
        return event.outcome === "cancelled" ? [{ type: "abort" }] : [{ type: "finish" }];
      default:
        return [];
    }
  }

  #call(
    event: Extract<RunEvent, { type: "tool-call-start" | "tool-call-delta" | "tool-call-end" }>,
  ): UIMessageChunk[] {
    if (event.type === "tool-call-start") {
      const call = { id: event.call_id ?? `call-${event.part}`, name: event.name ?? "", text: "" };
      this.#calls.set(event.part, call);
      return [
        { type: "tool-input-start", toolCallId: call.id, toolName: call.name, dynamic: true },
      ];
    }
    const call = this.#calls.get(event.part);
    if (!call) return [];
    if (event.type === "tool-call-delta") {
      call.text += event.text;
      return [{ type: "tool-input-delta", toolCallId: call.id, inputTextDelta: event.text }];
    }
    const common = { toolCallId: call.id, toolName: call.name, dynamic: true };
    if ((event.status ?? "complete") === "complete") {
      return [{ ...common, type: "tool-input-available", input: event.arguments ?? {} }];
    }
    const errorText = event.error ?? `the call is ${event.status}`;
    return [{ ...common, type: "tool-input-error", input: call.text, errorText }];
  }
}

/** A `useChat` message in our own words: its text, and its files. */
function toMessage(message: UIMessage): Record<string, unknown> {
  const content: Record<string, unknown>[] = [];
  for (const part of message.parts) {
    if (part.type === "text") content.push({ type: "text", text: part.text });
    else if (part.type === "file") {
      content.push({ type: "file", media_type: part.mediaType, url: part.url });
    }
  }
  return { role: message.role, content };
}
