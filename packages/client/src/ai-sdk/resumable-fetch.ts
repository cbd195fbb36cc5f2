/* A `fetch` under the AI SDK's own transport, whose answers are never seen to be cut.

Always true: a chunk is given once and in order, and the one stream ends where the answer ends; what
the server opens again for a new connection (chunks without an id) is not given, and parts go on
under the names that they began with; a request that starts an answer is sent again only under the
same key, which keeps it one run. */

import { randomId } from "../core/client.js";
import { errorOf, TokenwireError } from "../core/errors.js";
import { again } from "../core/http.js";
import { type Reading, readToEnd, type Watch } from "../core/reconnect.js";
import { SSEParser } from "../core/sse.js";
import { bytesOf, onAbort } from "../core/wait.js";

const LAST = new Set(["finish", "error", "abort"]);
/** This wire says a file whole, in one line: as much as a run may hold. */
const FILE = 64 << 20;
const MARK = "x-vercel-ai-ui-message-stream";

type Chunk = { type: string; id?: string } & Record<string, unknown>;

/** For `new DefaultChatTransport({ api, fetch: resumableFetch() })`: the answer's stream comes back
 * by itself after a cut. `call` is the `fetch` below. */
export function resumableFetch(call: typeof fetch = (input, init) => fetch(input, init)) {
  const resumable: typeof fetch = async (input, init = {}) => {
    if (typeof input !== "string" && !(input instanceof URL)) return call(input, init);
    const url = String(input);
    const posted = init.method === "POST" && typeof init.body === "string" ? init.body : undefined;
    const headers = new Headers(init.headers);
    if (posted) headers.set("idempotency-key", headers.get("idempotency-key") ?? randomId());
    const first = await again(() => call(url, { ...init, headers }), init.signal);
    const where = posted ? streamOf(url, posted) : url;
    if (!first.ok || !first.body || !where || !first.headers.has(MARK)) return first;
    const { status } = first;
    return new Response(new Answer(first, where, call, init).stream, { status, headers: first.headers });
  };
  return resumable;
}

/** Where the answer to a posted chat is read again. */
function streamOf(url: string, body: string): string | undefined {
  try {
    const { id } = JSON.parse(body) as { id?: unknown };
    const [path, query] = url.split("?", 2);
    if (typeof id !== "string" || !id) return undefined;
    return `${path}/${encodeURIComponent(id)}/stream${query ? `?${query}` : ""}`;
  } catch {
    return undefined; // no body of ours
  }
}

/** One answer, over any number of connections. */
class Answer implements Reading {
  readonly stream: ReadableStream<Uint8Array>;
  /** The id of the last chunk that was given. */
  #after = "";
  #given = false;
  #ended = false;
  #again = false;
  /** This connection goes on from a place: the server opens what was open there. */
  #resumed = false;
  /** What this connection calls a part that another one began. */
  #names = new Map<string, string>();
  #life = new AbortController();
  #controller!: ReadableStreamDefaultController<Uint8Array>;

  constructor(
    readonly first: Response,
    readonly where: string,
    readonly call: typeof fetch,
    readonly init: RequestInit,
  ) {
    this.stream = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
        void this.#run();
      },
      cancel: () => this.#life.abort(),
    });
  }

  async #run(): Promise<void> {
    const stop = this.init.signal;
    const forget = onAbort(stop, () => this.#life.abort());
    try {
      await readToEnd(this, { signal: this.#life.signal });
      if (stop?.aborted) throw stop.reason;
      if (this.#life.signal.aborted) return; // the reader has gone
      this.#say("[DONE]");
      this.#controller.close();
    } catch (error) {
      this.#controller.error(error);
    } finally {
      forget();
    }
  }

  get ended(): boolean {
    return this.#ended;
  }

  get position(): string {
    return this.#after;
  }

  /** The first connection reads the response that is there. */
  async connect(watch: Watch): Promise<void> {
    const again = this.#again;
    this.#again = true;
    this.#resumed = this.#after !== "";
    this.#names.clear();
    const response = again ? await this.#ask(watch.signal) : this.first;
    if (response.status === 204) return this.#nothing();
    if (!response.ok) throw await errorOf(response);
    const parser = new SSEParser({ maxLine: FILE, maxEvent: FILE });
    for await (const bytes of bytesOf(response.body!, watch.signal)) {
      watch.alive();
      for (const frame of parser.feed(bytes)) this.#take(frame.id, frame.data);
      if (this.#ended) return;
    }
  }

  restart(): boolean {
    if (!this.#given || this.#after) return false;
    throw new TokenwireError("no_ids", "the stream broke off, and it has no ids to resume from");
  }

  #ask(signal: AbortSignal): Promise<Response> {
    const headers = new Headers(this.init.headers);
    headers.delete("content-type");
    if (this.#after) headers.set("last-event-id", this.#after);
    const { credentials } = this.init;
    return this.call(this.where, { headers, signal, ...(credentials ? { credentials } : {}) });
  }

  #take(cursor: string, json: string): void {
    if (this.#ended) return;
    if (json === "[DONE]") {
      this.#ended = true;
      return;
    }
    const chunk = parsed(json);
    if (this.#resumed && !cursor) {
      // A part is opened again under its own name and a number.
      if (chunk.id) this.#names.set(chunk.id, chunk.id.replace(/\.\d+$/, ""));
      return;
    }
    if (cursor && !isAfter(cursor, this.#after)) return;
    const name = chunk.id && this.#names.get(chunk.id);
    this.#say(name ? JSON.stringify({ ...chunk, id: name }) : json);
    this.#given = true;
    this.#after = cursor;
    this.#ended = LAST.has(chunk.type);
  }

  /** The server has nothing under way (any more). */
  #nothing(): void {
    if (this.#given) throw new TokenwireError("gone", "the server does not know this answer", 410);
    this.#ended = true;
  }

  #say(json: string): void {
    this.#controller.enqueue(new TextEncoder().encode(`data: ${json}\n\n`));
  }
}

function parsed(json: string): Chunk {
  try {
    const chunk = JSON.parse(json) as Chunk | null;
    if (typeof chunk?.type === "string") return chunk;
  } catch {
    // Told below.
  }
  throw new TokenwireError("protocol_error", `this is no chunk: ${json.slice(0, 60)}`, 0, true);
}

/** Whether a place is after another: `12-ab.2` is inside event 12, `12-ab` at its end. */
function isAfter(cursor: string, other: string): boolean {
  const [offset, inside] = placeOf(cursor);
  const [otherOffset, otherInside] = placeOf(other);
  return offset > otherOffset || (offset === otherOffset && inside > otherInside);
}

function placeOf(cursor: string): [number, number] {
  const found = /^(\d+)(?:-[0-9a-f]+)?(?:\.(\d+))?$/.exec(cursor);
  return found ? [Number(found[1]), found[2] ? Number(found[2]) : Infinity] : [-1, 0];
}
