/* The list of conversations that the server keeps for this principal, as something to subscribe to.

Always true: what is shown is the server's list with what was changed here or in another tab since;
what the server refuses is taken back and shown as an error. */

import { threadPath, type TokenwireClient } from "../core/client.js";
import { asError, type TokenwireError } from "../core/errors.js";
import type { ThreadEntry, ThreadListEvent } from "../live/events.js";
import { Events, type EventsOptions, type LinkState, listOf } from "../live/feed.js";
import { followFeed } from "../live/shared.js";

export type { ThreadEntry, ThreadListEvent };

/** What changes in the list, for `for await`: first a `snapshot` of the newest, or what follows the
 * cursor `after`. Goes on after any cut; throws `TokenwireError` when the server says no. */
export function followThreads(client: TokenwireClient, options: EventsOptions = {}): Events<ThreadListEvent> {
  return new Events(listOf(client), options);
}

export interface ThreadsView {
  /** Newest first. */
  threads: ThreadEntry[];
  loading: boolean;
  /** Seconds that the server keeps a conversation after its last use, where it tells. */
  retention?: number;
  /** Of the server's store; with `memory` a conversation ends with the server. */
  durability?: string;
  /** Stands for whose list it is. */
  reader?: string;
  /** Of the connection that brings changes, while `follow` is under way. */
  live?: LinkState | "failed";
  /** Why the list could not be read. */
  error?: TokenwireError;
  /** What the server did not do, by conversation, until it is asked for again. */
  failed?: ReadonlyMap<string, TokenwireError>;
}

type Page = Pick<ThreadsView, "threads" | "retention" | "durability" | "reader">;

/** What one tab tells the others. */
type News = { kept: ThreadEntry } | { removed: string };

/** Conversations of one list. */
const MOST = 20_000;
const LONGEST_TITLE = 80;
/** A conversation that was just begun may be missing in the server's list for so many seconds. */
const FRESH = 30;

export class Threads {
  #view: ThreadsView = { threads: [], loading: true };
  #listeners = new Set<() => void>();
  /** What is asked of the server, one after another. */
  #queue = Promise.resolve();
  /** How often something was changed here. */
  #changes = 0;
  #removed = new Set<string>();
  /** Those whose removal the server has not answered. */
  #removing = new Set<string>();
  /** What changed on the server while the list is read; null for what is gone. */
  #meanwhile: Map<string, ThreadEntry | null> | undefined;
  /** A snapshot was heard. */
  #hasBegun = false;
  /** Open while somebody listens. */
  #channel: BroadcastChannel | undefined;

