/* Runs, chats and growing objects as React state.

Always true: what a hook returns changes at most once per animation frame, and parts that no event
touched are the same objects as before. */

import {
  finishReasonOf,
  RunStore,
  stateOf,
  textOf,
  TokenwireClient,
  type RunState,
  type RunView,
  type StartRequest,
  type TokenwireError,
} from "@tokenwire/client";
import { Conversation, isBusy, type Turn } from "@tokenwire/client/conversation";
import { PartialJSON } from "@tokenwire/client/partial-json";
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
}

/** A conversation: its turns, and what a person does with it. */
export function useChat(options: UseChatOptions) {
  const { client, thread, model, system, request } = options;
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
  }, [current, model, system, request]);
  useEffect(() => current.open(), [current]);
  const view = useSyncExternalStore(current.subscribe, current.getSnapshot, current.getSnapshot);
  const last = view.turns[view.turns.length - 1];
  const status = useTurnStatus(last);
  const actions = useMemo(
    () => ({
      send: (prompt: string) => current.send(prompt),
      stop: () => {
        const turns = current.getSnapshot().turns;
        const turn = turns[turns.length - 1];
        return turn ? current.stop(turn) : Promise.resolve();
      },
      retry: (turn: Turn) => current.retry(turn),
      regenerate: (turn: Turn) => current.retry(turn),
      edit: (turn: Turn, prompt: string) => current.edit(turn, prompt),
      versions: (turn: Turn) => current.versions(turn),
      choose: (turn: Turn) => current.choose(turn),
      refresh: () => current.refresh(),
      approve: (
        turn: Turn,
        approval: string,
        answer: { approved: boolean; reason?: string; arguments?: unknown },
      ) => client.approve(turn.run ?? "", approval, answer),
      answerTool: (turn: Turn, call: string, content: unknown) =>
        client.answerTool(turn.run ?? "", call, content),
    }),
    [current, client],
  );
  return { ...view, ...actions, status, conversation: current };
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
        const run = await client.start(asked, { signal: mine.signal });
        await next.follow(client, run.id, mine.signal);
      } catch (failed) {
        if (!mine.signal.aborted) setError(failed as TokenwireError);
      }
    },
    [client, schema, name, model],
  );
  const stop = useCallback(async () => {
    const { run } = store.getSnapshot().state;
    if (run) await client.stop(run);
  }, [client, store]);
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
    const value = now.json.value as T | undefined;
    // A new object each time, so that React sees that it grew.
    const object = value && typeof value === "object" && !Array.isArray(value) ? { ...value } : value;
    return { object, complete: now.json.complete && state.outcome === "complete" };
  }, [state]);
}
