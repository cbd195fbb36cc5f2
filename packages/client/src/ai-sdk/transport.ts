/* A transport for the AI SDK's `useChat` that never shows it a cut.

The cursor and the reconnecting are inside: `useChat` reads one continuous stream of chunks made
from the run's events, whatever happens to the connection below.

Always true: an answer to an approval and the result of a tool of the page go to the run that waits
for them, and the same run goes on; only a question starts a run. What a person presses while the
chat is resumed counts: until the replay can be given in one turn, the chat is not busy with it, and a
run that the chat answers meanwhile is not replayed. `chat.stop()` and a component that goes away look
the same from here, so they only end the reading unless `onStop` says otherwise; `stop` of this
transport is the command that ends the run. */

import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import { answersIn, runOf, toMessages } from "./messages.js";
import { TokenwireClient, type ClientOptions, type StartRequest } from "../core/client.js";
import { asError } from "../core/errors.js";
import { orAborted, StoppableRun, untilAnswered } from "../core/stop.js";
import { onAbort } from "../core/wait.js";
import { answerRun, streamRun, RunStream, type Place } from "../translate/run-stream.js";
import { UIMessageFold, type Compat } from "./chunk-fold.js";
import { Sends } from "./sends.js";
import { storedMessages } from "./stored-messages.js";

export { resumableFetch } from "./resumable-fetch.js";
export { storedMessages, type StoredMessages, type StoredMessagesOptions } from "./stored-messages.js";
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
  /** The major version of `ai`; 6, which 7 reads as well, unless given. */
  compat?: Compat;
}

type Asked<M extends UIMessage, F extends "sendMessages" | "reconnectToStream"> = Parameters<
  ChatTransport<M>[F]
>[0];

const ENDED = ["complete", "incomplete", "cancelled", "error", "interrupted"];

