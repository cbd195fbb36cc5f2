/* What a person wrote and the server does not have, kept for a reload of this tab.

Always true: it is kept under whose it is, and nobody else is shown it; of whoever is not signed in
any more nothing stays. */

import type { UnsentPlace, UnsentQuestion } from "@tokenwire/client/conversation";

const BEGINNING = "tokenwire.unsent.";

/** The name of something that is kept of this person. */
export function keptName(reader: string, ...names: string[]): string {
  return [BEGINNING + reader, ...names].join(" ");
}

/** Questions that were sent and have no answer. */
export function placeOf(reader: string): UnsentPlace {
  const name = (thread: string) => keptName(reader, "questions", thread);
  return {
    read: (thread) => {
      try {
        return JSON.parse(sessionStorage.getItem(name(thread)) ?? "[]") as UnsentQuestion[];
      } catch {
        return [];
      }
    },
    write: (thread, questions) => {
      // There may be no room for the new value: the old one must not be sent once more.
      sessionStorage.removeItem(name(thread));
      if (questions.length) sessionStorage.setItem(name(thread), JSON.stringify(questions));
    },
  };
}

/** Nothing stays but what is of this person; nothing at all without one. */
export function forgetOthers(reader?: string): void {
  try {
    for (const name of Object.keys(sessionStorage)) {
      const isOthers = name.startsWith(BEGINNING) && (!reader || !name.startsWith(`${BEGINNING + reader} `));
      if (isOthers) sessionStorage.removeItem(name);
    }
  } catch {
    // Without storage nothing is kept.
  }
}
