/* Where a reader is, by chance: whatever connections it takes events from, and in whichever order
those mix a conversation's feed with its runs, each event is new once and in the order of its source. */

import { expect, it } from "vitest";
import type { FeedEvent } from "../../src/live/events.js";
import { Place } from "../../src/live/place.js";

/** The same numbers for the same seed. */
function chances(seed: number): (below: number) => number {
  let state = seed + 1;
  return (below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
}

const RUNS = ["run_aaaaaaaaaaaaaaaa", "run_bbbbbbbbbbbbbbbb", "run_cccccccccccccccc"];
const check = (n: number) => `${n}-0123456789abcdef`;

/** A conversation: its feed, and the events of its runs. */
function conversation(chance: (below: number) => number) {
  const feed: FeedEvent[] = [];
  const lengths = new Map<string, number>();
  const open: string[] = [];
  for (const run of RUNS) {
    for (let n = chance(3); n > 0; n--) feed.push({ type: "title" });
    feed.push({ type: "run-started", run });
    lengths.set(run, 2 + chance(5));
    open.push(run);
    while (open.length && chance(2)) feed.push({ type: "run-ended", run: open.splice(chance(open.length), 1)[0]! });
  }
  for (const run of open) feed.push({ type: "run-ended", run });
  return { feed, lengths };
}

/** A connection of the server from a cursor on: it mixes the sources as it likes. */
class Connection {
  #feed: number;
  #runs = new Map<string, number>();

  constructor(
    readonly of: ReturnType<typeof conversation>,
    readonly chance: (below: number) => number,
    cursor: string,
  ) {
    const [feed, ...runs] = cursor.split("~");
    this.#feed = parseInt(feed!, 10);
    for (const entry of runs.filter(Boolean)) this.#runs.set(entry.slice(0, 20), parseInt(entry.slice(21), 10));
  }

  get cursor(): string {
    const runs = [...this.#runs].map(([run, at]) => `~${run}:${at ? check(at) : "0"}`);
    return check(this.#feed) + (runs.join("") || "~");
  }

  next(): [string, FeedEvent] | undefined {
    const runs = [...this.#runs.keys()];
    const event = this.of.feed[this.#feed];
    const waits = event?.type === "run-ended" && this.#runs.has(event.run as string);
    const choices = [...runs, ...(event && !waits ? [""] : [])];
    if (!choices.length) return undefined;
    const run = choices[this.chance(choices.length)]!;
    if (!run) {
      this.#feed++;
      if (event!.type === "run-started") this.#runs.set(event!.run as string, 0);
      return [this.cursor, event!];
    }
    const at = this.#runs.get(run)! + 1;
    const isLast = at === this.of.lengths.get(run);
    this.#runs.set(run, at);
    const inner = { type: isLast ? "run-end" : "text-delta", n: at };
    const row: [string, FeedEvent] = [this.cursor, { type: "run-event", run, cursor: check(at), event: inner }];
    if (isLast) this.#runs.delete(run);
    return row;
  }
}

it("each event is new once, from any connections", () => {
  for (let seed = 0; seed < 1000; seed++) {
    const chance = chances(seed);
    const talk = conversation(chance);
    const start = `${check(0)}~`;
    const [mine, place] = [[] as FeedEvent[], new Place(start)];
    const take = (row: [string, FeedEvent]) => place.take(...row) && mine.push(row[1]);
    let leader = new Connection(talk, chance, start);
    for (let isOver = false; !isOver; ) {
      // A leader that is ahead, behind, or another one.
      if (!chance(6)) leader = new Connection(talk, chance, start);
      if (!chance(6)) leader = new Connection(talk, chance, String(place));
      const from = leader.cursor;
      const rows = Array.from({ length: 1 + chance(4) }, () => leader.next()).filter((row) => row !== undefined);
      isOver = !rows.length && place.reaches(leader.cursor) && leader.cursor === String(place);
      // A tab may miss what another one tells.
      if (!chance(5)) continue;
      if (place.reaches(from)) rows.forEach(take);
      else {
        const page = new Connection(talk, chance, String(place));
        for (let n = chance(8); n > 0; n--) {
          const row = page.next();
          if (row) take(row);
        }
      }
      if (!rows.length) leader = new Connection(talk, chance, String(place));
    }
    const feed = mine.filter(({ type }) => type !== "run-event");
    expect(feed, `seed ${seed}`).toEqual(talk.feed);
    for (const [run, length] of talk.lengths) {
      const at = mine.flatMap((event) => (event.type === "run-event" && event.run === run ? [parseInt(String(event.cursor), 10)] : []));
      expect(at, `seed ${seed}`).toEqual(Array.from({ length }, (_, n) => n + 1));
      // Between its start and its end.
      const [first, last] = ["run-started", "run-ended"].map((type) => mine.findIndex((one) => one.type === type && one.run === run));
      const own = mine.flatMap((one, index) => (one.type === "run-event" && one.run === run ? [index] : []));
      expect([first! < own[0]!, own.at(-1)! < last!], `seed ${seed}`).toEqual([true, true]);
    }
  }
});
