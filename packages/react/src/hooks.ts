/* Runs, chats and growing objects as React state.

Always true: what a hook returns changes at most once per animation frame, and parts that no event
touched are the same objects as before. */

import {
  finishReasonOf,
  randomId,
  RunStore,
  stateOf,
  textOf,
  TokenwireClient,
  type RunState,
  type RunView,
  type StartRequest,
  TokenwireError,
} from "@tokenwire/client";
import {
  Conversation,
  isBusy,
  StoppableRun,
  type AskOptions,
  type ClientTool,
  type Turn,
  type WaitingQuestion,
} from "@tokenwire/client/conversation";
import { PartialJSON } from "@tokenwire/client/partial-json";
import type { WhileBusy } from "@tokenwire/client/thread";
import { Threads } from "@tokenwire/client/threads";
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";

/** The view of a store: subscribes, and unsubscribes with the component. */
export function useRunStore(store: RunStore): RunView {
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getSnapshot);
}

/** Follows a run by its id while the component is there. */
export function useRun(client: TokenwireClient, run: string | undefined): RunView {
  const store = useMemo(() => new RunStore(), [client, run]);
  useEffect(() => {
    if (!run) return undefined;
    const life = new AbortController();
    void store.follow(client, run, life.signal);
    return () => life.abort();
  }, [client, run, store]);
  return useRunStore(store);
}

export type ChatStatus = "ready" | "submitted" | "streaming" | "waiting" | "error";

export interface UseChatOptions {
  client: TokenwireClient;
  /** The conversation's id: the same id shows the same conversation after a reload. */
  thread?: string;
  model?: string;
  system?: string;
  request?: Record<string, unknown>;
  /** What a question does while another one is answered: `queue`, `reject`, `interrupt`, `steer` or
   * `parallel`; the server's rule, unless told. */
  whileBusy?: WhileBusy;
  /** A question that cannot be sent is held until the server can be reached (`turn.isUnsent`); it
   * fails after a few tries, unless told. */
  holdsUnsent?: boolean;
  /** Tools that this page runs when the model calls them. */
  tools?: Record<string, ClientTool>;
}

/** One side of a turn. What an answer holds is in its store: `<Message>` and `useRunStore` follow
 * it without drawing the whole conversation again. */
export type ChatMessage =
  | { id: string; role: "user"; text: string; turn: Turn }
  | { id: string; role: "assistant"; store: RunStore; turn: Turn };

/** A tool call that a person has to allow. */
export interface PendingApproval {
  turn: Turn;
  approval_id: string;
  call_id: string;
  name: string;
  arguments: unknown;
  reason?: string;
}

