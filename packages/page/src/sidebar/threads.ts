/* Which conversations the list shows, and under which heading. */

import type { ThreadEntry } from "@tokenwire/client/threads";

const UNNAMED = "Conversation";

export function nameOf({ title }: Pick<ThreadEntry, "title">): string {
  return title || UNNAMED;
}

/** Conversations whose title holds every word of `wanted`, whatever its case and accents. */
export function found(list: ThreadEntry[], wanted: string): ThreadEntry[] {
  const words = plain(wanted).split(/\s+/).filter(Boolean);
  return words.length ? list.filter((entry) => words.every((word) => plain(nameOf(entry)).includes(word))) : list;
}

function plain(text: string): string {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

const DAY = 86_400_000;

/** In the order given, by how long ago they were used. */
export function byAge(list: ThreadEntry[], now: Date): { name: string; entries: ThreadEntry[] }[] {
  const today = new Date(now).setHours(0, 0, 0, 0);
  const bounds = [
    ["Today", today],
    ["Yesterday", today - DAY],
    ["Last 7 days", today - 6 * DAY],
    ["Earlier", -Infinity],
  ] as const;
  const groups = bounds.map(([name]) => ({ name, entries: [] as ThreadEntry[] }));
  for (const entry of list) {
    groups[bounds.findIndex(([, from]) => entry.updated * 1000 >= from)]!.entries.push(entry);
  }
  return groups.filter(({ entries }) => entries.length);
}
