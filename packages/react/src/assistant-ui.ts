/* A runtime for assistant-ui on a conversation that the server keeps.

Always true: a message object changes only when its run does, and a part only when an event touched
it, so finished ones are not drawn again; every branch of the conversation is in the runtime's tree
(asking again makes a branch beside the answer, editing one beside the question); what a person does
is a command to the run or a new run, never a change of what was said. */

import {
  fromThreadMessageLike,
  useExternalStoreRuntime,
  type AppendMessage,
  type AssistantRuntime,
  type ExternalStoreAdapter,
  type ExternalStoreThreadListAdapter,
  type ThreadMessage,
} from "@assistant-ui/react";
import { finishReasonOf, randomId, stateOf, TokenwireError, usageOf } from "@tokenwire/client";
import type { RunView } from "@tokenwire/client";
import type { Conversation, Turn } from "@tokenwire/client/conversation";
import { readDataURL, unreadable } from "@tokenwire/client/history";
import { PageTools } from "@tokenwire/client/page-tools";
import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { PartCache } from "./assistant-parts.js";
import { useChat, useThreads, type UseChatOptions } from "./hooks.js";

type Adapters = NonNullable<ExternalStoreAdapter["adapters"]>;
type Repository = NonNullable<ExternalStoreAdapter["messageRepository"]>;
type Status = NonNullable<Extract<ThreadMessage, { role: "assistant" }>["status"]>;

export interface RuntimeOptions extends UseChatOptions {
  /** Told when the person opens another conversation of the list, or begins a new one. */
  onThread?: (thread: string) => void;
  /** assistant-ui's further adapters: attachments, speech, feedback, ... */
  adapters?: Omit<Adapters, "threadList">;
}

/** A runtime for `AssistantRuntimeProvider`. */
export function useTokenwireRuntime(options: RuntimeOptions): AssistantRuntime {
  const { client, adapters } = options;
  const [thread, open] = useThread(options);
  const list = useThreads(client);
  const chat = useChat({ ...options, thread });
  const { conversation } = chat;
  const tree = useMemo(() => new MessageTree(conversation), [conversation]);
  const messageRepository = useSyncExternalStore(tree.subscribe, tree.getSnapshot, tree.getSnapshot);
  const runtime = useRef<AssistantRuntime>(undefined);

  const ask = (message: AppendMessage, send: (prompt: string, more: object) => Turn) => {
    const { prompt, content } = questionOf(message);
    send(prompt, { ...(content ? { content } : {}), request: fromContext(runtime.current) });
    if (!options.thread) options.onThread?.(thread);
    void list.touch(thread, prompt);
  };
  const threadList: ExternalStoreThreadListAdapter = {
    threadId: thread,
    isLoading: list.loading,
    threads: list.threads.map((entry) => ({
      status: "regular",
      id: entry.thread,
      title: entry.title,
    })),
    onSwitchToNewThread: () => open(randomId()),
    onSwitchToThread: open,
    onRename: (id, title) => list.rename(id, title),
    onDelete: async (id) => {
      await list.remove(id);
      if (id === thread) open(randomId());
    },
  };
  runtime.current = useExternalStoreRuntime<ThreadMessage>({
    messageRepository,
    isLoading: chat.loading,
    isRunning: chat.status === "submitted" || chat.status === "streaming",
    adapters: { ...adapters, threadList },
    onNew: async (message) => ask(message, chat.send),
    onEdit: async (message) => ask(message, (prompt, more) => tree.edit(message, prompt, more)),
    onReload: async (question) => {
      chat.retry(tree.asked(question), { request: fromContext(runtime.current) });
    },
    onCancel: () => chat.stop().then(() => undefined),
    setMessages: (messages) => tree.show(messages),
    onDelete: () => {
      throw new TokenwireError("not_supported", "a single message cannot be deleted here");
    },
    onRespondToToolApproval: async ({ approvalId, approved, reason }) => {
      const answer = { approved, ...(reason ? { reason } : {}) };
      const [run, name] = tree.asker(approvalId);
      await client.approve(run, name, answer);
    },
    onAddToolResult: async ({ toolCallId, result, isError }) => {
      const content = isError ? { error: result } : result;
      const [run, name] = tree.asker(toolCallId);
      await client.answerTool(run, name, content);
    },
    unstable_enableToolInvocations: true,
    // A tool of the page runs when its run waits for it, and not before.
    unstable_isClientToolCall: ({ toolCallId }) => tree.waits(toolCallId) || undefined,
  });
  return runtime.current;
}

