/* Reading a run or a conversation over the server's WebSocket: for when event streams do not get through, or the
browser's connections to this host are used up. */

import { asError, TokenwireError } from "./errors.js";
import { fresh, type Token } from "./http.js";
import type { Connect } from "./reader.js";
import { onAbort } from "./wait.js";

interface Told {
  op: string;
  events?: { cursor: string; event: unknown }[];
  error?: { code?: string; message?: string; status?: number };
  [field: string]: unknown;
}

/** The protocol's own pings cannot be seen from a script; these show that the peer lives. */
const PING_MS = 15000;
const STATUS: Record<string, number> = {
  bad_request: 400,
  not_authenticated: 401,
  forbidden: 403,
  unknown_run: 404,
  not_found: 404,
  gone: 410,
};

export function webSocketWay(
  baseUrl: string,
  follow: object,
  token?: Token,
): Connect {
  return ({ after, signal, alive, take, flush, over }) => fresh(token, async (key) => {
    // Where there is neither an address nor a WebSocket this throws: then another way is tried.
    const socket = new WebSocket(`${(baseUrl || location.origin).replace(/^http/, "ws")}/ws`);
    const say = (message: object) => socket.send(JSON.stringify(message));
    let failed: TokenwireError | undefined;
    let closed!: () => void;
    const gone = new Promise<void>((resolve) => (closed = resolve));
    /** Closes, and does not wait for the farewell of a peer that may be dead. */
    const leave = () => {
      socket.onmessage = null;
      socket.close();
      closed();
    };
    const hear = (told: Told) => {
      for (const { cursor, event } of told.events ?? []) take(cursor, JSON.stringify(event));
      if (told.op === "reconnect") take("", JSON.stringify({ ...told, type: told.op }));
      flush();
      if (told.op === "end") over();
      else if (told.op === "error") {
        const { code = "error", message = "the socket failed", status = STATUS[code] } = told.error ?? {};
        failed = new TokenwireError(code, message, status);
      } else return;
      leave();
    };
    const ping = setInterval(() => socket.readyState === 1 && say({ op: "ping" }), PING_MS);
    socket.onopen = () => {
      if (key) say({ op: "auth", key });
      say({ ...follow, after: after || undefined });
    };
    socket.onmessage = ({ data }) => {
      alive();
      try {
        hear(JSON.parse(String(data)) as Told);
      } catch (error) {
        failed = asError(error);
        leave();
      }
    };
    socket.onclose = closed;
    socket.onerror = () => undefined; // a close follows
    const forget = onAbort(signal, leave);
    await gone;
    clearInterval(ping);
    forget();
    if (failed) throw failed;
  });
}
