/* TanStack AI's messages and ours, in both directions.

Always true: results of tools stand with the call that they answer: in TanStack's in the assistant's
message, in ours in the `tool` message after it; a call without a result is told only at the end of
a conversation, because providers refuse it anywhere else. */

import type { ConnectConnectionAdapter, UIMessage } from "@tanstack/ai-client";
import type { Message } from "../state/history.js";

/** What a chat client hands to its connection. */
export type Asked = Parameters<ConnectConnectionAdapter["connect"]>[0];
type ModelMessage = Exclude<Asked[number], UIMessage>;
type Parts = Record<string, unknown>[];
/** What the parts of either kind may have; read with care. */
interface AnyPart {
  type: string;
  content?: unknown;
  text?: string;
  id?: string;
  name?: string;
  arguments?: string;
  output?: unknown;
  toolCallId?: string;
  state?: string;
  error?: string;
  source?: { type: string; value: string; mimeType?: string };
}

/** What a request says of the conversation. */
export function toMessages(messages: Asked): Message[] {
  const found: Message[] = [];
  messages.forEach((message, at) => {
    const last = at === messages.length - 1;
    if (!("parts" in message)) found.push(...fromModelMessage(message));
    else {
      const parts = message.parts as AnyPart[];
      const answer = message.role === "assistant";
      const content = answer ? [] : parts.flatMap(contentPart);
      const told = answer ? fromAnswer(parts, last) : content.length ? [{ role: message.role, content }] : [];
      // The client's own id comes back with the conversation.
      if (told[0]) told[0] = { ...told[0], id: message.id } as Message;
      found.push(...told);
    }
  });
  return found;
}

/** Results of calls in `messages`, by the call's id: the value, or the error's text. */
export function resultsIn(messages: Asked): Map<string, unknown> {
  const results = new Map<string, unknown>();
  for (const { content } of toMessages(messages)) {
    if (typeof content === "string") continue;
    for (const part of content) {
      if (part.type !== "tool-result") continue;
      const value = part.is_error ? { error: part.content } : part.content;
      results.set(String(part.call_id), value);
    }
  }
  return results;
}

function fromAnswer(all: AnyPart[], last: boolean): Message[] {
  const results = new Map(all.flatMap(resultPart).map((part) => [part.call_id as string, part]));
  const found: Message[] = [];
  let said: Parts = [];
  let answers: Parts = [];
  const close = () => {
    if (said.length) found.push({ role: "assistant", content: said });
    if (answers.length) found.push({ role: "tool", content: answers });
    said = [];
    answers = [];
  };
  for (const part of all) {
    if (part.type !== "tool-call") {
      // What comes after the results of calls is the next answer of the model.
      if (answers.length && part.type === "text" && part.content) close();
      said.push(...contentPart(part));
      continue;
    }
    const answer = results.get(part.id!);
    if (!answer && !last) continue;
    said.push({
      type: "tool-call",
      call_id: part.id!,
      name: part.name!,
      arguments: part.arguments || "{}",
    });
    if (answer) answers.push(answer);
  }
  close();
  return found;
}

/** The result that a part brings, if any. */
function resultPart(part: AnyPart): Parts {
  if (part.type === "tool-call" && part.output !== undefined) {
    const failed = part.state === "output-error" || part.state === "error";
    return [toolResult(part.id!, part.output, failed)];
  }
  if (part.type !== "tool-result" || part.state === "streaming") return [];
  const { error, content } = part;
  return [toolResult(part.toolCallId!, error ?? parsed(content), error !== undefined)];
}

function toolResult(call_id: string, content: unknown, failed: boolean): Parts[number] {
  return { type: "tool-result", call_id, content, ...(failed ? { is_error: true } : {}) };
}

/** Text, and files; nothing for what a model cannot read. */
function contentPart(part: AnyPart): Parts {
  if (part.type === "text") {
    const text = typeof part.content === "string" ? part.content : (part.text ?? "");
    return text ? [{ type: "text", text }] : [];
  }
  if (!part.source) return [];
  const { type, value, mimeType } = part.source;
  const named = mimeType ? { media_type: mimeType } : {};
  return [{ type: "file", ...named, ...(type === "url" ? { url: value } : { data: value }) }];
}

function fromModelMessage(message: ModelMessage): Message[] {
  const { role, content, toolCalls, toolCallId, error } = message;
  if (role === "tool") {
    const result = toolResult(toolCallId ?? "", error ?? parsed(content), error !== undefined);
    return [{ role, content: [result] }];
  }
  const said = typeof content === "string" ? [{ type: "text", content }] : (content ?? []);
  const parts = (said as AnyPart[]).flatMap(contentPart);
  for (const call of toolCalls ?? []) {
    const { name, arguments: written } = call.function;
    parts.push({ type: "tool-call", call_id: call.id, name, arguments: written || "{}" });
  }
  return parts.length ? [{ role, content: parts }] : [];
}

/** A result's text is JSON where a program wrote it. */
function parsed(content: unknown): unknown {
  if (typeof content !== "string") return content;
  try {
    return JSON.parse(content);
  } catch {
    return content;
  }
}

/** Our messages as TanStack's, for a page that asks what its conversation was. `prefix` makes ids
 * for those without one. */
export function fromMessages(messages: Message[], prefix: string): UIMessage[] {
  const found: { id: string; role: string; parts: Record<string, unknown>[] }[] = [];
  messages.forEach((message, at) => {
    const { role, content } = message;
    const given = typeof content === "string" ? [{ type: "text", text: content }] : content;
    const parts: Parts = [];
    for (const part of given) {
      if (part.type === "tool-result") answerCall(found, part);
      else parts.push(...shownPart(part));
    }
    // Not an id that the stream of a run gives to its messages.
    const id = (message as { id?: string }).id ?? `${prefix}-kept-${at}`;
    const known = role === "user" || role === "assistant" ? role : "system";
    if (parts.length) found.push({ id, role: known, parts });
  });
  return found as unknown as UIMessage[];
}

function answerCall(found: { parts: Parts }[], result: Parts[number]): void {
  for (const { parts } of found.toReversed()) {
    const call = parts.find((part) => part.type === "tool-call" && part.id === result.call_id);
    if (!call) continue;
    const { content } = result;
    const state = result.is_error ? "error" : "complete";
    Object.assign(call, { state, output: content });
    const text = typeof content === "string" ? content : JSON.stringify(content ?? null);
    parts.push({ type: "tool-result", toolCallId: result.call_id, content: text, state });
    return;
  }
}

function shownPart(part: Parts[number]): Parts {
  const { type, text } = part;
  if (type === "text" || type === "refusal") return text ? [{ type: "text", content: text }] : [];
  if (type === "reasoning") return text ? [{ type: "thinking", content: text }] : [];
  if (type === "tool-call") {
    const { call_id: id, name, arguments: written = "{}" } = part;
    const whole = (part.status ?? "complete") === "complete";
    const input = whole ? { input: parsed(written) } : {};
    return [{ type: "tool-call", id, name, arguments: written, state: "input-complete", ...input }];
  }
  if (type !== "file") return [];
  const mimeType = String(part.media_type ?? "application/octet-stream");
  const kind = /^(image|audio|video)\//.exec(mimeType)?.[1] ?? "document";
  const source = part.url
    ? { type: "url", value: part.url, mimeType }
    : { type: "data", value: part.data ?? "", mimeType };
  return [{ type: kind, source }];
}
