/* Cassettes that `pytest --tokenwire-record` made, played to a `fetch` in this process.

Always true: nothing goes to the network; equal requests get their recordings in order; a request
that is not recorded is answered with an error that says why, and noted. */

import { onAbort, pause } from "../core/wait.js";
import { broken, earlyResponse, type Ending, type FaultPlan, keepsAll, parseFaults, type Timed } from "./faults.js";
import { type Compared, differences } from "./matching.js";

/** A cassette's file, as data: `JSON.parse` of its text, or an import of it. */
export interface CassetteFile {
  format: string;
  version: number;
  exchanges: readonly unknown[];
}

export interface ReplayOptions {
  /** A factor of the recorded speed (1: as recorded); default `Infinity`: without pauses. */
  speed?: number;
  /** A fault plan of the simulator (`cut-rst@512,crlf`) for every response, or a list with one for
   * each; all but `error` and `seed`. */
  faults?: string | readonly string[];
  /** The last recording of a request answers all further equal ones. */
  repeats?: boolean;
  /** Paths into JSON bodies that do not matter: `messages.*.name`. */
  ignore?: readonly string[];
}

interface Exchange {
  request: Compared;
  response: {
    status: number;
    headers: Record<string, string>;
    wait: number;
    chunks: [number, ...(string | { base64: string })[]][];
    end: "complete" | "cut" | "reset" | "open";
  };
}

const FORMAT = "tokenwire-cassette";
const VERSION = 1;
const NO_BODY = new Set([204, 205, 304]);
const ENDINGS: Record<Exchange["response"]["end"], Ending> = { complete: "end", cut: "error", reset: "error", open: "silence" };

/** Plays a cassette: give its `fetch` to a client, and `check()` at the end of the test.
 *
 * ```ts
 * const cassette = new CassettePlayer(readFileSync("cassettes/test_chat/test_it.json", "utf8"));
 * const client = new OpenAI({ apiKey: "replayed", fetch: cassette.fetch });
 * ```
 *
 * The constructor throws for what is no cassette, or one of a later version. */
export class CassettePlayer {
  /** In place of `fetch`. */
  readonly fetch: typeof fetch;
  /** Texts about requests that are not recorded; `check` throws them. */
  readonly failures: string[] = [];
  readonly #exchanges: Exchange[];
  readonly #used: boolean[];
  readonly #options: ReplayOptions;
  readonly #every: FaultPlan | undefined;
  readonly #next: FaultPlan[];
  #counts = new Map<FaultPlan, number>();

  constructor(file: CassetteFile | string, options: ReplayOptions = {}) {
    const { faults = "", speed = Infinity } = options;
    if (!(speed > 0)) throw new Error("the speed of a cassette must be above 0");
    this.#options = { ...options, speed };
    this.#exchanges = exchangesOf(file);
    this.#used = this.#exchanges.map(() => false);
    this.#every = typeof faults === "string" ? parseFaults(faults) : undefined;
    this.#next = typeof faults === "string" ? [] : faults.map(parseFaults);
    this.fetch = (input, init) => this.#fetch(new Request(input, init), init?.signal);
  }

  /** The recorded requests that nobody has sent so far: method and address. */
  get unused(): string[] {
    return this.#exchanges.filter((_, at) => !this.#used[at]).map(({ request }) => `${request.method} ${request.url}`);
  }

  /** Throws if a request was not recorded. */
  check(): void {
    if (this.failures.length) throw new Error([...new Set(this.failures)].join("\n"));
  }

