/* The request that asks a question, and its way to the server.

Always true: only what is new is in it, except after a turn whose run alone has what was before; it
is sent with one key until the server answers, so that it is one turn, also by a later page; what the
server has answered, or a person has taken back, is kept for no later page. */

import type { RunInfo, TokenwireClient } from "../core/client.js";
import { asError } from "../core/errors.js";
import { backoff, pause } from "../core/wait.js";
import type { Message } from "./history.js";
import { PageTools } from "./page-tools.js";
import type { SentTurn, TurnRequest } from "./thread.js";
import type { ConversationOptions, Turn } from "./turn.js";

/** Where a question belongs. */
export interface Place {
  /** After what is there, whatever that is when the server gets it. */
  floats?: boolean;
  /** Else the turn that it continues. */
  under?: Turn | undefined;
  /** The same, as the server is told. */
  where: Partial<TurnRequest>;
  /** The same question again. */
  isAgain?: boolean;
  /** It is in the place of a turn whose run holds what stands before it. */
  whole?: Turn;
}

export interface Asked {
  client: TokenwireClient;
  options: ConversationOptions;
  thread: string;
  model: string | undefined;
  /** More fields of this start. */
  request: Record<string, unknown>;
  /** The run before the turn in whose place this one comes, where `place.whole` is told. */
  before: string | undefined;
}

export async function requestOf(turn: Turn, place: Place, asked: Asked): Promise<TurnRequest> {
  const { request: given, system, whileBusy, tools = {} } = asked.options;
  const declared = PageTools.told(tools);
  return {
    history: "thread",
    ...(whileBusy ? { while_busy: whileBusy } : {}),
    ...given,
    ...(declared.length ? { tools: declared } : {}),
    ...(system ? { system } : {}),
    ...asked.request,
    ...(await contentOf(turn, place, asked.client)),
    thread: asked.thread,
    ...(asked.model ? { model: asked.model } : {}),
    metadata: {
      ...(given?.metadata as object | undefined),
      ask: turn.key,
      ...(place.whole ? { parent: asked.before ?? "" } : {}),
    },
  };
}

async function contentOf(turn: Turn, place: Place, client: TokenwireClient): Promise<TurnRequest> {
  if (place.isAgain) return place.where;
  const question = { role: "user", content: turn.content ?? turn.prompt };
  if (!place.whole) return { ...place.where, messages: [question] };
  // What stands before it is nowhere but in its run.
  const { input = [] } = (await client.snapshot(place.whole.run!)) as { input?: Message[] } & RunInfo;
  const at = input.findLastIndex(({ role }) => role === "user");
  return { parent: "", messages: [...input.slice(0, Math.max(at, 0)), question] };
}

/** A start is sent this often when no answer comes, unless it is held until the server is back. */
const TRIES = 4;

/** Sends the start until the server answers, whatever it says; `offline` is called once when it
 * cannot be reached. */
export async function sendTurn(
  client: TokenwireClient,
  request: TurnRequest,
  how: { key: string; giveUp: AbortSignal | undefined; holds: boolean; offline: () => void },
): Promise<SentTurn> {
  const { key, giveUp, holds, offline } = how;
  for (let tries = 0; ; tries++) {
    try {
      const headers = { "idempotency-key": key };
      return (await client.json("POST", "/v1/runs", request, undefined, headers)) as SentTurn;
    } catch (error) {
      const failed = asError(error);
      if (failed.status > 0 || giveUp?.aborted || (!holds && tries + 1 >= TRIES)) throw failed;
      if (!tries) offline();
      await pause(backoff(tries), giveUp);
      if (giveUp?.aborted) throw failed;
    }
  }
}

/** A question that the server does not have yet, as a reload leaves it. */
export interface UnsentQuestion {
  /** The idempotency key of its start. */
  key: string;
  prompt: string;
  /** The whole question, where it is more than text. */
  content?: Record<string, unknown>[];
  model?: string;
  /** Unix seconds. */
  created: number;
  request: TurnRequest;
}

/** A place to keep them: of one person, and for each conversation its own. */
export interface UnsentPlace {
  read(thread: string): UnsentQuestion[];
  /** In the place of what was there; may throw, the questions are then lost with the page. */
  write(thread: string, questions: UnsentQuestion[]): void;
}

export class UnsentQuestions {
  #questions = new Map<string, UnsentQuestion>();
  #place: UnsentPlace | undefined;

  constructor(readonly thread: string) {}

  /** They are kept here from now on; the questions that an earlier page left are returned. */
  keepIn(place: UnsentPlace): UnsentQuestion[] {
    this.#place = place;
    const left = place.read(this.thread).filter(({ key }) => !this.#questions.has(key));
    this.#questions = new Map([...left, ...this.#questions.values()].map((one) => [one.key, one]));
    if (this.#questions.size > left.length) this.#write();
    return left;
  }

  add(turn: Turn, request: TurnRequest): void {
    const { key, prompt, content, model, created } = turn;
    const more = { ...(content ? { content } : {}), ...(model ? { model } : {}) };
    this.#questions.set(key, { key, prompt, created, request, ...more });
    this.#write();
  }

  /** `started`; the question is dropped when that settles, unless it was not for whom it would have gone
   * out: then it stays for its writer. */
  async settle(key: string, started: Promise<string>): Promise<string> {
    try {
      const run = await started;
      this.drop(key);
      return run;
    } catch (error) {
      if (asError(error).code !== "other_reader") this.drop(key);
      throw error;
    }
  }

  drop(key: string): void {
    if (this.#questions.delete(key)) this.#write();
  }

  #write(): void {
    try {
      this.#place?.write(this.thread, [...this.#questions.values()]);
    } catch {
      // There is no room: they live as long as the page.
    }
  }
}
