/* Where a reader of a conversation is: in its feed, and in each of its runs that is followed.

Always true: an event is new once; the place after it is that of which the server makes the cursor,
so that whoever comes back with it, also from another tab's connection, misses and repeats nothing. */

import { offsetOf } from "../core/reader.js";
import type { FeedEvent } from "./events.js";

/** Before each run of a cursor, and between it and its place. */
const [RUN, AT] = ["~", ":"];

export class Place {
  #feed = "";
  /** The open runs, where they are read as well. */
  #runs: Map<string, string> | undefined;

  constructor(cursor = "") {
    this.#set(cursor);
  }

  /** The cursor; empty before anything was read. */
  toString(): string {
    const runs = this.#runs && [...this.#runs].map(([run, at]) => RUN + run + AT + at);
    return this.#feed + (runs ? runs.join("") || RUN : "");
  }

  /** Goes on to the event with this cursor (empty for one that only passes); false when it was
   * read before. */
  take(cursor: string, event: FeedEvent): boolean {
    const { type } = event;
    const run = String(event.run);
    if (type === "reset") this.#set("");
    else if (type === "run-reset") this.#runs?.set(run, "0");
    else if (type === "run-event") return this.#takeRun(run, event);
    else if (cursor && type === "snapshot") this.#set(cursor);
    else if (cursor) {
      if (offsetOf(cursor) <= offsetOf(this.#feed)) return false;
      this.#feed = cursor.split(RUN)[0]!;
      if (type === "run-started" && event.followed !== false) this.#runs?.set(run, "0");
      if (type === "run-ended" || type === "run-erased") this.#runs?.delete(run);
    }
    return true;
  }

  /** Whether what comes after the cursor `from` can be taken here without a gap. */
  reaches(from: string): boolean {
    const there = new Place(from);
    const ahead = offsetOf(this.#feed) - offsetOf(there.#feed);
    if (ahead < 0) return false;
    for (const [run, at] of there.#runs ?? []) {
      const here = this.#runs?.get(run);
      if (here !== undefined && offsetOf(here) < offsetOf(at)) return false;
    }
    // A run that is open here alone has ended there, or begins after that place.
    const runs = there.#runs;
    return !runs || [...(this.#runs ?? [])].every(([run, at]) => runs.has(run) || (ahead > 0 && at === "0"));
  }

  #takeRun(run: string, event: FeedEvent): boolean {
    const before = this.#runs?.get(run);
    const cursor = String(event.cursor);
    if (before === undefined || offsetOf(cursor) <= offsetOf(before)) return false;
    if ((event.event as FeedEvent | undefined)?.type === "run-end") this.#runs!.delete(run);
    else this.#runs!.set(run, cursor);
    return true;
  }

  #set(cursor: string): void {
    const [feed, ...runs] = cursor.split(RUN);
    this.#feed = feed!;
    this.#runs = cursor.includes(RUN)
      ? new Map(runs.filter(Boolean).map((entry) => entry.split(AT) as [string, string]))
      : undefined;
  }
}
