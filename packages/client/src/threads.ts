/* The list of conversations that the server keeps for this principal, as something to subscribe to.

Always true: what is shown is the server's list with what was changed here since; what the server
refuses is shown as an error. */

import { threadPath, type TokenwireClient } from "./client.js";
import type { TokenwireError } from "./errors.js";
import { asError } from "./reader.js";

export interface ThreadEntry {
  thread: string;
  title?: string;
  /** Unix seconds. */
  updated: number;
}

export interface ThreadsView {
  threads: ThreadEntry[];
  loading: boolean;
  error?: TokenwireError;
}

const LONGEST_TITLE = 48;

export class Threads {
  #view: ThreadsView = { threads: [], loading: true };
  #listeners = new Set<() => void>();
  /** What is asked of the server, one after another. */
  #queue = Promise.resolve();
  /** How often something was changed here. */
  #changes = 0;

  constructor(readonly client: TokenwireClient) {}

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  getSnapshot = (): ThreadsView => this.#view;

  refresh(): Promise<void> {
    return this.#ask(async () => {
      const before = this.#changes;
      const told = (await this.client.json("GET", "/v1/threads")) as { threads: ThreadEntry[] };
      if (before === this.#changes) this.#show({ threads: told.threads, loading: false });
      else void this.refresh(); // what was read is older than what is shown
    });
  }

  /** A question was asked: the conversation moves up, and its first question names it. */
  touch(thread: string, question: string): Promise<void> {
    const known = this.#view.threads.find((entry) => entry.thread === thread);
    const title = known?.title ?? titleOf(question);
    const rest = this.#view.threads.filter((entry) => entry !== known);
    this.#change([{ thread, title, updated: Date.now() / 1000 }, ...rest]);
    return known?.title ? Promise.resolve() : this.#ask(() => this.#name(thread, title));
  }

  rename(thread: string, title: string): Promise<void> {
    this.#change(this.#view.threads.map((e) => (e.thread === thread ? { ...e, title } : e)));
    return this.#ask(() => this.#name(thread, title));
  }

  /** Erases the conversation and all of its runs. */
  remove(thread: string): Promise<void> {
    this.#change(this.#view.threads.filter((entry) => entry.thread !== thread));
    return this.#ask(() => this.client.json("DELETE", threadPath(thread)));
  }

  #name(thread: string, title: string): Promise<unknown> {
    return this.client.json("PUT", threadPath(thread), { title });
  }

  #ask(work: () => Promise<unknown>): Promise<void> {
    this.#queue = this.#queue.then(work).then(
      () => undefined,
      (error: unknown) => this.#show({ loading: false, error: asError(error) }),
    );
    return this.#queue;
  }

  #change(threads: ThreadEntry[]): void {
    this.#changes++;
    this.#show({ threads });
  }

  #show(change: Partial<ThreadsView>): void {
    const { error: _, ...rest } = this.#view;
    this.#view = { ...rest, ...change };
    for (const listener of [...this.#listeners]) listener();
  }
}

/** The first line of a question, cut to a title. */
export function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0] ?? "";
  const cut = `${[...line].slice(0, LONGEST_TITLE - 1).join("").trimEnd()}…`;
  return [...line].length > LONGEST_TITLE ? cut : line || "Conversation";
}