/** A conversation: its turns, and what a person does with it. */
export function useChat(options: UseChatOptions) {
  const { client, thread, model, system, request, tools, whileBusy, holdsUnsent } = options;
  const [conversation, setConversation] = useState(() => new Conversation(client, options));
  // Another id is another conversation; giving an id to a fresh one changes nothing.
  const wanted = thread ?? conversation.thread;
  let current = conversation;
  if (wanted !== conversation.thread || client !== conversation.client) {
    current = new Conversation(client, options);
    setConversation(current);
  }
  useEffect(() => {
    current.model = model;
    current.options.system = system;
    current.options.request = request;
    current.options.tools = tools;
    current.options.whileBusy = whileBusy;
    current.options.holdsUnsent = holdsUnsent;
  }, [current, model, system, request, tools, whileBusy, holdsUnsent]);
  useEffect(() => current.open(), [current]);
  const view = useSyncExternalStore(current.subscribe, current.getSnapshot, current.getSnapshot);
  // A question that failed stands after the answer that is still written.
  const last = view.turns.findLast(isBusy) ?? view.turns[view.turns.length - 1];
  const status = useTurnStatus(last);
  const approvals = useApprovals(last);
  const messages = useMemo(() => messagesOf(view.turns), [view.turns]);
  const actions = useMemo(
    () => ({
      send: (prompt: string, more?: AskOptions) => current.send(prompt, more),
      stop: () => {
        const turns = current.getSnapshot().turns;
        const turn = turns.findLast(isBusy) ?? turns[turns.length - 1];
        return turn ? current.stop(turn) : Promise.resolve();
      },
      retry: (turn: Turn, more?: Pick<AskOptions, "request">) => current.retry(turn, more),
      regenerate: (turn: Turn, more?: Pick<AskOptions, "request">) => current.retry(turn, more),
      edit: (turn: Turn, prompt: string, more?: Omit<AskOptions, "after">) =>
        current.edit(turn, prompt, more),
      versions: (turn: Turn) => current.versions(turn),
      choose: (turn: Turn) => current.choose(turn),
      /** All that a turn asks that waits; its `text` is the beginning. */
      waitingQuestion: (waiting: WaitingQuestion) => current.waitingQuestion(waiting),
      editWaiting: (waiting: WaitingQuestion, prompt: string, content?: Record<string, unknown>[]) =>
        current.editWaiting(waiting, prompt, content),
      withdraw: (waiting: WaitingQuestion) => current.withdraw(waiting),
      /** Stops the answer under way, and answers a turn that waits. */
      sendNow: (waiting: WaitingQuestion) => current.sendNow(waiting),
      refresh: () => current.refresh(),
      /** Reads the turns before those that are shown, while `earlier` says that there are some. */
      loadEarlier: () => current.loadEarlier(),
      approve: async (
        turn: Turn,
        approval: string,
        answer: { approved: boolean; reason?: string; arguments?: unknown },
      ) => client.approve(turn.run ?? "", approval, answer),
      answerTool: async (turn: Turn, call: string, content: unknown) =>
        client.answerTool(turn.run ?? "", call, content),
    }),
    [current, client],
  );
  const error = view.error ?? (status === "error" ? failureOf(last) : undefined);
  const busy = status === "submitted" || status === "streaming" || status === "waiting";
  const { error: _, ...shown } = view;
  return {
    ...shown,
    ...actions,
    ...(error ? { error } : {}),
    messages,
    approvals,
    status,
    /** Whether an answer is written or waited for; a further question may be sent when not, also
     * after an error. */
    busy,
    conversation: current,
  };
}

/** Why the turn has no whole answer: it was not started, cannot be read, or failed. */
function failureOf(turn: Turn | undefined): TokenwireError | undefined {
  if (!turn) return undefined;
  const { state, link, linkError } = turn.store.getSnapshot();
  if (turn.error) return turn.error;
  if (link === "failed") return linkError;
  const { code = stateOf(state), message = `the answer was ${stateOf(state)}` } = state.error ?? {};
  return new TokenwireError(code, message);
}

const MESSAGES = new WeakMap<Turn, ChatMessage[]>();

/** The same objects for a turn, until its question is another. */
function messagesOf(turns: Turn[]): ChatMessage[] {
  return turns.flatMap((turn) => {
    const known = MESSAGES.get(turn);
    if (known?.[0]?.role === "user" && known[0].text === turn.prompt) return known;
    const made: ChatMessage[] = [
      { id: `question-${turn.id}`, role: "user", text: turn.prompt, turn },
      { id: turn.id, role: "assistant", store: turn.store, turn },
    ];
    MESSAGES.set(turn, made);
    return made;
  });
}

/** What a turn waits for a person to allow; the same array until that changes. */
export function useApprovals(turn: Turn | undefined): PendingApproval[] {
  const store = turn?.store ?? NOTHING;
  const last = useRef<PendingApproval[]>([]);
  const read = () => {
    const { tools, waiting } = store.getSnapshot().state;
    const asked = turn ? [...tools.values()].filter((t) => waiting.includes(t.approval_id ?? "")) : [];
    const same = asked.length === last.current.length &&
      asked.every((tool, at) => tool.approval_id === last.current[at]!.approval_id);
    if (!same || (turn && last.current.some((one) => one.turn !== turn))) {
      last.current = asked.map((tool) => ({
        turn: turn!,
        approval_id: tool.approval_id!,
        call_id: tool.call_id,
        name: tool.name,
        arguments: tool.approval_arguments,
        ...(tool.approval_reason ? { reason: tool.approval_reason } : {}),
      }));
    }
    return last.current;
  };
  return useSyncExternalStore(store.subscribe, read, read);
}

