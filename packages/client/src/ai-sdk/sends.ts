/* What a chat sends, until its answer is read to the end.

Always true: a run that a request of the chat reads is not replayed into the same chat: the replay
would put the message back to where the run was before the request. */

import { orAborted, type StoppableRun } from "../core/stop.js";

/** One request of a chat. */
class Send {
  readonly over: Promise<void>;
  isOver = false;
  /** It reached no run, or could not be sent. */
  isFailed = false;
  #settle!: () => void;

  constructor(readonly current: StoppableRun) {
    this.over = new Promise((settle) => (this.#settle = settle));
  }

  end(isFailed: boolean): void {
    this.isOver = true;
    this.isFailed = isFailed;
    this.#settle();
  }
}

export class Sends {
  /** chat -> its newest request */
  #newest = new Map<string, Send>();

  /** A request that reads `current` begins. Returns what ends it; `isFailed`: it reads nothing. */
  begin(chatId: string, current: StoppableRun): (isFailed?: boolean) => void {
    const send = new Send(current);
    this.#newest.set(chatId, send);
    return (isFailed = false) => send.end(isFailed);
  }

  /** Tells, of any run, whether a request that is under way now, or that begins later, reads it. */
  watch(chatId: string): (run: string) => boolean {
    const before = this.#newest.get(chatId);
    const passed = before?.isOver ? before : undefined;
    return (run) => {
      const send = this.#newest.get(chatId);
      return !!send && send !== passed && !send.isFailed && send.current.run === run;
    };
  }

  /** Resolves when no request of the chat is under way; rejects with the reason of `signal`. */
  async settled(chatId: string, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      const send = this.#newest.get(chatId);
      if (!send || send.isOver) return;
      await orAborted(send.over, signal);
      // The chat may go on by itself, with an answer to what the run waits for next.
      await new Promise((turn) => setTimeout(turn));
    }
  }
}
