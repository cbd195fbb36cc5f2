/* Reading a run by long polling: for proxies that hold streams back. */

import { errorOf } from "./errors.js";
import type { Connect } from "./reader.js";

interface Page {
  events: { cursor: string; event: unknown }[];
  next: string;
  closed: boolean;
}

export function pollWay(path: string, get: (path: string, init: RequestInit) => Promise<Response>) {
  const way: Connect = async ({ after, signal, alive, take, flush, over }) => {
    for (;;) {
      const query = new URLSearchParams({ live: "long-poll", ...(after ? { after } : {}) });
      const response = await get(`${path}?${query}`, { signal });
      if (!response.ok) throw await errorOf(response);
      const page = (await response.json()) as Page;
      alive();
      for (const { cursor, event } of page.events) take(cursor, JSON.stringify(event));
      flush();
      if (page.closed) return over();
      after = page.next;
    }
  };
  return way;
}
