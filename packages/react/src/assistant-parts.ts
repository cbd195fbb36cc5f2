/* Parts of a run as assistant-ui's message parts.

Always true: while nothing touched a part (and its tool), the same object is given out. */

import type { ThreadMessageLike } from "@assistant-ui/react";
import type { PartState, RunState, ToolState } from "@tokenwire/client";

type Part = Exclude<ThreadMessageLike["content"], string>[number];
type Args = Extract<Part, { type: "tool-call" }>["args"];

interface Made {
  part: PartState;
  tool: ToolState | undefined;
  result: PartState | undefined;
  made: Part[];
}

/** The parts of one turn. */
export class PartCache {
  #made = new Map<number, Made>();

  /** `name` makes ids of calls and approvals that no other turn has. */
  constructor(readonly name: (id: string) => string) {}

  of(run: RunState): Part[] {
    const all = run.steps
      .flatMap(({ parts }) => parts)
      .filter(({ choice, status }) => choice === 0 && status !== "discarded");
    const data = run.data.map(({ name, payload }): Part => ({ type: "data", name, data: payload }));
    return [...all.flatMap((part) => this.#one(part, all, run)), ...data];
  }

  #one(part: PartState, all: PartState[], run: RunState): Part[] {
    const call = String(part.attrs.call_id ?? "");
    const tool = part.kind === "tool-call" ? run.tools.get(call) : undefined;
    const result = part.kind === "tool-call" ? providerResult(all, call) : undefined;
    const known = this.#made.get(part.part);
    if (known?.part === part && known.tool === tool && known.result === result) return known.made;
    const made = shown(part, this.name, tool, result);
    this.#made.set(part.part, { part, tool, result, made });
    return made;
  }
}

function providerResult(all: PartState[], call: string): PartState | undefined {
  return call
    ? all.find(({ kind, attrs }) => kind === "provider-result" && attrs.call_id === call)
    : undefined;
}

type Name = PartCache["name"];

function shown(part: PartState, name: Name, tool?: ToolState, result?: PartState): Part[] {
  const { kind, text, attrs } = part;
  const id = `part-${part.part}`;
  switch (kind) {
    case "text":
    case "refusal":
      return [{ type: "text", id, text }, ...sources(part)];
    case "reasoning":
      return [{ type: "reasoning", id, text }];
    case "tool-call":
      return [toolCall(part, name, tool, result)];
    case "file": {
      const mimeType = String(attrs.media_type ?? "application/octet-stream");
      const filename = typeof attrs.name === "string" && attrs.name ? { filename: attrs.name } : {};
      const data = text || String(attrs.url ?? "");
      // A picture that is in the answer is shown; one that is elsewhere would be loaded.
      if (text && mimeType.startsWith("image/")) {
        return [{ type: "image", id, image: `data:${mimeType};base64,${text}`, ...filename }];
      }
      return data ? [{ type: "file", id, data, mimeType, ...filename }] : [];
    }
    default:
      return [];
  }
}

function toolCall(part: PartState, name: Name, tool?: ToolState, result?: PartState): Part {
  const { attrs, text } = part;
  const args = attrs.arguments;
  const whole = args && typeof args === "object" && !Array.isArray(args);
  const told = tool?.done ? { content: tool.content } : result && { content: result.attrs.content };
  const failed = tool?.error !== undefined;
  return {
    type: "tool-call",
    toolCallId: name(String(attrs.call_id ?? `call-${part.part}`)),
    toolName: String(attrs.name ?? ""),
    argsText: text || (whole ? JSON.stringify(args) : ""),
    ...(whole ? { args: args as NonNullable<Args> } : {}),
    ...(told ? { result: told.content ?? null } : {}),
    ...(failed ? { isError: true } : {}),
    ...approval(name, tool),
    ...progress(tool),
  };
}

function approval(name: Name, tool?: ToolState) {
  if (!tool?.approval_id) return {};
  const id = name(tool.approval_id);
  const { approved, approval_reason: reason } = tool;
  const said = approved === undefined ? {} : { approved };
  const over = approved === undefined && tool.done ? { resolution: "expired" as const } : {};
  return { approval: { id, ...said, ...(reason ? { reason } : {}), ...over } };
}

/** How far a tool is, and what it wrote: `artifact` of its part. */
function progress(tool?: ToolState) {
  const { fraction, progress: message, output } = tool ?? {};
  if (fraction === undefined && !message && !output) return {};
  return { artifact: { fraction, message, output } };
}

function sources({ part, attrs }: PartState): Part[] {
  const citations = Array.isArray(attrs.citations) ? (attrs.citations as unknown[]) : [];
  return citations.flatMap((citation, at): Part[] => {
    const { url, title } = (citation ?? {}) as { url?: unknown; title?: unknown };
    if (typeof url !== "string" || !/^https?:\/\//i.test(url)) return [];
    const named = typeof title === "string" ? { title } : {};
    return [{ type: "source", sourceType: "url", id: `source-${part}-${at}`, url, ...named }];
  });
}
