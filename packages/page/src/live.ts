/* What happens in a conversation, as it happens: one tab of several reads it, and tells the others.

Always true: an event is a hint to read again, so that one which is told twice, or is lost with its
tab, does no harm. */

import type { TokenwireClient } from "@tokenwire/client";
import { useCallback, useEffect, useRef, useState } from "react";

export interface ThreadEvent {
  type: string;
  by?: string | null;
  principals?: string[];
}

interface Told {
  op: string;
  events?: { event: ThreadEvent }[];
}

/** Until somebody who typed counts as having stopped. */
const TYPING_MS = 6000;
/** Typing is told this often. */
const TELL_MS = 3000;
/** The protocol's own pings cannot be seen from a script; these keep the line open. */
const PING_MS = 15_000;
const [FIRST_PAUSE, LONGEST_PAUSE] = [500, 15_000];

/** Reads what happens until `signal` says stop, over a WebSocket: it takes none of the few
 * connections that a browser has for requests. */
export async function followThread(
  client: Pick<TokenwireClient, "baseUrl">,
  thread: string,
  signal: AbortSignal,
  hear: (event: ThreadEvent) => void,
): Promise<void> {
  for (let pause = FIRST_PAUSE; !signal.aborted; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
    const told = await followOnce(client, thread, signal, hear);
    if (told) pause = FIRST_PAUSE;
    if (signal.aborted) return;
    // It may have ended because this person does not belong here any more.
    hear({ type: "ended" });
    await new Promise((done) => setTimeout(done, pause * (0.5 + Math.random() / 2)));
  }
}

/** One socket, until it closes; whether it told anything. */
function followOnce(
  client: Pick<TokenwireClient, "baseUrl">,
  thread: string,
  signal: AbortSignal,
  hear: (event: ThreadEvent) => void,
): Promise<boolean> {
  return new Promise((done) => {
    const socket = new WebSocket(`${(client.baseUrl || location.origin).replace(/^http/, "ws")}/ws`);
    let hasTold = false;
    const say = (message: object) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
    const ping = setInterval(() => say({ op: "ping" }), PING_MS);
    const leave = () => {
      clearInterval(ping);
      signal.removeEventListener("abort", leave);
      socket.onmessage = socket.onclose = null;
      socket.close();
      done(hasTold);
    };
    signal.addEventListener("abort", leave);
    socket.onopen = () => say({ op: "follow-thread", thread });
    socket.onclose = leave;
    socket.onerror = () => undefined; // a close follows
    socket.onmessage = ({ data }) => {
      const { op, events = [] } = JSON.parse(String(data)) as Told;
      hasTold ||= events.length > 0;
      for (const { event } of events) hear(event);
      if (op === "error" || op === "reconnect") leave();
    };
    if (signal.aborted) leave();
  });
}

/** The same in one tab for all that show the conversation. */
async function followShared(
  client: TokenwireClient,
  thread: string,
  signal: AbortSignal,
  hear: (event: ThreadEvent) => void,
): Promise<void> {
  const name = `tokenwire:feed:${client.baseUrl}:${thread}`;
  if (typeof BroadcastChannel !== "function" || !navigator.locks) return followThread(client, thread, signal, hear);
  const channel = new BroadcastChannel(name);
  channel.onmessage = ({ data }) => hear(data as ThreadEvent);
  signal.addEventListener("abort", () => channel.close());
  const both = (event: ThreadEvent) => {
    hear(event);
    if (!signal.aborted) channel.postMessage(event);
  };
  await navigator.locks.request(name, { signal }, () => followThread(client, thread, signal, both));
}

export interface Live {
  /** Who writes a question now, other than this person. */
  typing: string[];
  /** Who has the conversation open. */
  present: string[];
  /** This person writes. */
  tell(): void;
}

/** Follows a conversation that the server has, while it is shown. */
export function useLive(
  client: TokenwireClient,
  thread: string | undefined,
  hear: (event: ThreadEvent) => void,
): Live {
  const [typing, setTyping] = useState<Record<string, number>>({});
  const [present, setPresent] = useState<string[]>([]);
  const listener = useRef(hear);
  listener.current = hear;
  useEffect(() => {
    if (!thread) return undefined;
    const life = new AbortController();
    const take = (event: ThreadEvent) => {
      const { type, by } = event;
      if (type === "presence") setPresent(event.principals ?? []);
      else if (type === "typing" && by) setTyping((now) => ({ ...now, [by]: Date.now() }));
      else {
        // Who sent the question has written it.
        if (by) setTyping(({ [by]: _, ...rest }) => rest);
        listener.current(event);
      }
    };
    followShared(client, thread, life.signal, take).catch(() => undefined); // aborted while it waited
    return () => {
      life.abort();
      setTyping({});
      setPresent([]);
    };
  }, [client, thread]);
  useEffect(() => {
    if (!Object.keys(typing).length) return undefined;
    const timer = setTimeout(() => {
      const since = Date.now() - TYPING_MS;
      setTyping((now) => Object.fromEntries(Object.entries(now).filter(([, at]) => at > since)));
    }, TYPING_MS / 2);
    return () => clearTimeout(timer);
  }, [typing]);
  const told = useRef(0);
  const tell = useCallback(() => {
    if (!thread || Date.now() - told.current < TELL_MS) return;
    told.current = Date.now();
    client.json("POST", `/v1/threads/${encodeURIComponent(thread)}/typing`, {}).catch(() => undefined);
  }, [client, thread]);
  return { typing: Object.keys(typing), present, tell };
}