/** The thread that is shown: the caller's, until the person opens another. */
function useThread({ thread, onThread }: RuntimeOptions): [string, (thread: string) => void] {
  const [shown, setShown] = useState(() => thread ?? randomId());
  useEffect(() => {
    if (thread) setShown(thread);
  }, [thread]);
  const open = (next: string) => {
    setShown(next);
    onThread?.(next);
  };
  return [shown, open];
}

/** Tools that the page registered, and what it says about itself. */
function fromContext(runtime: AssistantRuntime | undefined): Record<string, unknown> {
  const { tools = {}, system } = runtime?.thread.getModelContext() ?? {};
  const mine = Object.entries(tools).filter(
    ([, tool]) => !tool.disabled && tool.type !== "backend" && tool.parameters !== undefined,
  );
  const told = PageTools.told(Object.fromEntries(mine));
  return { ...(told.length ? { tools: told } : {}), ...(system ? { system } : {}) };
}

/** A message of the composer as a question of ours. */
function questionOf(message: AppendMessage) {
  const parts = [...message.content, ...(message.attachments ?? []).flatMap((one) => one.content)];
  const prompt = parts.map((part) => (part.type === "text" ? part.text : "")).join("\n").trim();
  const files = parts.flatMap((part) => {
    if (part.type === "image") return [fileOf(part.image, "image/*", part.filename)];
    return part.type === "file" ? [fileOf(part.data, part.mimeType, part.filename)] : [];
  });
  const content = files.length ? [{ type: "text", text: prompt }, ...files] : undefined;
  return { prompt, content };
}

/** `data`: an address, a `data:` address, or base64. */
function fileOf(data: string, type: string, name?: string) {
  const inside = readDataURL(data);
  if (inside === null) return unreadable(name);
  const outside = /^[a-z][a-z0-9+.-]*:/i.test(data) ? { url: data } : { data };
  const where = inside ? { data: inside.data } : outside;
  return { type: "file", media_type: inside?.type ?? type, ...where, ...(name ? { name } : {}) };
}

/** A file of a question as a part of assistant-ui's message. */
function shownFile(part: Record<string, unknown>) {
  const { media_type, url, data, name } = part as Record<string, string | undefined>;
  const mimeType = media_type ?? "application/octet-stream";
  const filename = name ? { filename: name } : {};
  if (mimeType.startsWith("image/") && (data || url)) {
    const image = data ? `data:${mimeType};base64,${data}` : url!;
    return { type: "image" as const, image, ...filename };
  }
  return { type: "file" as const, data: data ?? url ?? "", mimeType, ...filename };
}

/** The turns of a conversation, all branches, as assistant-ui's tree of messages. */
class MessageTree {
  #messages = new WeakMap<Turn, { view: RunView; error: unknown; message: ThreadMessage }>();
  #questions = new WeakMap<Turn, { asked: string; message: ThreadMessage }>();
  #parts = new WeakMap<Turn, PartCache>();
  #last: { seen: unknown[]; repository: Repository } = { seen: [], repository: { messages: [] } };

  constructor(readonly conversation: Conversation) {}

  subscribe = (listener: () => void): (() => void) => {
    const stores = new Map<Turn, () => void>();
    const hear = () => {
      for (const turn of this.conversation.all()) {
        if (!stores.has(turn)) stores.set(turn, turn.store.subscribe(listener));
      }
      listener();
    };
    const forget = this.conversation.subscribe(hear);
    hear();
    return () => {
      forget();
      for (const stop of stores.values()) stop();
    };
  };

