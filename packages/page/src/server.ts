/* The server of this page: where the page was loaded from, also under a prefix of another application.

Always true: nothing that was written for one person is sent as another. */

import { TokenwireClient } from "@tokenwire/client";

/** The server's address of a page at `address`, without a slash at the end; empty at the root of its
 * origin, so that names of channels stay what they are. */
export function serverOf(address: string): string {
  const { origin, pathname } = new URL(".", address);
  return pathname === "/" ? "" : origin + pathname.replace(/\/$/, "");
}

/** Whose page this is, once the server has said so. */
let owner: string | undefined;

/** Whether this page is of the reader that the server names now; of the first one that is known. */
export function isOwner(reader: string | undefined): boolean {
  owner ??= reader;
  return reader === owner;
}

/** Another person is signed in: what this page holds of its owner, also what is on its way, ends with
 * it. */
export function startOver(): void {
  if (location.hash.startsWith("#t=")) history.replaceState(null, "", location.pathname);
  location.reload();
}

export const client = new TokenwireClient({
  baseUrl: serverOf(location.href),
  // The cookie is of the browser. What the page sends as somebody else than its owner is refused.
  headers: (): Record<string, string> => (owner ? { "tokenwire-reader": owner } : {}),
  fetch: async (input, init) => {
    const response = await fetch(input, init);
    const isRefused = response.status === 412 && (await response.clone().text()).includes("other_reader");
    if (isRefused) startOver();
    return response;
  },
});
