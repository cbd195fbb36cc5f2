/* HTTP: one request, and the ways of reading a run over it: its event stream, and long polling for
proxies that hold streams back.

Always true: the credential goes only to `baseUrl` (redirects are errors). */

import { asError, errorOf, TokenwireError } from "./errors.js";
import type { Connect } from "./reader.js";
import { SSEParser, type SSELimits } from "./sse.js";
import { backoff, bytesOf, pause } from "./wait.js";

export type Token = (refused?: string) => string | undefined | Promise<string | undefined>;

export interface ServerOptions {
  /** Where the server is; the page's own origin unless told. */
  baseUrl?: string;
  /** A key or token, asked for before each request; and once more, with the one that the server
   * refused, when it answers 401: return a fresh one. */
  token?: Token;
  /** More headers of each request, as they are at its moment: `tokenwire-reader`, so that nothing goes
   * out as somebody else (412, `other_reader`), a token of the application against forgery, ... A
   * WebSocket has none. */
  headers?: () => Record<string, string>;
  fetch?: typeof fetch;
  credentials?: RequestCredentials;
}

/** The response; rejects with what the server said when it is an error. */
export async function request(
  options: ServerOptions,
  path: string,
  init: RequestInit,
): Promise<Response> {
  const { baseUrl = "", token, credentials = "same-origin" } = options;
  if (!baseUrl && !options.fetch && !globalThis.location) {
    throw new TokenwireError("no_base_url", "outside a browser give baseUrl", 400);
  }
  const headers = new Headers({ ...options.headers?.(), ...init.headers });
  const call = options.fetch ?? fetch;
  const fixed = { credentials, cache: "no-store", redirect: "error", headers } as const;
  return fresh(token, async (key) => {
    if (key) headers.set("authorization", `Bearer ${key}`);
    const response = await call(withoutSlash(baseUrl) + path, { ...init, ...fixed });
    if (!response.ok) throw await errorOf(response);
    return response;
  });
}

/** Calls `use` with a token, and once more with a fresh one when the server refuses the first. */
export async function fresh<T>(token: Token | undefined, use: (key?: string) => Promise<T>): Promise<T> {
  const key = await token?.();
  try {
    return await use(key);
  } catch (error) {
    const other = (error as TokenwireError).status === 401 && (await token?.(key));
    if (!other || other === key) throw error;
    return use(other);
  }
}

/** A request is sent this often when no answer comes. */
const TRIES = 4;

/** Sends what may be sent again until there is an answer, also one that is an error. */
export async function again<T>(ask: () => Promise<T>, signal?: AbortSignal | null): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      if (asError(error).status || tries + 1 >= TRIES) throw error;
      await pause(backoff(tries), signal);
      if (signal?.aborted) throw error;
    }
  }
}

export function withoutSlash(url: string): string {
  let end = url.length;
  while (url[end - 1] === "/") end--;
  return url.slice(0, end);
}

/** A request of the client; rejects with the error that a response tells. */
type Get = (path: string, init: RequestInit) => Promise<Response>;

interface Page {
  events: { cursor: string; event: unknown }[];
  next: string;
  closed: boolean;
}

export function streamWay(path: string, get: Get, limits?: SSELimits): Connect {
  return async ({ after, signal, alive, take, flush, over }) => {
    const headers: Record<string, string> = { accept: "text/event-stream" };
    if (after) headers["last-event-id"] = after;
    const response = await get(path, { headers, signal });
    if (response.status === 204 && after) return over();
    const type = response.headers.get("content-type") ?? "";
    if (!response.body || !type.startsWith("text/event-stream")) {
      response.body?.cancel().catch(() => undefined);
      throw new TokenwireError("no_stream", `no event stream: ${type}`, 0, true);
    }
    const parser = new SSEParser(limits);
    for await (const bytes of bytesOf(response.body, signal)) {
      alive(); // not before: a proxy that holds a stream back passes its headers on
      for (const frame of parser.feed(bytes)) take(frame.id, frame.data);
      flush();
    }
  };
}

export function pollWay(path: string, get: Get): Connect {
  return async ({ after, signal, alive, take, flush, over }) => {
    for (;;) {
      const query = new URLSearchParams({ live: "long-poll", ...(after ? { after } : {}) });
      const response = await get(`${path}?${query}`, { signal });
      const page = (await response.json()) as Page;
      alive();
      for (const { cursor, event } of page.events) take(cursor, JSON.stringify(event));
      flush();
      if (page.closed) return over();
      after = page.next;
    }
  };
}