  async #fetch(request: Request, signal?: AbortSignal | null): Promise<Response> {
    signal?.throwIfAborted();
    const compared = await comparedOf(request);
    const equal = this.#exchanges.flatMap(({ request: recorded }, at) =>
      differences(compared, recorded, this.#options.ignore).length ? [] : [at],
    );
    const unused = equal.find((at) => !this.#used[at]);
    const place = unused ?? (this.#options.repeats ? equal.at(-1) : undefined);
    if (place === undefined) return this.#refuse(compared, equal.length);
    const plan = this.#every ?? this.#next.shift() ?? parseFaults("");
    // A response that a fault takes away is played again to the client that comes back.
    this.#used[place] = keepsAll(plan);
    const count = (this.#counts.get(plan) ?? 0) + 1;
    this.#counts.set(plan, count);
    return earlyResponse(plan, count) ?? this.#play(this.#exchanges[place]!, plan, signal);
  }

  async #play({ response }: Exchange, plan: FaultPlan, signal?: AbortSignal | null): Promise<Response> {
    const { status, headers, wait, chunks, end } = response;
    const scaled = (seconds: number) => (Math.max(0, seconds) * 1000) / this.#options.speed!;
    await due(scaled(wait), signal);
    if (NO_BODY.has(status)) return new Response(null, { status, headers });
    let before = wait;
    const timed = chunks.map(([at, ...data]): Timed => {
      const delay = scaled(at - before);
      before = Math.max(before, at);
      return { delay, data: bytesOf(data) };
    });
    const type = headers["content-type"] ?? "";
    const { pieces, ending } = broken(plan, timed, ENDINGS[end], type);
    return new Response(bodyOf(pieces, ending, signal), { status, headers });
  }

  #refuse(request: Compared, equal: number): Response {
    const name = `${request.method} ${request.url.split("?")[0]}`;
    const times = equal === 1 ? "once" : `${equal} times`;
    const lines = equal
      ? [`${name} is in the cassette ${times}, and was sent once more`, "  repeats: true answers further ones with the last recording"]
      : [`${name} is not in the cassette`, ...this.#nearest(request)];
    lines.push("  to record it: pytest --tokenwire-record");
    const text = lines.join("\n");
    this.failures.push(text);
    const error = { type: "cassette_error", code: "cassette_error", message: text, param: null };
    const headers = { "content-type": "application/json", "x-should-retry": "false" };
    return new Response(JSON.stringify({ type: "error", error }), { status: 400, headers });
  }

  #nearest(request: Compared): string[] {
    const all = this.#exchanges.map((one) => differences(request, one.request, this.#options.ignore));
    const distance = (at: number) => {
      const far = all[at]!.filter(({ path }) => path === "method" || path === "address").length;
      return far * 1e6 + all[at]!.length;
    };
    const [nearest] = [...all.keys()].sort((one, other) => distance(one) - distance(other));
    if (nearest === undefined) return ["  the cassette has no recordings"];
    const shown = all[nearest]!.slice(0, 8).flatMap(({ path, requested, recorded }) => [
      `    ${path}: requested ${requested}`,
      `    ${" ".repeat(path.length)}  recorded  ${recorded}`,
    ]);
    const head = `  the nearest of ${all.length} recordings is exchange ${nearest + 1}:`;
    return [head, ...shown, "  a field that does not matter: ignore: ['the.path']"];
  }
}

function exchangesOf(file: CassetteFile | string): Exchange[] {
  const { format, version, exchanges } = typeof file === "string" ? (JSON.parse(file) as CassetteFile) : file;
  if (format !== FORMAT) throw new Error(`this is no cassette: it has no "format": "${FORMAT}"`);
  if (version !== VERSION) throw new Error(`the cassette has version ${version}; this one reads version ${VERSION}`);
  return exchanges as Exchange[];
}

async function comparedOf(request: Request): Promise<Compared> {
  const { method, url } = request;
  const data = new Uint8Array(await request.arrayBuffer());
  if (!data.length) return { method, url };
  const type = request.headers.get("content-type") ?? "";
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    return { method, url, base64: btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join("")) };
  }
  const boundary = type.startsWith("multipart/") ? /boundary="?([^";,]+)"?/i.exec(type)?.[1] : undefined;
  if (boundary) text = text.replaceAll(boundary, "boundary");
  // A fetch that is given a text calls it text/plain.
  const isPlain = type.startsWith("text/plain");
  if (!type || type.includes("json") || (isPlain && /^[{[]/.test(text.trimStart()))) {
    try {
      return { method, url, json: JSON.parse(text) as unknown };
    } catch {
      // Compared as it is.
    }
  }
  return { method, url, text };
}

function bytesOf(pieces: (string | { base64: string })[]): Uint8Array {
  const parts = pieces.map((piece) =>
    typeof piece === "string" ? new TextEncoder().encode(piece) : Uint8Array.from(atob(piece.base64), (c) => c.charCodeAt(0)),
  );
  const data = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    data.set(part, at);
    at += part.length;
  }
  return data;
}

/** Resolves after `ms`; rejects when aborted before. */
async function due(ms: number, signal?: AbortSignal | null): Promise<void> {
  if (ms > 0) await pause(ms, signal, false);
  signal?.throwIfAborted();
}

function bodyOf(pieces: readonly Timed[], ending: Ending, signal?: AbortSignal | null): ReadableStream<Uint8Array> {
  const left = [...pieces];
  let forget = () => {};
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        forget = onAbort(signal, () => controller.error(signal?.reason));
      },
      async pull(controller) {
        const piece = left.shift();
        if (piece) {
          if (piece.delay > 0) await pause(piece.delay, signal, false);
          if (!signal?.aborted) controller.enqueue(piece.data);
          return;
        }
        if (ending === "silence") return new Promise(() => undefined); // until its reader leaves
        forget();
        if (ending === "end") controller.close();
        else controller.error(new TypeError("terminated")); // as a fetch whose connection was cut
      },
      cancel: () => forget(),
    },
    { highWaterMark: 0 },
  );
}
