/* `useChat` messages as ours, and the answers that a message holds for the run that wrote it.

Always true: one message of ours a step, each followed by the results of its calls; what only the
page cares about (data, sources, steps) does not reach the model; a call without a result is told
only at the end, because providers refuse it anywhere else. */

import type { UIMessage } from "ai";
import { withoutVoid } from "./void-parts.js";
import { readDataURL, unreadable } from "../state/data-url.js";
import type { Message } from "../state/history.js";
import type { Answers } from "../translate/run-stream.js";

type Parts = Record<string, unknown>[];
/** What the parts of all kinds may have; read with care. */
interface AnyPart {
  type: string;
  text?: string;
  url?: string;
  mediaType?: string;
  filename?: string;
  toolCallId?: string;
  toolName?: string;
  state?: string;
  input?: unknown;
  output?: unknown;
  errorText?: string;
  providerExecuted?: boolean;
  approval?: { id: string; approved?: boolean; reason?: string };
  providerMetadata?: { tokenwire?: Record<string, unknown> };
  callProviderMetadata?: { tokenwire?: Record<string, unknown> };
}

const ANSWERED = ["output-available", "output-error", "output-denied"];

export function toMessages(messages: readonly UIMessage[]): Message[] {
  return messages.flatMap((message, at) => {
    const parts = message.parts as AnyPart[];
    if (message.role === "assistant") return fromAnswer(parts, at === messages.length - 1);
    const content = parts.flatMap(contentPart);
    return content.length ? [{ role: message.role, content }] : [];
  });
}

/** The run that wrote a message. */
export function runOf(message: UIMessage): string {
  const { tokenwire } = (message.metadata ?? {}) as { tokenwire?: { run?: unknown } };
  return typeof tokenwire?.run === "string" ? tokenwire.run : message.id;
}

/** What a message has for the run that wrote it; undefined when it answers nothing. */
export function answersIn(message: UIMessage | undefined): Answers | undefined {
  if (message?.role !== "assistant") return undefined;
  const tools = (message.parts as AnyPart[]).filter(isTool);
  const approvals = tools.flatMap(({ state, approval }) =>
    state === "approval-responded" && approval ? [approval] : [],
  );
  const results = tools.filter(({ state }) => state === "output-available" || state === "output-error");
  if (!approvals.length && !results.length) return undefined;
  return {
    approval: (name) => {
      const found = approvals.find(({ id }) => id === name);
      const reason = found?.reason ? { reason: found.reason } : {};
      return found && { approved: found.approved === true, ...reason };
    },
    result: (name) => {
      const found = results.find(({ toolCallId }) => toolCallId === name);
      if (!found) return undefined;
      const failed = found.state === "output-error";
      return { content: failed ? { error: found.errorText ?? "the tool failed" } : found.output };
    },
  };
}

function isTool({ type }: AnyPart): boolean {
  return type.startsWith("tool-") || type === "dynamic-tool";
}

function fromAnswer(parts: AnyPart[], last: boolean): Message[] {
  const found: Message[] = [];
  let said: Parts = [];
  let results: Parts = [];
  const close = () => {
    if (said.length) found.push({ role: "assistant", content: said });
    if (results.length) found.push({ role: "tool", content: results });
    said = [];
    results = [];
  };
  // What the page was told to forget does not go back to the model.
  for (const part of withoutVoid(parts)) {
    if (part.type === "step-start") close();
    else if (!isTool(part)) said.push(...contentPart(part));
    else {
      const answered = ANSWERED.includes(part.state ?? "");
      if (part.state === undefined || part.state === "input-streaming") continue;
      if (!answered && !last) continue;
      said.push(callPart(part));
      if (answered) results.push(resultPart(part));
    }
  }
  close();
  return found;
}

function toolName({ type, toolName }: AnyPart): string {
  return type === "dynamic-tool" ? (toolName ?? "") : type.slice("tool-".length);
}

function callPart(part: AnyPart): Parts[number] {
  const { toolCallId: call_id, input = {}, providerExecuted } = part;
  const { signature } = part.callProviderMetadata?.tokenwire ?? {};
  return {
    type: "tool-call",
    call_id,
    name: toolName(part),
    arguments: typeof input === "string" ? input : JSON.stringify(input),
    ...(providerExecuted ? { executor: "provider" } : {}),
    ...(typeof signature === "string" ? { signature } : {}),
  };
}

function resultPart(part: AnyPart): Parts[number] {
  const failed = part.state !== "output-available";
  const content = failed
    ? (part.errorText ?? "The person did not allow this call.")
    : (part.output ?? null);
  const error = failed ? { is_error: true } : {};
  return { type: "tool-result", call_id: part.toolCallId, name: toolName(part), content, ...error };
}

function contentPart(part: AnyPart): Parts {
  const ours = part.providerMetadata?.tokenwire ?? {};
  const signature = typeof ours.signature === "string" ? { signature: ours.signature } : {};
  const { text = "" } = part;
  if (part.type === "text") {
    if (ours.kind === "refusal") return [{ type: "refusal", text }];
    return text ? [{ type: "text", text, ...signature }] : [];
  }
  if (part.type === "reasoning") {
    const { opaque, encrypted } = ours;
    if (opaque && typeof opaque === "object") {
      const { name = "", payload } = opaque as Record<string, unknown>;
      return [{ type: "opaque", name, payload }];
    }
    const kept = typeof encrypted === "string" ? { encrypted } : {};
    return text || ours.signature || encrypted
      ? [{ type: "reasoning", text, ...signature, ...kept }]
      : [];
  }
  if (part.type !== "file" || !part.url) return [];
  const inside = readDataURL(part.url);
  // One file that cannot be read must not make every later question fail.
  if (inside === null) return [unreadable(part.filename)];
  const media_type = part.mediaType ?? inside?.type ?? "application/octet-stream";
  const named = part.filename ? { name: part.filename } : {};
  return [{ type: "file", media_type, ...(inside ? { data: inside.data } : { url: part.url }), ...named }];
}
