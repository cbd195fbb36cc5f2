/* The server's API: start, follow, stop, approve, answer.

Always true: ids are checked before they become part of a URL. */

import { asError, TokenwireError } from "./errors.js";
import { again, pollWay, request, type ServerOptions, streamWay, withoutSlash } from "./http.js";
import { follow, type FollowOptions } from "./reader.js";
import type { SSELimits } from "./sse.js";
import { followShared } from "./tabs.js";
import { webSocketWay } from "./websocket.js";

export interface ClientOptions extends ServerOptions {
  /** One connection for all tabs of this origin that read the same run. Default: where the
   * browser can. */
  shareTabs?: boolean;
  /** Bounds of what the parser of event streams keeps. */
  limits?: SSELimits;
}

/** What a run is started with: `prompt`, or `messages`, and the server's other fields. */
export interface StartRequest {
  prompt?: string;
  messages?: unknown[];
  model?: string;
  system?: string;
  thread?: string;
  metadata?: Record<string, unknown>;
  [field: string]: unknown;
}

export interface StartOptions {
  /** Ends the request. */
  signal?: AbortSignal;
  /** Ends further tries of it only, so that a run that was started is not lost sight of. */
  giveUp?: AbortSignal;
  key?: string;
}

export interface RunInfo {
  id: string;
  state: string;
  model?: string;
  thread?: string;
  [field: string]: unknown;
}

export interface ThreadInfo {
  thread: string;
  title?: string;
  /** The run that is under way. */
  active?: string | null;
  runs: RunInfo[];
  /** Pass as `before` for the older runs, where there are any. */
  next?: string;
}

export interface PageOptions {
  signal?: AbortSignal | undefined;
  /** Only runs that are older than this one. */
  before?: string | undefined;
}

const RUN_ID = /^[A-Za-z0-9_-]{16,64}$/;
// A name that a browser would take for a step in a path (`..`) is no id.
const THREAD_ID = /^(?!\.\.?$)[A-Za-z0-9_.:@-]{1,128}$/;
const CALL_ID = /^(?!\.\.?$)[^/\\?#\s]{1,200}$/;

export class TokenwireClient {
  readonly baseUrl: string;

  constructor(readonly options: ClientOptions = {}) {
    this.baseUrl = withoutSlash(options.baseUrl ?? "");
  }

  /** Starts a run. Sent again with the same key when the network fails, so it is paid once. */
  start(asked: StartRequest, options: StartOptions = {}): Promise<RunInfo> {
    const { signal, giveUp = signal, key = randomId() } = options;
    return again(
      () =>
        this.json("POST", "/v1/runs", asked, signal, { "idempotency-key": key }) as Promise<RunInfo>,
      giveUp,
    );
  }

  /** Reads a run to its end; see `FollowOptions`. */
  follow(run: string, options: FollowOptions): Promise<void> {
    const path = `${runPath(run)}/events`;
    const stream = streamWay(path, this.#fetch, this.options.limits);
    const socket = webSocketWay(this.baseUrl, { op: "follow", run }, this.options.token);
    const poll = pollWay(path, this.#fetch);
    const direct = (inner: FollowOptions, socketFirst?: boolean) =>
      follow(socketFirst ? [socket, poll] : [stream, socket, poll], inner);
    if (this.options.shareTabs === false) return direct(options);
    return followShared(`tokenwire:${this.baseUrl}:${run}`, direct, options);
  }

  /** The description of a run: state, model, thread, tail. */
  info(run: string, signal?: AbortSignal): Promise<RunInfo> {
    return this.#get(`${runPath(run)}/info`, signal) as Promise<RunInfo>;
  }

  /** The state of a run and its message so far. */
  snapshot(run: string, signal?: AbortSignal): Promise<RunInfo> {
    return this.#get(runPath(run), signal) as Promise<RunInfo>;
  }

  /** A conversation's runs, newest first: the newest hundred, or the page before another. */
  thread(thread: string, options: PageOptions = {}): Promise<ThreadInfo> {
    const { signal, before } = options;
    const path = threadPath(thread) + (before ? `?before=${runId(before)}` : "");
    return this.#get(path, signal) as Promise<ThreadInfo>;
  }

  /** Ends a run; its readers see it end as `cancelled`. */
  cancel(run: string, reason?: string): Promise<unknown> {
    return this.#command(`${runPath(run)}/cancel`, reason ? { reason } : {});
  }

  /** Cancels a run and deletes its log. */
  delete(run: string): Promise<unknown> {
    return this.#command(runPath(run), undefined, "DELETE", 404);
  }

  approve(
    run: string,
    approval: string,
    answer: { approved: boolean; reason?: string; arguments?: unknown },
  ): Promise<unknown> {
    const path = `${runPath(run)}/approvals/${partOfPath(approval)}`;
    return this.#command(path, answer);
  }

  answerTool(run: string, call: string, content: unknown): Promise<unknown> {
    return this.#command(`${runPath(run)}/tools/${partOfPath(call)}`, { content });
  }

  #get(path: string, signal?: AbortSignal): Promise<unknown> {
    return again(() => this.json("GET", path, undefined, signal), signal);
  }

  /** The first command wins: one that is refused as `done` after its reply was lost may be it. With
   * a reason it is not: the run ended, or nobody decided in time, ... */
  #command(path: string, body?: object, method = "POST", done = 409): Promise<unknown> {
    let lost = false;
    return again(async () => {
      try {
        return await this.json(method, path, body);
      } catch (error) {
        const { status, reason } = asError(error);
        if (lost && status === done && !reason) return null;
        lost = true;
        throw error;
      }
    });
  }

  /** One JSON request; rejects with what the server said. */
  async json(
    method: string,
    path: string,
    body?: unknown,
    signal: AbortSignal | null = null,
    headers: Record<string, string> = {},
  ): Promise<unknown> {
    const response = await this.#fetch(path, {
      method,
      signal,
      headers:
        body === undefined ? headers : { ...headers, "content-type": "application/json" },
      body: JSON.stringify(body) ?? null, // undefined without one
    });
    return response.status === 204 ? null : response.json();
  }

  /** One text answer: `/metrics`. */
  async text(path: string): Promise<string> {
    return (await this.#fetch(path)).text();
  }

  #fetch = (path: string, init: RequestInit = {}) => request(this.options, path, init);
}

/** Where a conversation is. */
export function threadPath(thread: string): string {
  return `/v1/threads/${checked("thread", thread, THREAD_ID)}`;
}

function runPath(run: string): string {
  return `/v1/runs/${runId(run)}`;
}

export function runId(run: string): string {
  return checked("run", run, RUN_ID);
}

function partOfPath(id: string): string {
  return encodeURIComponent(checked("call", id, CALL_ID));
}

function checked(what: string, id: string, form: RegExp): string {
  if (form.test(id)) return id;
  throw new TokenwireError("bad_request", `invalid ${what} id`);
}

/** 128 random bits; also where `crypto.randomUUID` is missing (plain HTTP on a local network). */
export function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}