  getSnapshot = (): Repository => {
    const view = this.conversation.getSnapshot();
    const turns = this.conversation.all();
    const seen = [view, ...turns.flatMap((turn) => [turn, turn.store.getSnapshot()])];
    const { seen: before, repository } = this.#last;
    if (seen.length === before.length && seen.every((one, at) => one === before[at])) {
      return repository;
    }
    const messages: Repository["messages"] = [];
    const known = new Set<string>();
    for (const turn of turns) {
      const question = this.#question(turn);
      const parentId = turns.some(({ id }) => id === turn.parent) ? turn.parent : null;
      if (!known.has(question.id)) messages.push({ parentId, message: question });
      known.add(question.id);
      messages.push({ parentId: question.id, message: this.#answer(turn) });
    }
    const headId = view.turns[view.turns.length - 1]?.id ?? null;
    this.#last = { seen, repository: { headId, messages } };
    return this.#last.repository;
  };

  /** The turn whose answer stands under this question. */
  asked(question: string | null): Turn {
    const turns = this.conversation.getSnapshot().turns;
    const found = turns.find((turn) => this.#question(turn).id === question);
    if (!found) throw new TokenwireError("bad_request", "this question is not shown any more");
    return found;
  }

  edit({ sourceId, parentId }: AppendMessage, prompt: string, more: object): Turn {
    if (sourceId) return this.conversation.edit(this.asked(sourceId), prompt, more);
    const after = this.conversation.all().find(({ id }) => id === parentId);
    return this.conversation.send(prompt, { after, ...more });
  }

  /** Makes the branch of these messages the one that is shown. */
  show(messages: readonly ThreadMessage[]): void {
    const turns = this.conversation.all();
    for (const { id } of messages) {
      const turn = turns.find((one) => one.id === id);
      if (turn && !this.conversation.getSnapshot().turns.includes(turn)) {
        this.conversation.choose(turn);
      }
    }
  }

  /** The run that asked for an approval or the result of a call, and its own name for that. */
  asker(shown: string): [run: string, name: string] {
    const [turn, name] = this.#named(shown);
    if (!turn?.run) throw new TokenwireError("bad_request", "no run of this conversation asked for that");
    return [turn.run, name];
  }

  /** Whether the run waits for this. */
  waits(shown: string): boolean {
    const [turn, name] = this.#named(shown);
    return !!turn?.store.getSnapshot().state.waiting.includes(name);
  }

  /** Not every provider's ids are unique in a conversation, so what is shown names the turn too. */
  #named(shown: string): [turn: Turn | undefined, name: string] {
    const at = shown.indexOf("/");
    const turn = this.conversation.all().find(({ id }) => id === shown.slice(0, at));
    return [turn, shown.slice(at + 1)];
  }

  /** Turns that ask the same in the same place share their question: their answers are branches. */
  #question(turn: Turn): ThreadMessage {
    const asked = askedOf(turn);
    const first = this.conversation.versions(turn).find((one) => askedOf(one) === asked)!;
    const known = this.#questions.get(first);
    if (known?.asked === asked) return known.message;
    const files = (first.content ?? []).filter(({ type }) => type === "file").map(shownFile);
    const content = [{ type: "text" as const, text: first.prompt }, ...files];
    const createdAt = new Date(first.created * 1000);
    const like = { role: "user" as const, id: `question-${first.id}`, createdAt, content };
    const message = fromThreadMessageLike(like, like.id, { type: "complete", reason: "unknown" });
    this.#questions.set(first, { asked, message });
    return message;
  }

  #answer(turn: Turn): ThreadMessage {
    const view = turn.store.getSnapshot();
    const known = this.#messages.get(turn);
    if (known?.view === view && known.error === turn.error) return known.message;
    const parts = this.#parts.get(turn) ?? new PartCache((id) => `${turn.id}/${id}`);
    this.#parts.set(turn, parts);
    const { state } = view;
    const custom = { turn: turn.id, run: turn.run, model: turn.model, usage: usageOf(state) };
    const message = fromThreadMessageLike(
      {
        role: "assistant",
        id: turn.id,
        createdAt: new Date(turn.created * 1000),
        content: parts.of(state),
        status: statusOf(turn, view),
        metadata: { custom },
      },
      turn.id,
      { type: "running" },
    );
    this.#messages.set(turn, { view, error: turn.error, message });
    return message;
  }
}

const ASKED = new WeakMap<object, string>();

/** The question as one text, to compare. */
function askedOf({ prompt, content }: Turn): string {
  if (!content) return prompt;
  const known = ASKED.get(content) ?? JSON.stringify(content);
  ASKED.set(content, known);
  return known;
}

function statusOf(turn: Turn, { state, link, linkError }: RunView): Status {
  const failed = turn.error ?? (link === "failed" ? linkError : undefined);
  if (failed) return { type: "incomplete", reason: "error", error: failed.message };
  const how = stateOf(state);
  if (how === "running") return { type: "running" };
  if (how === "waiting") {
    const approval = [...state.tools.values()].some(
      (tool) => tool.approval_id && state.waiting.includes(tool.approval_id),
    );
    return { type: "requires-action", reason: approval ? "interrupt" : "tool-calls" };
  }
  if (how === "complete") return { type: "complete", reason: "stop" };
  if (how === "cancelled") return { type: "incomplete", reason: "cancelled" };
  if (how === "incomplete") {
    const why = finishReasonOf(state);
    const filtered = why === "content_filter" || why === "refusal";
    const reason = why === "length" ? "length" : filtered ? "content-filter" : "other";
    return { type: "incomplete", reason };
  }
  const error = state.error?.message ?? state.end_reason ?? `the answer was ${how}`;
  return { type: "incomplete", reason: "error", error };
}
