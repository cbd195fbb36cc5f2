/* A server of runs in the process of a test: what `fetch` and `WebSocket` would have brought.

Always true: no network and no clock; a run is performed once, however often it is read, and a
reader that comes back with its cursor gets what follows. */

import { TokenwireClient, type ClientOptions } from "../core/client.js";
import type { RunEvent } from "../core/events.generated.js";
import { offsetOf } from "../core/reader.js";
import { onAbort } from "../core/wait.js";
import { type Outside, perform, type Piece } from "./script.js";
import { socketClass } from "./socket.js";

/** A request that came to a stand-in for a server. */
export interface SentRequest {
  method: string;
  /** Path and query. */
  path: string;
  headers: Record<string, string>;
  /** The body as data; its text, where it is no JSON; `undefined` without one. */
  body: unknown;
}

/** Where a stream of events is cut: `how` is an orderly end of the body, or an error. */
export interface Cut {
  /** After so many bytes of the stream. */
  bytes?: number;
  /** After so many events. */
  events?: number;
  /** Default `end`. */
  how?: "end" | "error";
}

export interface ScriptedServerOptions {
  /** Cuts of the streams, one for each in the order in which they are opened; then none. */
  cuts?: readonly Cut[];
  /** `false`: as behind a proxy that lets no event stream through; readers must fall back. */
  eventStreams?: boolean;
}

interface Run {
  id: string;
  thread?: string;
  model?: string;
  input: unknown;
  metadata?: unknown;
  log: RunEvent[];
  answers: Map<string, Record<string, unknown>>;
  cancel?: { reason?: string };
}

const ENDINGS: Record<string, string> = { cancelled: "cancelled", error: "error", interrupted: "interrupted" };

/** A server whose model answers from scripts: one for each run, in order; the last one repeats.
 *
 * ```ts
 * const server = new ScriptedServer(["Hello", ", ", "world"]);
 * const client = server.client();
 * ```
 *
 * It speaks the runs of tokenwire's own API (`/v1/runs`), by event stream, long polling and
 * WebSocket; conversations have what their runs say. */
export class ScriptedServer {
  /** Requests so far, the oldest first. */
  readonly requests: SentRequest[] = [];
  /** In place of `fetch`. */
  readonly fetch: typeof fetch;
  /** In place of `WebSocket`: `vi.stubGlobal("WebSocket", server.WebSocket)`. */
  readonly WebSocket: typeof WebSocket;
  /** Connections that read a run now. */
  open = 0;

  readonly #scripts: (readonly Piece[])[];
  readonly #cuts: Cut[];
  readonly #eventStreams: boolean;
  readonly #runs: Run[] = [];
  readonly #keys = new Map<string, Run>();
  #listeners = new Set<() => void>();
  #resumes = 0;
  #pauses = 0;

