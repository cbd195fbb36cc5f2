import type { ThreadEntry } from "@tokenwire/client/threads";
import { expect, test } from "vitest";
import { byAge, found, keptFor } from "../../src/sidebar/threads.js";

const entry = (title: string, updated = 0): ThreadEntry => ({ thread: title, title, updated });

test("titles are found by their words, without case and accents", () => {
  const list = [entry("Café in Lisbon"), entry("Quicksort"), entry("A lisbon plan")];
  expect(found(list, "lisbon")).toEqual([list[0], list[2]]);
  expect(found(list, " LISBON cafe ")).toEqual([list[0]]);
  expect(found(list, "  ")).toBe(list);
  expect(found(list, "zzz")).toEqual([]);
});

test("groups by age keep every entry and their order", () => {
  const now = new Date(2026, 4, 20, 12);
  const list = [1, 13, 40, 24 * 6, 24 * 20, 24 * 400].map((hours) =>
    entry(`${hours} h`, now.getTime() / 1000 - hours * 3600),
  );
  const groups = byAge(list, now);
  expect(groups.map(({ name }) => name)).toEqual(["Today", "Yesterday", "Last 7 days", "Earlier"]);
  expect(groups.flatMap(({ entries }) => entries)).toEqual(list);
  expect(groups.map(({ entries }) => entries.length)).toEqual([1, 1, 2, 2]);
  expect(byAge([], now)).toEqual([]);
});

test("how long a conversation is kept is said in words, where the server tells", () => {
  const words = (retention: number, durability = "process") => keptFor({ retention, durability });
  expect(words(86_400)).toBe("Conversations are kept for 24 hours after their last use.");
  expect(words(30 * 86_400)).toBe("Conversations are kept for 30 days after their last use.");
  expect(words(5400)).toBe("Conversations are kept for 90 minutes after their last use.");
  expect(words(1)).toBe("Conversations are kept for 1 second after their last use.");
  expect(words(7200, "memory")).toMatch(/2 hours after their last use, at most until the server stops\.$/);
  expect(keptFor({})).toBeUndefined();
});
