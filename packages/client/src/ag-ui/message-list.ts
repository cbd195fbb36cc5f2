/* The messages that an AG-UI client holds, rebuilt from what it was told: a `MESSAGES_SNAPSHOT` must
hold every message. */

/** One AG-UI event. */
export interface AGUIChunk {
  type: string;
  [field: string]: unknown;
}

interface Message {
  id: string;
  role: string;
  content?: string;
  toolCallId?: string;
  toolCalls?: { id: string; type: "function"; function: { name: string; arguments: string } }[];
}

/** The messages that the client holds. `before`: those of the request. */
export class MessageList {
  #mine = new Map<string, Message>();
  #calls = new Map<string, { name: string; arguments: string }>();

  constructor(readonly before: unknown[]) {}

  see(chunk: AGUIChunk): void {
    const { type, messageId, toolCallId, delta } = chunk as unknown as Record<string, string>;
    if (type === "TEXT_MESSAGE_START" || type === "REASONING_MESSAGE_START") {
      this.#message(messageId!, String(chunk.role)).content ??= "";
    } else if (type === "TEXT_MESSAGE_CONTENT" || type === "REASONING_MESSAGE_CONTENT") {
      this.#mine.get(messageId!)!.content += delta!;
    } else if (type === "TOOL_CALL_START") {
      const call = { name: String(chunk.toolCallName), arguments: "" };
      const message = this.#message(String(chunk.parentMessageId), "assistant");
      message.toolCalls ??= [];
      message.toolCalls.push({ id: toolCallId!, type: "function", function: call });
      this.#calls.set(toolCallId!, call);
    } else if (type === "TOOL_CALL_ARGS") {
      this.#calls.get(toolCallId!)!.arguments += delta!;
    } else if (type === "TOOL_CALL_RESULT") {
      const message = this.#message(messageId!, "tool");
      message.toolCallId = toolCallId!;
      message.content = String(chunk.content);
    } else if (type === "MESSAGES_SNAPSHOT") {
      const known = new Set((chunk.messages as Message[]).map(({ id }) => id));
      for (const id of this.#mine.keys()) if (!known.has(id)) this.#mine.delete(id);
    }
  }

  #message(id: string, role: string): Message {
    const message = this.#mine.get(id) ?? { id, role };
    this.#mine.set(id, message);
    return message;
  }

  /** All messages but those whose message or call id is in `gone`. */
  without(gone: string[]): unknown[] {
    const kept = this.before.filter((one) => !this.#mine.has(String((one as Message).id)));
    for (const message of this.#mine.values()) {
      const { toolCalls, ...told } = message;
      const calls = toolCalls?.filter(({ id }) => !gone.includes(id));
      if (gone.includes(message.id) || (toolCalls && !calls!.length)) continue;
      kept.push(calls?.length ? { ...told, toolCalls: structuredClone(calls) } : told);
    }
    return kept;
  }
}
