/* A conversation that the server keeps, as it happens, as React state.

Always true: what is returned changes at most once per animation frame; a component that goes ends
its reading, and one that shows another conversation shows nothing of the one before. */

import { type TokenwireClient, TokenwireError } from "@tokenwire/client";
import {
  type InviteRequest,
  type MemberRole,
  Thread,
  type ThreadEvent,
  type ThreadStore,
  type ThreadView,
  type TurnRequest,
  UNREAD,
} from "@tokenwire/client/thread";
import { useEffect, useMemo, useRef, useSyncExternalStore } from "react";

export interface UseThreadOptions {
  /** With what its runs say, in `runs`: states as `useRun` has them. */
  runs?: boolean;
  /** Each event, at once. */
  onEvent?: (event: ThreadEvent) => void;
}

/** Typing is told this often. */
const TYPING_MS = 3000;
const unsubscribed = () => () => undefined;

/** Follows a conversation while the component is there. */
export function useThread(client: TokenwireClient, thread: string | undefined, options: UseThreadOptions = {}) {
  const { runs = false, onEvent } = options;
  const { store, failed, actions } = useMemo(() => bound(client, thread, runs), [client, thread, runs]);
  const hear = useRef(onEvent);
  useEffect(() => {
    hear.current = onEvent;
  });
  useEffect(() => {
    if (store) store.onEvent = (event) => hear.current?.(event);
  }, [store]);
  const read = store?.getSnapshot ?? (() => failed);
  const view = useSyncExternalStore(store?.subscribe ?? unsubscribed, read, read);
  return useMemo(() => ({ ...view, ...actions }), [view, actions]);
}

interface Bound {
  store?: ThreadStore;
  /** What is shown without a store. */
  failed: ThreadView;
  actions: ReturnType<typeof actionsOf>;
}

function bound(client: TokenwireClient, thread: string | undefined, runs: boolean): Bound {
  if (thread === undefined) return { failed: UNREAD, actions: actionsOf(client, nothing) };
  try {
    const one = new Thread(client, thread);
    const store = one.store({ runs });
    return { store, failed: UNREAD, actions: actionsOf(client, () => one, store) };
  } catch (error) {
    // What is no name of a conversation, in an address that somebody was sent.
    const failed: ThreadView = { ...UNREAD, status: "failed", error: error as TokenwireError };
    return { failed, actions: actionsOf(client, nothing) };
  }
}

function nothing(): never {
  throw new TokenwireError("bad_request", "no conversation is shown");
}

/** What a person does; each rejects with `TokenwireError`. */
function actionsOf(client: TokenwireClient, thread: () => Thread, store?: ThreadStore) {
  let typed = -Infinity;
  return {
    send: async (turn: string | TurnRequest) => thread().send(typeof turn === "string" ? { prompt: turn } : turn),
    /** Another question in the place of that of a turn that waits. */
    edit: async (turn: string, question: string | unknown[]) => thread().edit(turn, question),
    withdraw: async (turn: string) => thread().withdraw(turn),
    /** Stops the answer under way, and answers a turn that waits. */
    sendNow: async (turn: string) => thread().sendNow(turn),
    /** The branch that ends with this turn counts, on every device. */
    setHead: async (run: string) => thread().setHead(run),
    stop: async (run: string) => client.cancel(run),
    rename: async (title: string) => thread().rename(title),
    putMember: async (principal: string, role: MemberRole) => thread().members.put(principal, role),
    removeMember: async (principal: string) => thread().members.remove(principal),
    leave: async () => thread().members.leave(),
    invite: async (invite?: InviteRequest) => thread().members.invite(invite),
    /** Call it at each key: others hear that this person types. Fails silently. */
    type: () => {
      if (!store || performance.now() - typed < TYPING_MS) return;
      typed = performance.now();
      thread().typing().catch(() => undefined);
    },
    /** Reads again after `status` is `failed`. */
    retry: () => store?.retry(),
  };
}
