/* What waits in a conversation: the server's queue, and what is not with the server yet.

Always true: the order is that in which the turns will be answered; a change that the server refuses
leaves the queue as the server has it. */

import { asError } from "../core/errors.js";
import type { Message } from "./history.js";
import { isMoreThanText, lastQuestion } from "./questions.js";
import type { QueuedTurn, ThreadRequests, TurnQueue } from "./thread.js";
import { textIn, type Turn, type WaitingQuestion } from "./turn.js";

/** All that a turn asks that waits. */
export interface WholeQuestion {
  prompt: string;
  /** Where it is more than text. */
  content?: Record<string, unknown>[];
}

export class WaitingTurns {
  #queue: QueuedTurn[] = [];
  /** Questions of this page whose start has no answer yet, while another turn is under way. */
  #unsent: Turn[] = [];
  /** Changes of the queue here: what was read before one is older. */
  changes = 0;

  constructor(
    readonly thread: ThreadRequests,
    readonly changed: () => void,
  ) {}

  get view(): WaitingQuestion[] {
    const unsent = this.#unsent.map((turn) => ({ id: turn.id, text: turn.prompt, created: turn.created, edits: 0, unsent: turn }));
    return [...this.#queue, ...unsent];
  }

  get size(): number {
    return this.#queue.length + this.#unsent.length;
  }

  /** Whether the server has turns that wait. */
  get isPending(): boolean {
    return this.#queue.length > 0;
  }

  /** The server's queue; without turns that have begun, of which `hasRun` says. */
  read(queue: QueuedTurn[] | undefined, hasRun: (run: string) => boolean): void {
    this.#queue = (queue ?? []).filter(({ id }) => !hasRun(id));
  }

  hold(turn: Turn): void {
    this.#unsent.push(turn);
  }

  holds(turn: Turn): boolean {
    return this.#unsent.includes(turn);
  }

  /** The start of a turn has its answer, or will have none. */
  release(turn: Turn): void {
    this.#unsent = this.#unsent.filter((one) => one !== turn);
  }

  /** A turn that was sent waits. */
  add(entry: QueuedTurn, position: number | undefined): void {
    this.changes++;
    const rest = this.#queue.filter(({ id }) => id !== entry.id);
    const at = position === undefined ? rest.length : Math.min(position - 1, rest.length);
    this.#queue = [...rest.slice(0, at), entry, ...rest.slice(at)];
  }

  /** All that a turn asks that waits: the list has the beginning. */
  async whole(run: string): Promise<WholeQuestion> {
    const { messages } = await this.thread.waiting(run);
    const asked: Message = lastQuestion(messages) ?? { role: "user", content: "" };
    const content = asked.content as Record<string, unknown>[];
    return { prompt: textIn(asked), ...(isMoreThanText(asked) ? { content } : {}) };
  }

  /** Asks something else in the place of a turn that waits; with its files, unless `content` says
   * otherwise. Rejects when it has begun. */
  async edit(run: string, prompt: string, content?: Record<string, unknown>[]): Promise<void> {
    let parts = content;
    if (!parts) {
      const files = (await this.whole(run)).content?.filter(({ type }) => type !== "text");
      if (files?.length) parts = [{ type: "text", text: prompt }, ...files];
    }
    const question = parts ? [{ role: "user", content: parts }] : prompt;
    await this.#change(() => this.thread.edit(run, question));
  }

  async withdraw(run: string): Promise<void> {
    await this.#change(() => this.thread.withdraw(run));
  }

  /** Withdraws it where it waits; false when it does not, or has begun meanwhile. */
  async isWithdrawn(run: string): Promise<boolean> {
    if (!this.#queue.some(({ id }) => id === run)) return false;
    try {
      await this.withdraw(run);
      return true;
    } catch (error) {
      if (![404, 409].includes(asError(error).status)) throw error;
      return false;
    }
  }

  async sendNow(run: string): Promise<void> {
    await this.#change(() => this.thread.sendNow(run));
  }

  async #change(act: () => Promise<object>): Promise<void> {
    this.changes++;
    try {
      const reply = (await act()) as Partial<TurnQueue>;
      this.changes++;
      if (reply.queue) this.#queue = reply.queue;
    } catch (error) {
      this.changes++;
      throw asError(error);
    } finally {
      this.changed();
    }
  }
}

/** How often a shown conversation is asked whether it has new runs; and while a turn is about to
 * begin. */
export const LOOK_MS = 5000;
const SOON_MS = 300;

/** When a conversation is read again though nobody told of a change: ever later while the same turn
 * waits first. */
export class Looks {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #first: string | undefined;
  #ms = SOON_MS;

  /** `first`: the turn that waits first. */
  soon(first: string | undefined, look: () => void): void {
    if (this.#timer) return;
    this.#ms = first === this.#first ? Math.min(this.#ms * 1.3, LOOK_MS) : SOON_MS;
    this.#first = first;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      look();
    }, this.#ms);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