  constructor(readonly client: TokenwireClient) {}

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    this.#listen();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size) return;
      this.#channel?.close();
      this.#channel = undefined;
    };
  };

  getSnapshot = (): ThreadsView => this.#view;

  /** Whether the conversation was erased, here or in another tab: who shows it leaves it. */
  isRemoved(thread: string): boolean {
    return this.#removed.has(thread);
  }

  refresh(): Promise<void> {
    return this.#ask(async () => {
      const before = this.#changes;
      const meanwhile = (this.#meanwhile = new Map<string, ThreadEntry | null>());
      const read = await this.#all();
      const older = read.threads.filter(({ thread }) => !meanwhile.has(thread));
      const newer = [...meanwhile.values()].filter((entry) => entry !== null);
      const told = { ...read, threads: [...older, ...newer] };
      if (before !== this.#changes) return void this.refresh(); // what was read is older than what is shown
      const known = new Set(told.threads.map(({ thread }) => thread));
      const since = Date.now() / 1000 - FRESH;
      const fresh = this.#view.threads.filter(({ thread, updated }) => !known.has(thread) && updated > since);
      const kept = told.threads.filter(({ thread }) => !this.#removed.has(thread));
      this.#show({ ...told, threads: newestFirst([...fresh, ...kept]), loading: false });
    });
  }

  /** Shows what changes on the server, until `signal` aborts: over one connection for all tabs. Never
   * rejects: the view tells. */
  async follow(signal: AbortSignal): Promise<void> {
    try {
      await followFeed(listOf(this.client), {
        signal,
        onEvents: (batch) => batch.forEach(({ event }) => this.#hear(event as unknown as ThreadListEvent)),
        onLink: (live) => !signal.aborted && this.#showBeside({ live }),
      });
    } catch (error) {
      if (!signal.aborted) this.#show({ live: "failed", loading: false, error: asError(error) });
    }
  }

  #hear(event: ThreadListEvent): void {
    if (event.type === "snapshot") {
      for (const entry of event.threads) this.#put(entry.thread, entry);
      // What is missing in a list that is whole is gone; else all of it is read again. A list that
      // begins anew may be of somebody else.
      const isAnew = this.#hasBegun;
      this.#hasBegun = true;
      if (isAnew || event.next !== undefined) void this.refresh();
      if (event.next !== undefined) return;
      const known = new Set(event.threads.map(({ thread }) => thread));
      const since = Date.now() / 1000 - FRESH;
      const threads = this.#view.threads.filter(({ thread, updated }) => known.has(thread) || updated > since);
      this.#showBeside({ threads, loading: false });
    } else if (event.type === "thread") this.#put(event.thread, event.entry);
    else if (event.type === "thread-gone") this.#put(event.thread, null);
  }

  /** The server's word on one conversation. */
  #put(thread: string, entry: ThreadEntry | null): void {
    if (entry && this.#removing.has(thread)) return;
    this.#meanwhile?.set(thread, entry);
    if (entry) this.#removed.delete(thread);
    else this.#removed.add(thread);
    const rest = this.#view.threads.filter((one) => one.thread !== thread);
    this.#showBeside({ threads: entry ? newestFirst([entry, ...rest]) : rest });
  }

  /** Every conversation, page by page. */
  async #all(): Promise<Page> {
    const all: ThreadEntry[] = [];
    let about: Omit<Page, "threads"> = {};
    for (let before = ""; all.length < MOST; ) {
      const query = before && `?${new URLSearchParams({ before })}`;
      const { threads, next, ...more } = (await this.client.json("GET", `/v1/threads${query}`)) as Page & {
        next?: string;
      };
      all.push(...threads);
      if (!before && more.reader && !this.#view.reader) this.#showBeside({ reader: more.reader });
      about = more;
      if (!next) break;
      before = next;
    }
    return { ...about, threads: all };
  }

  /** A question was asked: the conversation moves up, and its first question names it, as on the
   * server. */
  touch(thread: string, question: string): void {
    const before = this.#find(thread);
    const title = before?.title ?? titleOf(question);
    this.#tell({ kept: { ...before, thread, title, updated: Date.now() / 1000 } });
  }

  /** Gives a title; an empty one gives back the name that the conversation had by itself. */
  rename(thread: string, title: string): Promise<void> {
    const before = this.#find(thread);
    if (title && before) this.#tell({ kept: { ...before, title } });
    return this.#ask(async () => {
      const told = (await this.client.json("PUT", threadPath(thread), { title })) as ThreadEntry;
      const { title: named, updated } = told;
      const { title: _, ...rest } = this.#find(thread) ?? {};
      this.#tell({ kept: { ...rest, thread, ...(named ? { title: named } : {}), updated } });
    }, { thread, before });
  }

  /** Erases the conversation and all of its runs. */
  remove(thread: string): Promise<void> {
    const before = this.#find(thread);
    this.#tell({ removed: thread });
    this.#removing.add(thread);
    return this.#ask(async () => {
      try {
        await this.client.json("DELETE", threadPath(thread));
      } catch (error) {
        // Somebody else erased it first.
        if (asError(error).status !== 404) throw error;
      } finally {
        this.#removing.delete(thread);
      }
    }, { thread, before });
  }

  /** `about`: the conversation that is changed, and what is shown again when the server refuses. */
  #ask(
    work: () => Promise<unknown>,
    about?: { thread: string; before: ThreadEntry | undefined },
  ): Promise<void> {
    if (about) this.#fail(about.thread);
    this.#queue = this.#queue.then(work).then(
      () => undefined,
      (error: unknown) => {
        if (about?.before) this.#tell({ kept: about.before });
        const failed = asError(error);
        if (about) this.#fail(about.thread, failed);
        this.#show({ loading: false, error: failed });
      },
    );
    return this.#queue;
  }

  #fail(thread: string, error?: TokenwireError): void {
    const { failed: before } = this.#view;
    if (!error && !before?.has(thread)) return;
    const failed = new Map(before);
    if (error) failed.set(thread, error);
    else failed.delete(thread);
    this.#show({ failed });
  }

  #find(thread: string): ThreadEntry | undefined {
    return this.#view.threads.find((entry) => entry.thread === thread);
  }

  #listen(): void {
    const name = `tokenwire:threads:${this.client.baseUrl}:${this.#view.reader ?? ""}`;
    if (!this.#listeners.size || this.#channel?.name === name || typeof BroadcastChannel !== "function") return;
    this.#channel?.close();
    this.#channel = new BroadcastChannel(name);
    // A tab that hears the server itself needs no word of others.
    this.#channel.onmessage = ({ data }) => this.#view.live !== "live" && this.#take(data as News);
  }

  #tell(news: News): void {
    this.#take(news);
    this.#channel?.postMessage(news);
  }

  #take(news: News): void {
    this.#changes++;
    const thread = "kept" in news ? news.kept.thread : news.removed;
    const rest = this.#view.threads.filter((entry) => entry.thread !== thread);
    if ("kept" in news) this.#removed.delete(thread);
    else this.#removed.add(thread);
    this.#show({ threads: "kept" in news ? newestFirst([news.kept, ...rest]) : rest });
  }

  /** An error that is shown stays. */
  #showBeside(change: Partial<ThreadsView>): void {
    const { error } = this.#view;
    this.#show(error ? { ...change, error } : change);
  }

  #show(change: Partial<ThreadsView>): void {
    const { error: _, ...rest } = this.#view;
    this.#view = { ...rest, ...change };
    this.#listen();
    for (const listener of [...this.#listeners]) listener();
  }
}

function newestFirst(threads: ThreadEntry[]): ThreadEntry[] {
  return threads.sort((a, b) => b.updated - a.updated);
}

/** The first line of a question, cut to a title. */
export function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0]!.replace(/\s+/g, " ");
  const cut = `${[...line].slice(0, LONGEST_TITLE - 1).join("").trimEnd()}…`;
  return [...line].length > LONGEST_TITLE ? cut : line || "Conversation";
}