  constructor(script: readonly Piece[], ...more: (readonly Piece[] | ScriptedServerOptions)[]) {
    const last = more.at(-1);
    const options = (last && !Array.isArray(last) ? more.pop() : {}) as ScriptedServerOptions;
    this.#scripts = [script, ...(more as (readonly Piece[])[])];
    this.#cuts = [...(options.cuts ?? [])];
    this.#eventStreams = options.eventStreams ?? true;
    this.fetch = (input, init) => this.#fetch(new Request(absolute(input), init), init?.signal);
    this.WebSocket = socketClass((message, send) => this.#socket(message, send));
  }

  /** A client of this server. */
  client(options: Omit<ClientOptions, "fetch"> = {}): TokenwireClient {
    const baseUrl = "http://scripted";
    return new TokenwireClient({ baseUrl, shareTabs: false, ...options, fetch: this.fetch });
  }

  /** The ids of the runs so far, the oldest first. */
  get runs(): string[] {
    return this.#runs.map(({ id }) => id);
  }

  /** The events of a run so far, as its readers get them. Throws for an unknown run. */
  events(run: string): readonly RunEvent[] {
    const log = this.#runs.find(({ id }) => id === run)?.log;
    if (!log) throw new Error(`unknown run ${run}`);
    return log;
  }

  /** Lets the model go on at the `pause()` of its script that comes next, or that it is at. */
  resume(): void {
    this.#resumes++;
    this.#changed();
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Resolves when `ready` has a value: now, or after something changed. */
  #until<T>(ready: () => T | undefined, signal?: AbortSignal | null): Promise<T | undefined> {
    return new Promise((resolve) => {
      const look = () => {
        const value = signal?.aborted ? undefined : ready();
        if (value === undefined && !signal?.aborted) return;
        this.#listeners.delete(look);
        forget();
        resolve(value);
      };
      this.#listeners.add(look);
      const forget = onAbort(signal, look);
      look();
    });
  }

  // --- requests ------------------------------------------------------------------------------

  async #fetch(request: Request, signal?: AbortSignal | null): Promise<Response> {
    signal?.throwIfAborted();
    const { pathname, search, searchParams } = new URL(request.url);
    const text = await request.text();
    const body = text ? parsed(text) : undefined;
    const headers = Object.fromEntries(request.headers);
    this.requests.push({ method: request.method, path: pathname + search, headers, body });
    if (pathname === "/v1/runs" && request.method === "POST") return this.#start(headers, body);
    const thread = /^\/v1\/threads\/([^/]+)$/.exec(pathname)?.[1];
    if (thread) return this.#thread(thread);
    const [, id, rest = ""] = /^\/v1\/runs\/([^/]+)(\/.*)?$/.exec(pathname) ?? [];
    const run = this.#runs.find((one) => one.id === id);
    if (!run) return failed(404, "unknown_run", `nothing at ${request.method} ${pathname}`);
    if (rest === "/events") return this.#read(run, headers, searchParams, signal);
    if (request.method === "GET") return json({ ...this.#info(run), input: run.input });
    return this.#command(run, request.method, rest, (body ?? {}) as Record<string, unknown>);
  }

  #start(headers: Record<string, string>, body: unknown): Response {
    const key = headers["idempotency-key"];
    const known = key === undefined ? undefined : this.#keys.get(key);
    if (known) return json(this.#info(known), 201);
    const { thread, model, messages, prompt, metadata } = (body ?? {}) as Record<string, unknown>;
    const run: Run = {
      id: `run_${String(this.#runs.length + 1).padStart(16, "0")}`,
      ...(typeof thread === "string" ? { thread } : {}),
      ...(typeof model === "string" ? { model } : {}),
      input: messages ?? [{ role: "user", content: prompt }],
      metadata,
      log: [],
      answers: new Map(),
    };
    const script = this.#scripts[Math.min(this.#runs.length, this.#scripts.length - 1)]!;
    this.#runs.push(run);
    if (key !== undefined) this.#keys.set(key, run);
    const say = (event: RunEvent) => {
      run.log.push({ ...event, seq: run.log.length + 1 });
      this.#changed();
    };
    void perform(script, run, say, this.#outside(run));
    return json({ ...this.#info(run), state: "running" }, 201);
  }

  #outside(run: Run): Outside {
    return {
      resumed: async () => {
        const number = ++this.#pauses;
        await this.#until(() => this.#resumes >= number || run.cancel || undefined);
      },
      answer: async (id) => (await this.#until(() => run.answers.get(id) ?? (run.cancel && {}))) ?? {},
      cancelled: () => run.cancel,
    };
  }

  #command(run: Run, method: string, rest: string, body: Record<string, unknown>): Response {
    const [, what, id] = /^\/(approvals|tools)\/([^/]+)$/.exec(rest) ?? [];
    if (method === "DELETE" && !rest) this.#runs.splice(this.#runs.indexOf(run), 1);
    if (rest === "/cancel" || method === "DELETE") {
      if (stateOf(run) !== "running" && stateOf(run) !== "waiting") return json({});
      run.cancel ??= typeof body.reason === "string" ? { reason: body.reason } : {};
    } else if (what && id) {
      const name = decodeURIComponent(id);
      if (!pendingOf(run).includes(name)) return failed(409, "conflict", `${name} does not wait`);
      run.answers.set(name, body);
    } else return failed(404, "not_found", `nothing at ${method} ${rest}`);
    this.#changed();
    return json({});
  }

  #info(run: Run) {
    const { id, thread, model = "scripted", metadata } = run;
    const named = { ...(thread === undefined ? {} : { thread }), ...(metadata ? { metadata } : {}) };
    return { id, state: stateOf(run), model, tail: run.log.length, waiting: pendingOf(run), ...named };
  }

  #thread(thread: string): Response {
    const runs = this.#runs.filter((run) => run.thread === decodeURIComponent(thread)).reverse();
    if (!runs.length) return failed(404, "not_found", "unknown thread");
    const active = runs.find((run) => ["running", "waiting"].includes(stateOf(run)))?.id ?? null;
    return json({ thread, active, runs: runs.map((run) => this.#info(run)) });
  }

  // --- reading -------------------------------------------------------------------------------

  async #read(
    run: Run,
    headers: Record<string, string>,
    query: URLSearchParams,
    signal?: AbortSignal | null,
  ): Promise<Response> {
    const live = query.get("live");
    const after = headers["last-event-id"] ?? query.get("after") ?? "";
    const at = after ? offsetOf(after) : 0;
    if (at < 0 || at > run.log.length || (after && cursorOf(at) !== after)) {
      return failed(400, "bad_cursor", `invalid cursor ${after}`);
    }
    if (live === "no" || live === "long-poll") {
      if (live === "long-poll") await this.#until(() => run.log.length > at || isOver(run) || undefined, signal);
      const events = run.log.slice(at).map((event, n) => ({ cursor: cursorOf(at + n + 1), event }));
      return json({ events, next: events.at(-1)?.cursor ?? after, closed: isOver(run) });
    }
    if (!this.#eventStreams) return new Response("<p>no streams</p>", { headers: { "content-type": "text/html" } });
    if (isOver(run) && at === run.log.length) return new Response(null, { status: 204 });
    const headersOut = { "content-type": "text/event-stream", "tokenwire-run": run.id };
    return new Response(this.#stream(run, at, this.#cuts.shift() ?? {}, signal), { headers: headersOut });
  }

  #stream(run: Run, at: number, cut: Cut, signal?: AbortSignal | null): ReadableStream<Uint8Array> {
    const gone = new AbortController();
    const forget = onAbort(signal, () => gone.abort(signal?.reason));
    let bytes = cut.bytes ?? Infinity;
    let events = cut.events ?? Infinity;
    const over = (finish: () => void) => {
      this.open--;
      forget();
      finish();
    };
    return new ReadableStream<Uint8Array>({
      start: () => void this.open++,
      pull: async (controller) => {
        if (events > 0 && bytes > 0) {
          await this.#until(() => run.log.length > at || isOver(run) || undefined, gone.signal);
        }
        if (gone.signal.aborted) return over(() => controller.error(gone.signal.reason));
        const isCut = events <= 0 || bytes <= 0;
        if (isCut || at === run.log.length) {
          const broken = isCut && cut.how === "error";
          return over(() => (broken ? controller.error(new TypeError("network error")) : controller.close()));
        }
        const block = new TextEncoder().encode(blockOf(run.log[at]!, ++at));
        const piece = block.subarray(0, bytes);
        events--;
        bytes -= block.length;
        controller.enqueue(piece);
      },
      cancel: () => over(() => gone.abort()),
    });
  }

  /** A message on the socket: `follow` is answered with the events of a run. */
  async #socket(message: Record<string, unknown>, send: (message: object) => boolean): Promise<void> {
    if (message.op === "ping") return void send({ op: "pong" });
    if (message.op !== "follow") return;
    const run = this.#runs.find(({ id }) => id === message.run);
    if (!run) return void send({ op: "error", error: { code: "unknown_run", message: "unknown run" } });
    let at = typeof message.after === "string" ? Math.max(offsetOf(message.after), 0) : 0;
    for (;;) {
      await this.#until(() => run.log.length > at || isOver(run) || undefined);
      const events = run.log.slice(at).map((event, n) => ({ cursor: cursorOf(at + n + 1), event }));
      at = run.log.length;
      if (events.length && !send({ op: "events", run: run.id, events })) return;
      if (isOver(run)) return void send({ op: "end", run: run.id });
    }
  }
}

function blockOf(event: RunEvent, at: number): string {
  return `id: ${cursorOf(at)}\ndata: ${JSON.stringify(event)}\n\n`;
}

function cursorOf(at: number): string {
  return `${at}-${at.toString(16).padStart(16, "0")}`;
}

function isOver(run: Run): boolean {
  return run.log.at(-1)?.type === "run-end";
}

/** What a run waits for now. */
function pendingOf(run: Run): string[] {
  const last = run.log.at(-1);
  return last?.type === "run-wait" ? (last.pending ?? []).filter((id) => !run.answers.has(id)) : [];
}

function stateOf(run: Run): string {
  const last = run.log.at(-1);
  if (last?.type === "run-end") return ENDINGS[last.outcome] ?? last.outcome;
  return pendingOf(run).length ? "waiting" : "running";
}

function absolute(input: RequestInfo | URL): RequestInfo | URL {
  return typeof input === "string" && input.startsWith("/") ? `http://scripted${input}` : input;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function json(value: unknown, status = 200): Response {
  return new Response(JSON.stringify(value), { status, headers: { "content-type": "application/json" } });
}

function failed(status: number, code: string, message: string): Response {
  return json({ error: { code, message } }, status);
}