/** The conversations that the server keeps, newest first, and what a person does with them. */
export function useThreads(client: TokenwireClient) {
  const threads = useMemo(() => new Threads(client), [client]);
  useEffect(() => {
    const life = new AbortController();
    void threads.refresh();
    void threads.follow(life.signal);
    return () => life.abort();
  }, [threads]);
  const view = useSyncExternalStore(threads.subscribe, threads.getSnapshot, threads.getSnapshot);
  const actions = useMemo(
    () => ({
      refresh: () => threads.refresh(),
      rename: (thread: string, title: string) => threads.rename(thread, title),
      remove: (thread: string) => threads.remove(thread),
      touch: (thread: string, question: string) => threads.touch(thread, question),
    }),
    [threads],
  );
  return { ...view, ...actions };
}

const NOTHING = new RunStore();

/** One word for what a turn is doing; changes only when the word does. */
export function useTurnStatus(turn: Turn | undefined): ChatStatus {
  const store = turn?.store ?? NOTHING;
  const read = () => statusOf(turn);
  return useSyncExternalStore(store.subscribe, read, read);
}

function statusOf(turn: Turn | undefined): ChatStatus {
  if (!turn) return "ready";
  const { state, link } = turn.store.getSnapshot();
  if (turn.error || link === "failed" || ["error", "interrupted"].includes(stateOf(state))) {
    return "error";
  }
  if (!isBusy(turn)) return "ready";
  if (stateOf(state) === "waiting") return "waiting";
  return state.steps.some(({ parts }) => parts.length) ? "streaming" : "submitted";
}

export interface UseObjectOptions {
  client: TokenwireClient;
  /** JSON Schema of the object. */
  schema: Record<string, unknown>;
  name?: string;
  model?: string;
}

/** Structured output while it is being written: `object` grows until `complete`. */
export function useObject<T = unknown>({ client, schema, name, model }: UseObjectOptions) {
  const [store, setStore] = useState(() => new RunStore());
  const [error, setError] = useState<TokenwireError>();
  const life = useRef<AbortController>(undefined);
  const current = useRef<StoppableRun>(undefined);
  const view = useRunStore(store);
  const partial = useGrowingJSON<T>(view.state);
  useEffect(() => () => life.current?.abort(), []);
  const submit = useCallback(
    async (prompt: string, more: Partial<StartRequest> = {}) => {
      life.current?.abort();
      const mine = (life.current = new AbortController());
      const next = new RunStore();
      setStore(next);
      setError(undefined);
      try {
        const output = { schema, ...(name ? { name } : {}) };
        const asked = { prompt, output, ...(model ? { model } : {}), ...more };
        const key = randomId();
        const started = new StoppableRun(client, {
          start: async (giveUp) => (await client.start(asked, { signal: mine.signal, giveUp, key })).id,
          // The same key finds the run that the lost answer told of.
          find: async () => (await client.start(asked, { key })).id,
        });
        current.current = started;
        await next.follow(client, await started.started, mine.signal);
      } catch (failed) {
        if (!mine.signal.aborted) setError(failed as TokenwireError);
      }
    },
    [client, schema, name, model],
  );
  const stop = useCallback(async () => {
    try {
      await current.current?.stop();
    } catch (failed) {
      setError(failed as TokenwireError);
    }
  }, []);
  const finished = finishReasonOf(view.state);
  return { ...partial, run: view.state, submit, stop, error, finishReason: finished };
}

/** The JSON in a run's text, read once per character. */
function useGrowingJSON<T>(state: RunState): { object: T | undefined; complete: boolean } {
  const reader = useRef({ run: "", taken: 0, json: new PartialJSON() });
  return useMemo(() => {
    const text = textOf(state);
    const at = reader.current;
    if (at.run !== state.run || text.length < at.taken) {
      reader.current = { run: state.run, taken: 0, json: new PartialJSON() };
    }
    const now = reader.current;
    now.json.feed(text.slice(now.taken));
    now.taken = text.length;
    const object = now.json.snapshot() as T | undefined;
    return { object, complete: now.json.complete && state.outcome === "complete" };
  }, [state]);
}
