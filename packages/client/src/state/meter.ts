/* What a run looked like on its way here: times, sizes and gaps, for people who look at streams. */

import type { Delivered } from "../core/reader.js";

export interface Point {
  /** Milliseconds since the run started, on the server. */
  t: number;
  /** When it arrived here (`performance.now`). */
  at: number;
  type: string;
  /** Length of the event's JSON. */
  size: number;
  /** Characters of visible text that it brought. */
  text: number;
}

/** A run longer than this keeps its first events and its totals. */
const MOST_POINTS = 20000;
/** Until something shows these, nothing is on the screen. */
const VISIBLE = /^(text|reasoning|refusal|tool-call)-(delta|start)$/;

export class RunMeter {
  readonly points: Point[] = [];
  events = 0;
  bytes = 0;
  /** Characters of visible text. */
  characters = 0;
  /** Where the connection was lost: the run's time, in milliseconds, of the last event before. */
  readonly cuts: number[] = [];
  /** When the person asked, here; 0 for a run that was there before this page. */
  readonly asked: number;
  /** Milliseconds from the question to the first visible event; on the screen where this page
   * asked, else on the server. */
  firstMs?: number;
  #firstT?: number;
  #lastT = 0;
  #now = 0;

  constructor(asked = 0) {
    this.asked = asked;
  }

  take(batch: Delivered[]): void {
    const at = performance.now();
    for (const { event, json } of batch) {
      const t = event.t ?? 0;
      const text = event.type.endsWith("-delta") && "text" in event ? event.text!.length : 0;
      this.events++;
      this.bytes += json.length;
      this.characters += text;
      this.#now = t;
      if (text) this.#lastT = t;
      if (this.firstMs === undefined && text && VISIBLE.test(event.type)) {
        this.firstMs = this.asked ? at - this.asked : t;
        this.#firstT = t;
      }
      if (this.points.length < MOST_POINTS) {
        this.points.push({ t, at, type: event.type, size: json.length, text });
      }
    }
  }

  /** Tells how often the connection was lost so far. */
  noteCuts(reconnects: number): void {
    while (this.cuts.length < reconnects) this.cuts.push(this.#now);
  }

  /** When the first visible piece came, by the server's clock. */
  get firstT(): number | undefined {
    return this.#firstT;
  }

  /** Milliseconds between the first and the last visible piece, by the server's clock. */
  get spanMs(): number {
    return this.#firstT === undefined ? 0 : this.#lastT - this.#firstT;
  }

  /** Milliseconds between neighbouring visible pieces. */
  gaps(): number[] {
    const visible = this.points.filter((point) => point.text);
    return visible.slice(1).map((point, before) => point.t - visible[before]!.t);
  }
}
