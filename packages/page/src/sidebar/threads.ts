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

/** How long a conversation is kept; undefined where the server does not tell. */
export function keptFor(view: { retention?: number; durability?: string }): string | undefined {
  const { retention, durability } = view;
  if (!retention || !(retention > 0)) return undefined;
  const [seconds, unit] = UNITS.find(([size]) => retention >= size * 2) ?? [1, "second"];
  const count = Math.round(retention / seconds);
  const until = durability === "memory" ? ", at most until the server stops" : "";
  return `Conversations are kept for ${count} ${unit}${count === 1 ? "" : "s"} after their last use${until}.`;
}

const UNITS = [
  [86_400, "day"],
  [3600, "hour"],
  [60, "minute"],
] as const;

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
