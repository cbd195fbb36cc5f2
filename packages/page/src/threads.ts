/* The list of conversations: kept on the server where it keeps one, else in this browser. */

import type { TokenwireClient } from "@tokenwire/client";

export interface ThreadEntry {
  id: string;
  title: string;
  /** Unix milliseconds. */
  updated: number;
}

const KEY = "tokenwire.threads";
const MOST = 200;

export class ThreadList {
  #entries: ThreadEntry[] = [];
  #listeners = new Set<() => void>();
  #onServer = true;

  constructor(readonly client: TokenwireClient) {
    this.#entries = readLocal();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  getSnapshot = (): ThreadEntry[] => this.#entries;

  /** Reads the server's list. A server without one leaves the browser's own. */
  async refresh(): Promise<void> {
    try {
      const told = (await this.client.json("GET", "/v1/threads")) as {
        threads?: Record<string, unknown>[];
      };
      this.#onServer = true;
      const local = new Map(readLocal().map((entry) => [entry.id, entry]));
      this.#set(
        (told.threads ?? []).map((one) => {
          const id = String(one.thread ?? one.id);
          const updated = Number(one.updated ?? one.created ?? 0) * 1000;
          const title = typeof one.title === "string" && one.title ? one.title : undefined;
          return { id, title: title ?? local.get(id)?.title ?? "Conversation", updated };
        }),
      );
    } catch {
      this.#onServer = false;
    }
  }

  /** A question was asked in `id`: it moves up, and is named by its first question. */
  touch(id: string, question: string): void {
    const known = this.#entries.find((entry) => entry.id === id);
    const title = known?.title ?? titleOf(question);
    const rest = this.#entries.filter((entry) => entry.id !== id);
    this.#set([{ id, title, updated: Date.now() }, ...rest]);
    void this.#put(id, { title });
  }

  rename(id: string, title: string): void {
    this.#set(this.#entries.map((entry) => (entry.id === id ? { ...entry, title } : entry)));
    void this.#put(id, { title });
  }

  /** Forgets the conversation, and erases its runs. */
  async remove(id: string): Promise<void> {
    this.#set(this.#entries.filter((entry) => entry.id !== id));
    const path = `/v1/threads/${encodeURIComponent(id)}`;
    try {
      if (this.#onServer) await this.client.json("DELETE", path);
      else {
        const { runs } = (await this.client.json("GET", path)) as { runs: { id: string }[] };
        await Promise.all(runs.map((run) => this.client.json("DELETE", `/v1/runs/${run.id}`)));
      }
    } catch {
      // What cannot be erased now expires by the server's retention.
    }
  }

  async #put(id: string, body: object): Promise<void> {
    if (!this.#onServer) return;
    try {
      await this.client.json("PUT", `/v1/threads/${encodeURIComponent(id)}`, body);
    } catch {
      // The title is a convenience; the conversation itself is in its runs.
    }
  }

  #set(entries: ThreadEntry[]): void {
    this.#entries = entries.sort((a, b) => b.updated - a.updated).slice(0, MOST);
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#entries));
    } catch {
      // Private windows may have no storage; the list then lives as long as the page.
    }
    for (const listener of [...this.#listeners]) listener();
  }
}

function readLocal(): ThreadEntry[] {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]") as ThreadEntry[];
    return Array.isArray(kept) ? kept.filter((one) => typeof one?.id === "string") : [];
  } catch {
    return [];
  }
}

export function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0] ?? "";
  return line.length > 48 ? `${line.slice(0, 47).trimEnd()}…` : line || "Conversation";
}
