/* A run's state as messages: what to append to the conversation for the next question. */

export { readDataURL, unreadable, type DataURL } from "./data-url.js";
import type { PartState, RunState, StepState, ToolState } from "../core/fold.js";

export interface Message {
  role: string;
  content: string | Record<string, unknown>[];
  id?: string;
  metadata?: Record<string, unknown>;
}

/** Per step the assistant's parts, then the results of its tool calls, then what a person said. */
export function historyOf(run: RunState): Message[] {
  const messages: Message[] = [];
  for (const step of run.steps) {
    const shown = step.parts.filter(
      (p) => p.choice === 0 && p.status !== "discarded" && p.agent?.parent === undefined,
    );
    if (shown.length) {
      messages.push({ role: "assistant", content: shown.map((part) => messagePart(part, step)) });
    }
    const results = shown
      .filter((part) => part.kind === "tool-call")
      .map((part) => run.tools.get(String(part.attrs.call_id ?? "")))
      .filter((tool) => tool?.done)
      .map((tool) => toolResult(tool!));
    if (results.length) messages.push({ role: "tool", content: results });
    for (const { id, text } of step.steers ?? []) {
      const metadata = { "tokenwire.steers": run.run };
      messages.push({ role: "user", content: text ?? "", id: id ?? "", metadata });
    }
  }
  return messages;
}

/** The same, and an error for each call that has no result: providers refuse a question after an
 * unanswered call, and a run may be stopped, or be asked past, while it waits for one. */
export function answeredHistory(run: RunState): Message[] {
  const messages = historyOf(run);
  return messages.flatMap((message, at) => {
    if (message.role !== "assistant" || typeof message.content === "string") return [message];
    const next = messages[at + 1];
    const results = next?.role === "tool" ? (next.content as Record<string, unknown>[]) : [];
    const left = message.content.filter(
      ({ type, executor, call_id }) =>
        type === "tool-call" &&
        executor !== "provider" &&
        !results.some((result) => result.call_id === call_id),
    );
    if (!left.length) return [message];
    const content = "there is no result: the answer went on without it";
    const missing = left.map(({ call_id, name }) => {
      return { type: "tool-result", call_id, name, content, is_error: true };
    });
    // Results of one answer stand in one message.
    if (results.length) (next!.content as unknown[]).push(...missing);
    return results.length ? [message] : [message, { role: "tool", content: missing }];
  });
}

/** Fields at their default are left out, as in the stored form. */
function messagePart(part: PartState, step: StepState): Record<string, unknown> {
  const { attrs, text } = part;
  const meta = present(attrs.meta) ? { meta: { [step.dialect || "provider"]: attrs.meta } } : {};
  const common = { type: part.kind, ...meta };
  const named = filled(attrs, "call_id", "name");
  switch (part.kind) {
    case "text":
      return { ...common, text, ...pick(attrs, "citations", "signature") };
    case "reasoning":
      return {
        ...common,
        ...(text ? { text } : {}),
        ...filled(attrs, "summary"),
        ...pick(attrs, "signature", "encrypted"),
      };
    case "refusal":
      return { ...common, text };
    case "tool-call": {
      const written = text || JSON.stringify(attrs.arguments ?? {});
      const status = part.status === "open" ? "truncated" : part.status;
      return {
        ...common,
        call_id: attrs.call_id ?? "",
        name: attrs.name ?? "",
        arguments: written,
        ...(attrs.executor === "server" ? {} : pick(attrs, "executor")),
        ...(attrs.format === "json" ? {} : pick(attrs, "format")),
        ...pick(attrs, "signature"),
        ...(status === "complete" ? {} : { status }),
      };
    }
    case "provider-result":
      return { ...common, ...named, content: attrs.content ?? text };
    case "file": {
      const type = attrs.media_type;
      return {
        ...common,
        ...(type === "application/octet-stream" ? {} : pick(attrs, "media_type")),
        ...(text ? { data: text } : {}),
        ...pick(attrs, "url", "name"),
      };
    }
    default:
      return { ...common, ...filled(attrs, "name"), ...pick(attrs, "payload", "signature") };
  }
}

function toolResult(tool: ToolState): Record<string, unknown> {
  return {
    type: "tool-result",
    call_id: tool.call_id,
    ...(tool.content === undefined || tool.content === null ? {} : { content: tool.content }),
    ...(tool.name ? { name: tool.name } : {}),
    ...(tool.error === undefined ? {} : { is_error: true }),
  };
}

function present(value: unknown): boolean {
  return !!value && typeof value === "object" && Object.keys(value).length > 0;
}

function pick(attrs: Record<string, unknown>, ...names: string[]): Record<string, unknown> {
  const there = names.filter((name) => attrs[name] !== undefined && attrs[name] !== null);
  return Object.fromEntries(there.map((name) => [name, attrs[name]]));
}

/** The same without those that are empty. */
function filled(attrs: Record<string, unknown>, ...names: string[]): Record<string, unknown> {
  return pick(attrs, ...names.filter((name) => attrs[name]));
}