export class TokenwireChatTransport<M extends UIMessage = UIMessage> implements ChatTransport<M> {
  /** `resumeStream` begins the answer anew, also in a chat that has a part of it. */
  readonly resumeStreamIsReplay = true;
  readonly #client: TokenwireClient;
  #sends = new Sends();
  /** chat -> the run that it starts, reads or waits with */
  #current = new Map<string, StoppableRun>();

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
    if (last && answersIn(last)) {
      const current = this.#underWay(chatId, runOf(last));
      const stream = await this.#sending(chatId, current, async (over) => {
        const place = await this.#stopping(current, abortSignal, () => this.#goOn(last, abortSignal));
        return place && this.#read(chatId, current, place, abortSignal, over).chunks;
      });
      if (stream) return stream;
    }
    const { model, system, request } = this.options;
    const started = this.#start(chatId, {
      ...request,
      ...body,
      messages: toMessages(messages),
      thread: chatId,
      ...(model ? { model } : {}),
      ...(system ? { system } : {}),
    });
    const messageId = last?.role === "assistant" ? { messageId: last.id } : {};
    return this.#sending(chatId, started, async (over) => {
      await this.#stopping(started, abortSignal, () => orAborted(started.started, abortSignal));
      return this.#read(chatId, started, messageId, abortSignal, over).chunks;
    });
  }

  /** `work` makes a request that reads `current`, and calls `over` when that is read to its end. */
  async #sending<T>(
    chatId: string,
    current: StoppableRun,
    work: (over: () => void) => Promise<T>,
  ): Promise<T> {
    const over = this.#sends.begin(chatId, current);
    try {
      const stream = await work(over);
      if (!stream) over(true);
      return stream;
    } catch (error) {
      over(true);
      throw error;
    }
  }

  /** The chat's messages as the server keeps them, for `useChat` when a page is loaded. The answer
   * under way is not among them: `resumeStream` brings it. */
  async messages(chatId: string, signal?: AbortSignal): Promise<M[]> {
    const { compat = "6" } = this.options;
    const options = { compat, ...(signal ? { signal } : {}) };
    return (await storedMessages<M>(this.#client, chatId, options)).messages;
  }

  /** The chat's run under way, from its beginning; null when there is none, or when a request of the
   * chat reads it. Resolves when what is there already can be read without a wait. */
  async reconnectToStream({
    chatId,
    abortSignal,
  }: Asked<M, "reconnectToStream"> & { abortSignal?: AbortSignal | undefined }): Promise<
    ReadableStream<UIMessageChunk> | null
  > {
    const replay = await this.#replay(chatId, abortSignal);
    // The chat takes "nothing to resume" for "ready".
    if (!replay) await this.#sends.settled(chatId, abortSignal);
    return replay;
  }

  async #replay(chatId: string, signal?: AbortSignal): Promise<ReadableStream<UIMessageChunk> | null> {
    const isRead = this.#sends.watch(chatId);
    try {
      const active = await this.#active(chatId);
      if (!active || isRead(active)) return null;
      const { tail, waiting } = (await this.#client.snapshot(active)) as unknown as {
        tail: number;
        waiting?: string[];
      };
      if (isRead(active)) return null;
      const place = { passed: tail, open: waiting ?? [] };
      const { chunks, reached } = this.#read(chatId, this.#underWay(chatId, active), place, signal);
      await reached;
      if (!isRead(active)) return chunks;
      await chunks.cancel();
      return null;
    } catch (error) {
      if (asError(error).status === 404) return null;
      throw error;
    }
  }

  /** Ends the chat's run, also one that is only being started or that another page started;
   * `useChat` sees it end as aborted. Waits for the network where it has to; rejects when the
   * server refuses. */
  async stop(chatId: string): Promise<void> {
    const current = this.#current.get(chatId);
    if (current) return current.stop();
    const active = await untilAnswered(() => this.#active(chatId));
    if (active) await this.#underWay(chatId, active).stop();
  }

  /** The run of the chat that has not ended. */
  async #active(chatId: string): Promise<string | undefined> {
    try {
      const { runs } = await this.#client.thread(chatId);
      return runs.find(({ state }) => !ENDED.includes(state))?.id;
    } catch (error) {
      if (asError(error).status === 404) return undefined; // nobody has asked here yet
      throw error;
    }
  }

  #underWay(chatId: string, run: string): StoppableRun {
    const current = StoppableRun.of(this.#client, run);
    this.#current.set(chatId, current);
    return current;
  }

  #start(chatId: string, request: StartRequest): StoppableRun {
    const before = this.#current.get(chatId)?.run;
    const current = new StoppableRun(this.#client, {
      start: async (giveUp) => (await this.#client.start(request, { giveUp })).id,
      find: async () => {
        const active = await this.#active(chatId);
        return active === before ? undefined : active;
      },
    });
    this.#current.set(chatId, current);
    return current;
  }

  /** `useChat` does not read the run any more. */
  #aborted(run: StoppableRun): void {
    if (this.options.onStop === "cancel") void run.stop().catch(() => undefined);
    else run.giveUp();
  }

  async #stopping<T>(run: StoppableRun, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    const forget = onAbort(signal, () => this.#aborted(run));
    try {
      return await work();
    } finally {
      forget();
    }
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
    chatId: string,
    current: StoppableRun,
    place: Place & { messageId?: string },
    stop?: AbortSignal,
    onOver?: () => void,
  ): { chunks: ReadableStream<UIMessageChunk>; reached: Promise<void> } {
    const { compat = "6" } = this.options;
    const { messageId } = place;
    const stream = new RunStream(place, (answered) => {
      const options = { answered, compat, ...(messageId ? { messageId } : {}) };
      return new UIMessageFold(options);
    });
    const life = new AbortController();
    const onStop = () => {
      if (!stream.ended) this.#aborted(current);
      life.abort();
      onOver?.();
    };
    const chunks = streamRun(this.#client, current.run!, stream, life.signal);
    const forget = onAbort(stop, onStop);
    const over = () => {
      forget();
      onOver?.();
      // What goes on in the chat from here may be another run.
      if (stream.ended && this.#current.get(chatId) === current) this.#current.delete(chatId);
    };
    const told = new ReadableStream<UIMessageChunk>({
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
    return { chunks: told, reached: stream.reached };
  }
}
