/* The list of conversations, as the server keeps it, the same in every tab.

Always true: what this page changes is shown at once and told to the other tabs; what the server
refuses is taken back and its error thrown. */

import type { TokenwireClient } from "@tokenwire/client";

export interface ThreadEntry {
  id: string;
  title: string;
  /** Unix milliseconds. */
  updated: number;
}

/** What one tab tells the others. */
type News = { kept: ThreadEntry } | { removed: string };

/** A conversation that was just begun here may be missing in the server's list for so long. */
const FRESH_MS = 30_000;
const UNNAMED = "Conversation";

export class ThreadList {
  #entries: ThreadEntry[] = [];
  #listeners = new Set<() => void>();
  /** Erased here or in another tab: who shows one of these leaves it. */
  readonly removed = new Set<string>();
  #channel = typeof BroadcastChannel === "function" ? new BroadcastChannel("tokenwire:threads") : undefined;

  constructor(readonly client: TokenwireClient) {
    if (this.#channel) this.#channel.onmessage = ({ data }) => this.#take(data as News);
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  getSnapshot = (): ThreadEntry[] => this.#entries;

  /** Reads the server's list. */
  async refresh(): Promise<void> {
    const told = (await this.client.json("GET", "/v1/threads")) as {
      threads: { thread: string; title?: string; updated: number }[];
    };
    const entries = told.threads
      .filter(({ thread }) => !this.removed.has(thread))
      .map(({ thread, title, updated }) => ({ id: thread, title: title || UNNAMED, updated: updated * 1000 }));
    const known = new Set(entries.map(({ id }) => id));
    const fresh = this.#entries.filter(({ id, updated }) => !known.has(id) && updated > Date.now() - FRESH_MS);
    this.#set([...fresh, ...entries]);
  }

  /** A question was asked in `id`: it moves up, and is named by its first question as on the
   * server. */
  touch(id: string, question: string): void {
    const title = this.#find(id)?.title ?? titleOf(question);
    this.removed.delete(id);
    this.#tell({ kept: { id, title, updated: Date.now() } });
  }

  /** Gives a title; an empty one gives back the name that the conversation had by itself. */
  async rename(id: string, title: string): Promise<void> {
    const before = this.#find(id);
    if (!before || title === before.title) return;
    if (title) this.#tell({ kept: { ...before, title } });
    try {
      const told = (await this.client.json("PUT", this.#path(id), { title })) as { title?: string };
      this.#tell({ kept: { ...(this.#find(id) ?? before), title: told.title ?? UNNAMED } });
    } catch (error) {
      this.#tell({ kept: before });
      throw error;
    }
  }

  /** Erases the conversation and its runs. */
  async remove(id: string): Promise<void> {
    const before = this.#find(id);
    this.#tell({ removed: id });
    try {
      await this.client.json("DELETE", this.#path(id));
    } catch (error) {
      this.removed.delete(id);
      if (before) this.#tell({ kept: before });
      throw error;
    }
  }

  #path(id: string): string {
    return `/v1/threads/${encodeURIComponent(id)}`;
  }

  #find(id: string): ThreadEntry | undefined {
    return this.#entries.find((entry) => entry.id === id);
  }

  #tell(news: News): void {
    this.#take(news);
    this.#channel?.postMessage(news);
  }

  #take(news: News): void {
    const id = "kept" in news ? news.kept.id : news.removed;
    const rest = this.#entries.filter((entry) => entry.id !== id);
    if ("kept" in news) {
      this.removed.delete(id);
      this.#set([news.kept, ...rest]);
    } else {
      this.removed.add(id);
      this.#set(rest);
    }
  }

  #set(entries: ThreadEntry[]): void {
    this.#entries = entries.sort((a, b) => b.updated - a.updated);
    for (const listener of [...this.#listeners]) listener();
  }
}

export function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0]!.replace(/\s+/g, " ");
  return line.length > 80 ? `${line.slice(0, 79).trimEnd()}…` : line || UNNAMED;
}

/** Conversations whose title holds every word of `wanted`, whatever its case and accents. */
export function found(list: ThreadEntry[], wanted: string): ThreadEntry[] {
  const words = plain(wanted).split(/\s+/).filter(Boolean);
  return words.length ? list.filter(({ title }) => words.every((word) => plain(title).includes(word))) : list;
}

function plain(text: string): string {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

const DAY = 86_400_000;

/** In the order given, by how long ago they were used. */
export function byAge(list: ThreadEntry[], now: Date): { name: string; entries: ThreadEntry[] }[] {
  const today = new Date(now).setHours(0, 0, 0, 0);
  const bounds = [
    ["Today", today],
    ["Yesterday", today - DAY],
    ["Last 7 days", today - 6 * DAY],
    ["Earlier", -Infinity],
  ] as const;
  const groups = bounds.map(([name]) => ({ name, entries: [] as ThreadEntry[] }));
  for (const entry of list) groups[bounds.findIndex(([, from]) => entry.updated >= from)]!.entries.push(entry);
  return groups.filter(({ entries }) => entries.length);
}
