/* What waits for this person's decision, in all conversations. */

import type { TokenwireClient, TokenwireError } from "@tokenwire/client";
import { useCallback, useEffect, useRef, useState, type ReactNode } from "react";
import { plainWords } from "../conversation/words.js";
import { revealed } from "../hidden.js";

export interface WaitingCall {
  run: string;
  approval: string;
  tool: string;
  arguments?: unknown;
  thread?: string;
  reason?: string;
  /** Unix seconds. */
  since: number;
}

export interface Inbox {
  calls: WaitingCall[];
  refresh(): void;
  /** Rejects with the server's reason. */
  decide(call: WaitingCall, approved: boolean): Promise<void>;
}

/** How often it is read while the page is shown. */
const LOOK_MS = 15_000;
const LONGEST = 300;

/** What waits; nothing is read before `isReady`. */
export function useInbox(client: TokenwireClient, isReady: boolean): Inbox {
  const [calls, setCalls] = useState<WaitingCall[]>([]);
  const newest = useRef(0);
  const refresh = useCallback(() => {
    const number = ++newest.current;
    client.json("GET", "/v1/waiting").then(
      (page) => {
        if (number === newest.current) setCalls((page as { waiting: WaitingCall[] }).waiting);
      },
      () => undefined, // what is shown stays until it can be read
    );
  }, [client]);
  useEffect(() => {
    if (!isReady) return undefined;
    const look = () => {
      if (!document.hidden) refresh();
    };
    look();
    const timer = setInterval(look, LOOK_MS);
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [isReady, refresh]);
  const decide = useCallback(
    async ({ run, approval }: WaitingCall, approved: boolean) => {
      try {
        await client.approve(run, approval, { approved });
        setCalls((now) => now.filter((call) => call.run !== run || call.approval !== approval));
      } finally {
        refresh();
      }
    },
    [client, refresh],
  );
  return { calls, refresh, decide };
}

export function InboxView(props: {
  inbox: Inbox;
  /** The conversation that is shown: its calls are in it. */
  current: string;
  /** The title of a conversation. */
  titleOf(thread: string): string;
  onOpen(thread: string): void;
}): ReactNode {
  const { inbox, current, titleOf, onOpen } = props;
  const calls = inbox.calls.filter(({ thread }) => thread !== current);
  if (!calls.length) return null;
  return (
    <section className="inbox" aria-label="Waits for you">
      <h2>Waits for you</h2>
      <ul>
        {calls.map((call) => (
          <Call key={`${call.run}/${call.approval}`} call={call} inbox={inbox} titleOf={titleOf} onOpen={onOpen} />
        ))}
      </ul>
    </section>
  );
}

function Call(props: { call: WaitingCall; inbox: Inbox; titleOf(thread: string): string; onOpen(thread: string): void }): ReactNode {
  const { call, inbox, titleOf, onOpen } = props;
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const { thread } = call;
  const written = call.arguments === undefined ? "" : JSON.stringify(call.arguments);
  const decide = (approved: boolean) => {
    setBusy(true);
    setProblem("");
    inbox.decide(call, approved).catch((error: TokenwireError) => {
      setBusy(false);
      setProblem(error.code === "conflict" ? "Somebody has decided already." : plainWords(error));
    });
  };
  return (
    <li>
      <strong>{revealed(call.tool)}</strong>
      {written && <code>{revealed(written.length > LONGEST ? `${written.slice(0, LONGEST)}…` : written)}</code>}
      {thread && (
        <button type="button" className="quiet in" onClick={() => onOpen(thread)}>
          in <bdi>{titleOf(thread)}</bdi>
        </button>
      )}
      <span className="buttons">
        <button type="button" disabled={isBusy} aria-label={`Deny ${call.tool}`} onClick={() => decide(false)}>
          Deny
        </button>
        <button type="button" className="primary" disabled={isBusy} aria-label={`Allow ${call.tool}`} onClick={() => decide(true)}>
          Allow
        </button>
      </span>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </li>
  );
}
