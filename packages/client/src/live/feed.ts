/* The streams of the server that say what happens, as something to iterate.

Always true: what is iterated has each event once and in order, whatever was cut; it ends when its
signal aborts, and throws when the server says no. */

import type { TokenwireClient } from "../core/client.js";
import { request, streamWay } from "../core/http.js";
import type { LinkState, ReadOptions } from "../core/reconnect.js";
import { webSocketWay } from "../core/websocket.js";
import { TokenwireError } from "../core/errors.js";
import type { FeedEvent } from "./events.js";
import { type Arrival, type FeedOptions, type FeedPage, feedPollWay } from "./reader.js";
import { followFeed, type Source } from "./shared.js";

/** What of a client streams need. */
export type FeedClient = Pick<TokenwireClient, "baseUrl" | "options">;

export interface EventsOptions extends ReadOptions {
  /** Goes on after this cursor; without one the first event is a snapshot. */
  after?: string;
}

export type { Arrival, LinkState };

/** So many events wait for whoever iterates; then the connection ends, until they are taken. */
const MOST_WAITING = 10_000;

/** The stream at `path`, which has `query`; `follow`: how a socket asks for it. */
export function feedOf(client: FeedClient, path: string, query: Record<string, string>, follow: object): Source {
  const { options, baseUrl } = client;
  const get = (path: string, init: RequestInit) => request(options, path, init);
  const page = async (after: string, live: string, signal: AbortSignal) => {
    const asked = new URLSearchParams({ ...query, live, ...(after ? { after } : {}) });
    const told = (await (await get(`${path}?${asked}`, { signal })).json()) as FeedPage;
    if (Array.isArray(told.events)) return told;
    throw new TokenwireError("protocol_error", "this is no page of events; an older server?", 0, true);
  };
  const name = path + (Object.keys(query).length ? `?${new URLSearchParams(query)}` : "");
  const stream = streamWay(name, get, options.limits);
  return {
    name: baseUrl + name,
    page,
    ways: [stream, webSocketWay(baseUrl, follow, options.token), feedPollWay(page)],
    token: options.token,
    isShared: options.shareTabs !== false,
  };
}

/** The list of the reader's conversations. */
export function listOf(client: FeedClient): Source {
  return feedOf(client, "/v1/threads", { live: "sse" }, { op: "follow-threads" });
}

/** What happens, for `for await`. Leaving the loop ends the reading; a next one goes on after it. */
export class Events<E extends { type: string }> implements AsyncIterable<E> {
  #cursor: string;

  constructor(
    readonly source: Source,
    readonly options: EventsOptions = {},
  ) {
    this.#cursor = options.after ?? "";
  }

  /** Where the reading is: after the event that was handed out last. */
  get cursor(): string {
    return this.#cursor;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<E, void, undefined> {
    const { signal } = this.options;
    for (let isOver = false; !isOver && !signal?.aborted; ) {
      const waiting: Arrival<E>[] = [];
      const life = new AbortController();
      const stop = () => life.abort();
      let wake = () => {};
      let failure: { error: unknown } | undefined;
      signal?.addEventListener("abort", stop);
      const onEvents = (batch: Arrival<FeedEvent>[]) => {
        waiting.push(...(batch as unknown as Arrival<E>[]));
        if (waiting.length > MOST_WAITING) stop();
        wake();
      };
      const options: FeedOptions = { ...this.options, after: this.#cursor, signal: life.signal, onEvents };
      let isReading = true;
      const reading = followFeed(this.source, options)
        .catch((error: unknown) => void (failure = { error }))
        .finally(() => {
          isReading = false;
          wake();
        });
      try {
        while (isReading || waiting.length) {
          while (waiting.length && !signal?.aborted) {
            const { event, cursor } = waiting.shift()!;
            this.#cursor = cursor;
            yield event;
          }
          if (signal?.aborted) break;
          if (isReading) {
            await new Promise<void>((resolve) => {
              wake = resolve;
              if (waiting.length || !isReading) resolve();
            });
          }
        }
        if (failure) throw (failure as { error: unknown }).error;
        isOver = !life.signal.aborted || !!signal?.aborted;
      } finally {
        signal?.removeEventListener("abort", stop);
        stop();
        await reading;
      }
    }
  }
}
