/* A conversation as it is now, to subscribe to.

Always true: it is followed while somebody subscribes, and goes on where it was when somebody
subscribes again; subscribers hear at most once per animation frame, and the snapshot is the same
object until then. */

import { asError, type TokenwireError } from "../core/errors.js";
import { backoff, pause } from "../core/wait.js";
import type { FeedTurn, ThreadEvent } from "./events.js";
import { followFeed, type Source } from "./shared.js";
import { NOTHING, ThreadFold, type ThreadView } from "./view.js";

/** Until somebody who typed counts as having stopped. */
const TYPING_MS = 6000;
/** A hidden page gets no animation frames; its store still tells, this often. */
const HIDDEN_MS = 250;
/** After the last subscriber went, so long until the reading ends: a page that draws anew subscribes
 * again at once. */
const LINGER_MS = 100;
/** How often the words of what waits are asked for. */
const MOST_TRIES = 5;

/** The server's queue: the events have no words of anybody. */
type ReadQueue = () => Promise<{ queue: { id: string; text: string; edits: number; created: number }[] }>;

export class ThreadStore {
  #fold = new ThreadFold();
  #status: ThreadView["status"] = "idle";
  #error: TokenwireError | undefined;
  #view: ThreadView = viewOf(this.#fold, "idle", undefined);
  #listeners = new Set<() => void>();
  #life: AbortController | undefined;
  #linger: ReturnType<typeof setTimeout> | undefined;
  /** Of the last event taken: who subscribes again goes on from here. */
  #cursor = "";
  #isScheduled = false;
  #isReading = false;
  #quiet: ReturnType<typeof setTimeout> | undefined;
  /** Called with each event, at once. */
  onEvent?: (event: ThreadEvent) => void;

  constructor(
    readonly source: Source,
    readonly readQueue: ReadQueue,
  ) {}

  subscribe = (listener: () => void): (() => void) => {
    const own = () => listener();
    this.#listeners.add(own);
    clearTimeout(this.#linger);
    this.#life ??= this.#start();
    return () => {
      this.#listeners.delete(own);
      if (this.#listeners.size) return;
      clearTimeout(this.#linger);
      this.#linger = setTimeout(() => this.#stop(), LINGER_MS);
    };
  };

  getSnapshot = (): ThreadView => this.#view;

  /** Reads again after it failed for good: with another token, as a member again. */
  retry = (): void => {
    if (this.#status !== "failed" || !this.#listeners.size) return;
    this.#life?.abort();
    this.#life = this.#start();
  };

  #start(): AbortController {
    const life = new AbortController();
    const { signal } = life;
    this.#show("connecting");
    followFeed(this.source, {
      after: this.#cursor,
      signal,
      onEvents: (batch) => {
        if (signal.aborted) return;
        for (const { event, cursor } of batch) {
          this.#cursor = cursor;
          this.#take(event as unknown as ThreadEvent);
        }
        this.#schedule();
      },
      onLink: (link, error) => !signal.aborted && this.#show(link, error),
    }).catch((error: unknown) => !signal.aborted && this.#show("failed", asError(error)));
    return life;
  }

  #stop(): void {
    this.#life?.abort();
    this.#life = undefined;
    clearTimeout(this.#quiet);
    if (this.#status !== "failed") this.#show("idle");
  }

  #take(event: ThreadEvent): void {
    this.#fold.apply(event, Date.now());
    if (event.type === "typing") this.#watchTyping();
    if (this.#fold.state.queue.some(({ text }) => text === undefined)) void this.#readWords();
    this.onEvent?.(event);
  }

  /** Who typed, and did not for a while, has stopped. */
  #watchTyping(): void {
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => {
      const since = Date.now() - TYPING_MS;
      const typing = Object.entries(this.#fold.state.typing).filter(([, at]) => at > since);
      this.#fold.state = { ...this.#fold.state, typing: Object.fromEntries(typing) };
      this.#schedule();
      if (typing.length) this.#watchTyping();
    }, TYPING_MS / 2);
  }

  async #readWords(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    const life = this.#life;
    const lacks = () => this.#fold.state.queue.some(({ text }) => text === undefined);
    for (let tries = 0; tries < MOST_TRIES && lacks() && !life?.signal.aborted; tries++) {
      if (tries) await pause(backoff(tries), life?.signal);
      const read = await this.readQueue().catch(() => undefined);
      const words = new Map(read?.queue.map((entry) => [entry.id, entry]));
      const queue = this.#fold.state.queue.map((turn): FeedTurn => {
        const entry = words.get(turn.turn);
        const isSame = turn.text === undefined && entry && entry.edits >= (turn.edits ?? 0);
        return isSame ? { ...turn, text: entry.text, created: entry.created } : turn;
      });
      this.#fold.state = { ...this.#fold.state, queue };
      this.#schedule();
    }
    this.#isReading = false;
  }

  #show(status: ThreadView["status"], error?: TokenwireError): void {
    this.#status = status;
    this.#error = error;
    this.#schedule();
  }

  /** Tells subscribers now. */
  publish = (): void => {
    this.#isScheduled = false;
    this.#view = viewOf(this.#fold, this.#status, this.#error);
    for (const listener of [...this.#listeners]) listener();
  };

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const isHidden = typeof document === "undefined" || document.hidden;
    if (!isHidden && typeof requestAnimationFrame === "function") {
      // The page may be hidden before the frame comes; whichever is first tells.
      const timer = setTimeout(this.publish, HIDDEN_MS);
      requestAnimationFrame(() => {
        clearTimeout(timer);
        if (this.#isScheduled) this.publish();
      });
    } else setTimeout(this.publish, typeof document === "undefined" ? 0 : HIDDEN_MS);
  }
}

function viewOf(fold: ThreadFold, status: ThreadView["status"], error: TokenwireError | undefined): ThreadView {
  const { typing, ...state } = fold.state;
  return { ...state, typing: Object.keys(typing), status, ...(error ? { error } : {}) };
}

/** What is shown before anything was read. */
export const UNREAD: ThreadView = { ...NOTHING, typing: [], status: "idle" };
