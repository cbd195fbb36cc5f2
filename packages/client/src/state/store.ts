/* A run as something to subscribe to.

Always true: subscribers hear at most once per animation frame, however many events came; the
snapshot is the same object until then; at most one reader writes into a store. */

import type { RunEvent } from "../core/events.generated.js";
import { Fold, type RunState } from "../core/fold.js";
import type { Delivered, FollowOptions, LinkState } from "../core/reader.js";
import type { TokenwireError } from "../core/errors.js";
import { onAbort } from "../core/wait.js";

export interface RunView {
  state: RunState;
  link: LinkState | "idle" | "ended" | "failed";
  /** Why reading failed for good, or what the last cut was. */
  linkError?: TokenwireError;
  reconnects: number;
}

/** A hidden page gets no animation frames; its store still tells, this often. */
const HIDDEN_MS = 250;

export class RunStore {
  #fold = new Fold();
  #view: RunView = { state: this.#fold.state, link: "idle", reconnects: 0 };
  #next: RunView = this.#view;
  #dirty = false;
  #scheduled = false;
  /** Of the last event taken: a reader that comes again goes on from here. */
  #cursor = "";
  /** Who reads into this store: two would write every word twice. */
  #reader: AbortController | undefined;
  #listeners = new Set<() => void>();
  /** Called with every delivered batch, at once: for meters. */
  onBatch?: (batch: Delivered[]) => void;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  getSnapshot = (): RunView => this.#view;

  /** As it is now: subscribers hear of it a frame later. */
  get link(): RunView["link"] {
    return this.#next.link;
  }

  apply(events: RunEvent[]): void {
    for (const event of events) this.#fold.apply(event);
    this.#change();
  }

  setLink(link: RunView["link"], error?: TokenwireError): void {
    const { state, reconnects } = this.#next;
    this.#next = { state, link, reconnects: reconnects + Number(link === "reconnecting") };
    if (error) this.#next.linkError = error;
    this.#schedule();
  }

  reset(): void {
    this.#cursor = "";
    this.#fold = new Fold();
    this.#change();
  }

  /** Reads `run` into this store until it ended or `signal` says stop, in the place of whoever read
   * into it before. Never rejects: the view tells. */
  async follow(
    client: { follow(run: string, options: FollowOptions): Promise<void> },
    run: string,
    signal?: AbortSignal,
  ): Promise<void> {
    this.#reader?.abort();
    const reader = (this.#reader = new AbortController());
    const forget = onAbort(signal, () => reader.abort());
    const own =
      <T extends unknown[]>(use: (...told: T) => void) =>
      (...told: T) =>
        this.#reader === reader && use(...told);
    const setLink = own((link: RunView["link"], error?: TokenwireError) => this.setLink(link, error));
    try {
      await client.follow(run, {
        signal: reader.signal,
        after: this.#cursor,
        onEvents: own((batch) => {
          this.onBatch?.(batch);
          this.#cursor = batch.at(-1)!.cursor;
          this.apply(batch.map(({ event }) => event));
        }),
        onReset: own(() => this.reset()),
        onLink: setLink,
      });
      setLink(signal?.aborted ? "idle" : "ended");
    } catch (error) {
      setLink("failed", error as TokenwireError);
    }
    forget();
    this.publish();
  }

  /** Tells subscribers now. */
  publish = (): void => {
    this.#scheduled = false;
    if (this.#dirty) this.#next = { ...this.#next, state: this.#fold.state };
    this.#dirty = false;
    if (this.#view === this.#next) return;
    this.#view = this.#next;
    for (const listener of [...this.#listeners]) listener();
  };

  #change(): void {
    this.#dirty = true;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const page = globalThis.document;
    if (page && !page.hidden) {
      // The page may be hidden before the frame comes; whichever is first tells.
      const timer = setTimeout(this.publish, HIDDEN_MS);
      requestAnimationFrame(() => {
        clearTimeout(timer);
        this.publish();
      });
    } else setTimeout(this.publish, page ? HIDDEN_MS : 0);
  }
}
