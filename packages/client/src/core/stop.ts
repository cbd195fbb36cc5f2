/* Stopping a run, also one that has no id yet.

Always true: a request to stop is kept until the server took it or refused it, through any loss of
the network; it goes to the run that it was meant for, and to no other. */

import type { TokenwireClient } from "./client.js";
import { asError, isFatal, type TokenwireError } from "./errors.js";
import { backoff, pause } from "./wait.js";

/** Asks the server until it answers: at once when the network or the person is back. Rejects when
 * the server refuses, or when `signal` aborts first. */
export async function untilAnswered<T>(ask: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      const failed: TokenwireError = asError(error);
      if (isFatal(failed) || signal?.aborted) throw failed;
      const named = failed.retryAfter;
      await pause(named ?? backoff(tries), signal, named === undefined);
      if (signal?.aborted) throw failed;
    }
  }
}

export interface StartOptions {
  /** Sends the start; further tries of it end with the signal. */
  start(giveUp: AbortSignal): Promise<string>;
  /** The run, after an answer to the start was lost and a stop was requested; undefined when the
   * server has none. */
  find(): Promise<string | undefined>;
}

/** A run from the moment of its start: it may be stopped at any time. */
export class StoppableRun {
  /** The server's id of it. */
  run: string | undefined;
  /** Settles with the id when the run has begun; rejects with the reason when it has not. */
  readonly started: Promise<string>;
  #giveUp = new AbortController();
  #stop: Promise<void> | undefined;

  constructor(
    readonly client: Pick<TokenwireClient, "cancel">,
    readonly options: StartOptions,
  ) {
    this.started = this.#start();
    this.started.catch(() => undefined); // also when nobody waits for it
  }

  /** A run that is under way. */
  static of(client: Pick<TokenwireClient, "cancel">, run: string): StoppableRun {
    const known = async () => run;
    const stoppable = new StoppableRun(client, { start: known, find: known });
    stoppable.run = run;
    return stoppable;
  }

  get isStopRequested(): boolean {
    return !!this.#stop;
  }

  /** Ends further tries of the start; a run that has begun goes on. */
  giveUp(): void {
    this.#giveUp.abort();
  }

  /** Resolves when the server took it, or when no run was started; rejects when it refuses, and may
   * be called again then. */
  stop(): Promise<void> {
    this.giveUp();
    this.#stop ??= this.#send().catch((error: unknown) => {
      this.#stop = undefined;
      throw error;
    });
    return this.#stop;
  }

  async #send(): Promise<void> {
    const run = this.run ?? (await this.started.catch(() => undefined));
    if (run) await untilAnswered(() => this.client.cancel(run));
  }

  async #start(): Promise<string> {
    await Promise.resolve(); // `stop` may be asked for in the same turn
    try {
      return (this.run = await this.options.start(this.#giveUp.signal));
    } catch (error) {
      const failed = asError(error);
      // The answer may be lost, and the run under way.
      if (failed.status > 0 || !this.#stop) throw error;
      this.run = await untilAnswered(() => this.options.find());
      if (!this.run) throw error;
      return this.run;
    }
  }
}

/** `work`, or the reason of `signal` if that is first. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason as Error);
    signal.addEventListener("abort", abort);
    if (signal.aborted) abort();
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
