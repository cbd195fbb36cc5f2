/* A question and its answer, and what a conversation is made and shown with. */

import type { TokenwireError } from "../core/errors.js";
import { stateOf } from "../core/fold.js";
import type { Message } from "./history.js";
import type { RunMeter } from "./meter.js";
import type { QueuedTurn, WhileBusy } from "./thread.js";
import type { ClientTool } from "./page-tools.js";
import type { RunStore } from "./store.js";

export interface Turn {
  /** Stays the same from the question to the end, and is the run's id after a reload. */
  id: string;
  run?: string;
  parent: string;
  prompt: string;
  /** The whole question, where it is more than text. */
  content?: Record<string, unknown>[];
  model?: string;
  /** Who asked, where the server tells people apart. */
  by?: string;
  created: number;
  store: RunStore;
  meter: RunMeter;
  /** Why it could not be started. */
  error?: TokenwireError;
  /** A stop was asked for: it waits for the run's id or for the network, or the server took it and
   * the run is about to end. */
  stopping?: "pending" | "accepted";
  /** Why the server refused the last stop. */
  stopError?: TokenwireError;
  /** Sent with its start: asking again after a lost answer finds the run that was started. */
  key: string;
  /** No server could be reached yet: it is sent as soon as one can. */
  isUnsent?: boolean;
  /** It follows what is there, whatever that is when the server gets it. */
  floats?: boolean;
  /** Its run was given the whole conversation by its client, and not by the server. */
  isWhole?: boolean;
}

/** A turn that waits, as it is shown. */
export interface WaitingQuestion extends QueuedTurn {
  /** It is not with the server yet, and can only be withdrawn. */
  unsent?: Turn;
}

export interface ConversationView {
  thread: string;
  /** From the first question to the newest, along the chosen branch. */
  turns: Turn[];
  /** What will be answered next, in this order. */
  queue: WaitingQuestion[];
  loading: boolean;
  /** Whether the server has earlier turns than those that were read: `loadEarlier` reads more. */
  earlier: boolean;
  /** Why the thread could not be read. */
  error?: TokenwireError;
  /** It is not there any more: it was erased, or this person does not belong to it any more. */
  isGone?: boolean;
}

export interface AskOptions {
  /** The turn that the question follows; the last one shown, unless told. */
  after?: Turn | undefined;
  /** The question as parts of a message (text, files), where it is more than text. */
  content?: Record<string, unknown>[] | undefined;
  /** More fields of this start. */
  request?: Record<string, unknown>;
}

export interface ConversationOptions {
  thread?: string;
  model?: string;
  system?: string;
  /** What a question does while another one is answered; the server's rule, unless told. */
  whileBusy?: WhileBusy | undefined;
  /** A question that cannot be sent is held until the server can be reached (`turn.isUnsent`); it
   * fails after a few tries, unless told. */
  holdsUnsent?: boolean | undefined;
  /** More fields of every start: temperature, tools, ... */
  request?: Record<string, unknown>;
  /** Tools that this page runs, by name. */
  tools?: Record<string, ClientTool>;
}

export function textIn({ content }: Message): string {
  if (typeof content === "string") return content;
  return content.map(({ text }) => (typeof text === "string" ? text : "")).join("");
}

/** Whether an answer is being written or waited for. */
export function isBusy(turn: Turn | undefined): boolean {
  if (!turn || turn.error) return false;
  const { state, link } = turn.store.getSnapshot();
  return link !== "failed" && ["running", "waiting"].includes(stateOf(state));
}
