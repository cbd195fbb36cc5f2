/* What happens in a conversation, as it happens: one tab of several reads it, and tells the others.

Always true: an event is a hint to read again, so that one which is told twice, or is lost with its
tab, does no harm; a conversation counts as live only while something was heard of it lately, and
whoever looks by a clock instead looks again when it does not. */

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
/** The protocol's own pings cannot be seen from a script; of these one without an answer shows that
 * the line is dead. */
const PING_MS = 15_000;
/** A line that was quiet for so long is not trusted when the network or the person is back. */
const STALE_MS = 5000;
/** Silence after which a conversation is not live, whoever was to tell of it. */
const SILENCE_MS = 40_000;
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
    await new Promise<void>((done) => {
      const wake = () => {
        clearTimeout(timer);
        forget();
        done();
      };
      const timer = setTimeout(wake, pause * (0.5 + Math.random() / 2));
      const forget = onReturn(wake);
    });
  }
}

/** One socket, until it closes or is dead; whether it told anything. */
function followOnce(
  client: Pick<TokenwireClient, "baseUrl">,
  thread: string,
  signal: AbortSignal,
  hear: (event: ThreadEvent) => void,
): Promise<boolean> {
  return new Promise((done) => {
    const socket = new WebSocket(`${(client.baseUrl || location.origin).replace(/^http/, "ws")}/ws`);
    let hasTold = false;
    let heard = performance.now();
    let asked = 0;
    const say = (message: object) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
    const ping = setInterval(() => {
      // Nothing since the last ping: the timers of a hidden page are slow, so that none is too early.
      if (asked > heard) return leave();
      asked = performance.now();
      say({ op: "ping" });
    }, PING_MS);
    const leave = () => {
      clearInterval(ping);
      forget();
      signal.removeEventListener("abort", leave);
      socket.onmessage = socket.onclose = null;
      socket.close();
      done(hasTold);
    };
    const forget = onReturn(() => performance.now() - heard > STALE_MS && leave());
    signal.addEventListener("abort", leave);
    socket.onopen = () => say({ op: "follow-thread", thread });
    socket.onclose = leave;
    socket.onerror = () => undefined; // a close follows
    socket.onmessage = ({ data }) => {
      const { op, events = [] } = JSON.parse(String(data)) as Told;
      heard = performance.now();
      hasTold ||= events.length > 0;
      for (const { event } of events) hear(event);
      if (op === "pong") hear({ type: "alive" });
      if (op === "error" || op === "reconnect") leave();
    };
    if (signal.aborted) leave();
  });
}

/** Calls `back` when trying at once makes sense; returns what forgets it. */
function onReturn(back: () => void): () => void {
  const seen = () => document.hidden || back();
  addEventListener("online", back);
  document.addEventListener("visibilitychange", seen);
  return () => {
    removeEventListener("online", back);
    document.removeEventListener("visibilitychange", seen);
  };
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
  signal.addEventListener("abort", () => channel.close());
  /** What a tab that comes later is told, once this one leads and has heard something. */
  const known = new Map<string, ThreadEvent>();
  channel.onmessage = ({ data }) => {
    const event = data as ThreadEvent;
    if (event.type !== "hello") hear(event);
    else for (const one of known.values()) channel.postMessage(one);
  };
  const both = (event: ThreadEvent) => {
    if (event.type === "ended") known.clear();
    else known.set("alive", { type: "alive" });
    if (event.type === "presence") known.set("presence", event);
    hear(event);
    if (!signal.aborted) channel.postMessage(event);
  };
  channel.postMessage({ type: "hello" });
  await navigator.locks.request(name, { signal }, () => followThread(client, thread, signal, both));
}

export interface Live {
  /** Who writes a question now, other than this person. */
  typing: string[];
  /** Who has the conversation open. */
  present: string[];
  /** Whether what happens is heard of at once; else somebody has to look. */
  isLive: boolean;
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
  const [isLive, setLive] = useState(false);
  const listener = useRef(hear);
  listener.current = hear;
  useEffect(() => {
    if (!thread) return undefined;
    const life = new AbortController();
    let silence: ReturnType<typeof setTimeout> | undefined;
    let isHeard = false;
    const setHeard = (heard: boolean) => {
      clearTimeout(silence);
      if (heard) silence = setTimeout(() => setHeard(false), SILENCE_MS);
      // Of what happened before nobody has told.
      if (heard !== isHeard) listener.current({ type: heard ? "live" : "ended" });
      isHeard = heard;
      setLive(heard);
    };
    const take = (event: ThreadEvent) => {
      const { type, by } = event;
      setHeard(type !== "ended");
      if (type === "presence") setPresent(event.principals ?? []);
      else if (type === "typing" && by) setTyping((now) => ({ ...now, [by]: Date.now() }));
      else if (type !== "alive" && type !== "ended") {
        // Who sent the question has written it.
        if (by) setTyping(({ [by]: _, ...rest }) => rest);
        listener.current(event);
      }
    };
    followShared(client, thread, life.signal, take).catch(() => undefined); // aborted while it waited
    return () => {
      life.abort();
      clearTimeout(silence);
      setTyping({});
      setPresent([]);
      setLive(false);
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
  return { typing: Object.keys(typing), present, isLive, tell };
}
