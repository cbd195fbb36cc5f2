/* A transport for the AI SDK's `useChat` that never shows it a cut.

The cursor and the reconnecting are inside: `useChat` reads one continuous stream of chunks made
from the run's events, whatever happens to the connection below.

Always true: an answer to an approval and the result of a tool of the page go to the run that waits
for them, and the same run goes on; only a question starts a run. `chat.stop()` and a component that
goes away look the same from here, so they only end the reading unless `onStop` says otherwise;
`stop` of this transport is the command that ends the run. */

import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import { answersIn, runOf, toMessages } from "./messages.js";
import { TokenwireClient, type ClientOptions } from "../core/client.js";
import { asError } from "../core/errors.js";
import { onAbort } from "../core/wait.js";
import { answerRun, streamRun, RunStream, type Place } from "../translate/run-stream.js";
import { UIMessageFold, type Compat } from "./chunk-fold.js";

export { resumableFetch } from "./resumable-fetch.js";
export { withoutVoid } from "./void-parts.js";

export interface ChatTransportOptions extends ClientOptions {
  client?: TokenwireClient;
  model?: string;
  system?: string;
  /** More fields of every start. */
  request?: Record<string, unknown>;
  /** What `chat.stop()`, which `useChat` also calls when its component goes away, does to the run:
   * nothing but that it is read no more (the default), or end it. */
  onStop?: "detach" | "cancel";
  /** The major version of `ai`; 7 unless told. */
  compat?: Compat;
}

type Asked<M extends UIMessage, F extends "sendMessages" | "reconnectToStream"> = Parameters<
  ChatTransport<M>[F]
>[0];

const ENDED = ["complete", "incomplete", "cancelled", "error", "interrupted"];

export class TokenwireChatTransport<M extends UIMessage = UIMessage> implements ChatTransport<M> {
  readonly #client: TokenwireClient;
  /** chat -> the run that it reads or waits with */
  #current = new Map<string, string>();

  constructor(readonly options: ChatTransportOptions = {}) {
    this.#client = options.client ?? new TokenwireClient({ ...options, shareTabs: false });
  }

  async sendMessages({
    chatId,
    messages,
    abortSignal,
    body,
  }: Asked<M, "sendMessages">): Promise<ReadableStream<UIMessageChunk>> {
    const last = messages[messages.length - 1];
    const place = last && (await this.#goOn(last, abortSignal));
    if (place) {
      this.#current.set(chatId, runOf(last));
      return this.#read(runOf(last), place, abortSignal);
    }
    const { model, system, request } = this.options;
    const run = await this.#client.start(
      {
        ...request,
        ...body,
        messages: toMessages(messages),
        thread: chatId,
        ...(model ? { model } : {}),
        ...(system ? { system } : {}),
      },
      abortSignal ? { signal: abortSignal } : {},
    );
    this.#current.set(chatId, run.id);
    const messageId = last?.role === "assistant" ? { messageId: last.id } : {};
    return this.#read(run.id, messageId, abortSignal);
  }

  /** The chat's run under way, from its beginning; null when there is none. */
  async reconnectToStream({
    chatId,
  }: Asked<M, "reconnectToStream">): Promise<ReadableStream<UIMessageChunk> | null> {
    try {
      const { runs } = await this.#client.thread(chatId);
      const active = runs.find(({ state }) => !ENDED.includes(state));
      if (!active) return null;
      this.#current.set(chatId, active.id);
      const { tail, waiting } = (await this.#client.info(active.id)) as unknown as {
        tail: number;
        waiting?: string[];
      };
      return this.#read(active.id, { passed: tail, open: waiting ?? [] });
    } catch (error) {
      if (asError(error).status === 404) return null;
      throw error;
    }
  }

  /** Ends the chat's run; `useChat` sees it end as aborted. */
  async stop(chatId: string): Promise<void> {
    const run = this.#current.get(chatId);
    if (run) await this.#client.stop(run);
  }

  /** Hands what the message answers to its run. */
  async #goOn(message: UIMessage, signal?: AbortSignal): Promise<Place | undefined> {
    const answers = answersIn(message);
    if (!answers) return undefined;
    try {
      return await answerRun(this.#client, runOf(message), answers, signal);
    } catch (error) {
      // A message of another backend: its conversation goes on in a new run.
      if (["unknown_run", "bad_request"].includes(asError(error).code)) return undefined;
      throw error;
    }
  }

  #read(
    run: string,
    place: Place & { messageId?: string },
    stop?: AbortSignal,
  ): ReadableStream<UIMessageChunk> {
    const { compat } = this.options;
    const { messageId } = place;
    const stream = new RunStream(place, (answered) => {
      const options = { answered, ...(compat ? { compat } : {}), ...(messageId ? { messageId } : {}) };
      return new UIMessageFold(options);
    });
    const life = new AbortController();
    const onStop = () => {
      if (this.options.onStop === "cancel" && !stream.ended) {
        void this.#client.stop(run).catch(() => undefined);
      }
      life.abort();
    };
    const chunks = streamRun(this.#client, run, stream, life.signal);
    const over = onAbort(stop, onStop);
    return new ReadableStream<UIMessageChunk>({
      async pull(controller) {
        try {
          const { done, value } = await chunks.next();
          if (!done) {
            controller.enqueue(value as unknown as UIMessageChunk);
            return;
          }
          if (stop?.aborted && !stream.ended) controller.enqueue({ type: "abort" });
          controller.close();
        } catch (error) {
          controller.error(error);
        }
        over();
      },
      cancel() {
        over();
        life.abort();
      },
    });
  }
}
