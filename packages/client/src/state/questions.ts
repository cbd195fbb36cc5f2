/* What turns asked, where the server's list of runs does not say it.

Always true: a question is read once; what another client sent in another form is read as what it
asked last. */

import type { RunInfo, TokenwireClient } from "../core/client.js";
import { asError } from "../core/errors.js";
import type { Message } from "./history.js";
import type { ThreadRequests } from "./thread.js";
import type { TurnTree } from "./tree.js";
import { textIn, type Turn } from "./turn.js";

/** Turns of one page. */
const MOST = 100;

export class Questions {
  #unread = new Set<Turn>();

  constructor(
    readonly client: TokenwireClient,
    readonly thread: ThreadRequests,
    readonly tree: TurnTree,
  ) {}

  add(turn: Turn): void {
    this.#unread.add(turn);
  }

  /** Reads what is missing: of the branch that counts by pages, of others from their ends. */
  async read(signal: AbortSignal): Promise<void> {
    const shown = this.tree.shown();
    // The newest that is missing is at the end, or before what was read earlier.
    const at = shown.findLastIndex((turn) => this.#unread.has(turn));
    if (at >= 0 && !shown[at]!.isWhole) await this.#readBefore(shown.slice(0, at + 1), shown[at + 1]?.run, signal);
    for (const turn of this.tree.all().reverse()) {
      if (!this.#unread.has(turn)) continue;
      await this.#readPath(turn, signal);
      await this.#readBefore(this.tree.path(turn).slice(0, -1), turn.run, signal);
    }
  }

  /** Reads the questions of `turns`, which end before the run `before` or at the head. */
  async #readBefore(turns: Turn[], before: string | undefined, signal: AbortSignal): Promise<void> {
    const first = turns.findIndex((turn) => this.#unread.has(turn) && !turn.isWhole);
    if (first < 0) return;
    // One more, as the head may be newer than what was read.
    const limit = Math.min(MOST, turns.length - first + 1);
    try {
      const page = await this.thread.turns({ limit, signal, ...(before ? { before } : {}) });
      for (const { run, messages } of page.turns) {
        const turn = this.tree.ofRun(run);
        if (turn && !turn.isWhole) this.#take(turn, lastQuestion(messages));
      }
    } catch (error) {
      if (asError(error).status !== 404) throw error; // erased meanwhile
    }
  }

  /** What a run was given holds the questions before its own too, so one request reads a whole
   * branch with its files. */
  async #readPath(turn: Turn, signal: AbortSignal): Promise<void> {
    const { input = [] } = (await this.client.snapshot(turn.run!, signal)) as { input?: Message[] } & RunInfo;
    const questions = input.filter(({ role }) => role === "user");
    this.#take(turn, questions.pop());
    for (const before of this.tree.path(turn).slice(0, -1).reverse()) {
      const asked = questions.pop();
      const text = asked && textIn(asked);
      // Another client may have sent another history.
      if (text === undefined || (before.prompt ? !text.startsWith(before.prompt) : text)) break;
      this.#take(before, asked);
    }
  }

  #take(turn: Turn, asked?: Message): void {
    if (!this.#unread.delete(turn) || !asked) return;
    turn.prompt = textIn(asked);
    if (isMoreThanText(asked)) turn.content = asked.content as Record<string, unknown>[];
  }
}

export function lastQuestion(messages: Message[]): Message | undefined {
  return messages.findLast(({ role }) => role === "user");
}

export function isMoreThanText({ content }: Message): boolean {
  return typeof content !== "string" && content.some(({ type }) => type !== "text");
}
