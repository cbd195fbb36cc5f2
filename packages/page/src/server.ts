/* The server of this page: where the page was loaded from, also under a prefix of another application. */

import { TokenwireClient } from "@tokenwire/client";

/** The server's address of a page at `address`, without a slash at the end; empty at the root of its
 * origin, so that names of channels stay what they are. */
export function serverOf(address: string): string {
  const { origin, pathname } = new URL(".", address);
  return pathname === "/" ? "" : origin + pathname.replace(/\/$/, "");
}

export const client = new TokenwireClient({ baseUrl: serverOf(location.href) });
