/* A run as something to subscribe to.

Always true: subscribers hear at most once per animation frame, however many events came; the
snapshot is the same object until then. */

import type { RunEvent } from "../core/events.generated.js";
import { Fold, type RunState } from "../core/fold.js";
import type { Delivered, FollowOptions, LinkState } from "../core/reader.js";
import type { TokenwireError } from "../core/errors.js";

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
  #listeners = new Set<() => void>();
  /** Called with every delivered batch, at once: for meters. */
  onBatch?: (batch: Delivered[]) => void;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  getSnapshot = (): RunView => this.#view;

  apply(events: RunEvent[]): void {
    for (const event of events) this.#fold.apply(event);
    this.#dirty = true;
    this.#schedule();
  }

  setLink(link: RunView["link"], error?: TokenwireError): void {
    const { linkError: _, ...rest } = this.#next;
    const again = link === "reconnecting" ? 1 : 0;
    const reconnects = rest.reconnects + again;
    this.#next = { ...rest, link, reconnects, ...(error ? { linkError: error } : {}) };
    this.#schedule();
  }

  reset(): void {
    this.#cursor = "";
    this.#fold = new Fold();
    this.#dirty = true;
    this.#schedule();
  }

  /** Reads `run` into this store until it ended or `signal` says stop. Never rejects: the view
   * tells. */
  async follow(
    client: { follow(run: string, options: FollowOptions): Promise<void> },
    run: string,
    signal?: AbortSignal,
  ): Promise<void> {
    try {
      await client.follow(run, {
        ...(signal ? { signal } : {}),
        after: this.#cursor,
        onEvents: (batch) => {
          this.onBatch?.(batch);
          this.#cursor = batch[batch.length - 1]!.cursor;
          this.apply(batch.map(({ event }) => event));
        },
        onReset: () => this.reset(),
        onLink: (state, error) => this.setLink(state, error),
      });
      this.setLink(signal?.aborted ? "idle" : "ended");
    } catch (error) {
      this.setLink("failed", error as TokenwireError);
    }
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

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const hidden = typeof document === "undefined" || document.hidden;
    if (!hidden && typeof requestAnimationFrame === "function") {
      // The page may be hidden before the frame comes; whichever is first tells.
      const timer = setTimeout(this.publish, HIDDEN_MS);
      requestAnimationFrame(() => {
        clearTimeout(timer);
        this.publish();
      });
    } else setTimeout(this.publish, typeof document === "undefined" ? 0 : HIDDEN_MS);
  }
}
