/* Errors of a conversation in a person's words: what happened, and what to do. */

import type { TokenwireError } from "@tokenwire/client";

const WORDS: Record<string, string> = {
  history_conflict: "This conversation changed on another device. It has been read again: look at it, and send once more.",
  thread_busy: "Another question is being answered here. Wait for the answer, or stop it.",
  conflict: "It is being answered already, and can no longer be changed.",
  forbidden: "You may read this conversation, but not write in it.",
  other_reader: "Another person is signed in here now. It was not done.",
  network: "The server cannot be reached.",
};

/** What a person reads of an error. */
export function plainWords({ code, message, status }: Pick<TokenwireError, "code" | "message" | "status">): string {
  if (status === 404) return "It is no longer there.";
  return (Object.hasOwn(WORDS, code) && WORDS[code]) || message;
}
