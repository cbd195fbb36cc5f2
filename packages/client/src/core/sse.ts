/* Bytes of a text/event-stream to frames (WHATWG HTML, "Interpreting an event stream").

Always true: the same bytes give the same frames however they are cut; pieces of an unfinished
line are joined once, so one long line in tiny pieces stays linear; a line or an event over its
bound is an error, never a cut value. */

import { TokenwireError } from "./errors.js";

export interface Frame {
  event: string;
  data: string;
  /** The last event id at the moment of dispatch. */
  id: string;
}

export interface SSELimits {
  /** Characters of one line; 1 MiB unless told. */
  maxLine?: number;
  /** Characters of one event's data; 1 MiB unless told. */
  maxEvent?: number;
}

const MIB = 1 << 20;
/** A line's bound counts its value; this much more is granted for the field's name. */
const FIELD_ROOM = 16;
const LINE_END = /\r\n|\r|\n/g;

export class SSEParser {
  lastEventId = "";
  retryMs: number | null = null;
  /** Comment lines seen: keep-alives. */
  comments = 0;

  #decoder = new TextDecoder("utf-8"); // strips one byte-order mark, replaces what is invalid
  /** A line that has not ended. An engine joins what is added to a string when it is read, so that
   * tiny pieces of a long line cost no more than the line. */
  #line = "";
  #afterCR = false;
  #data: string | undefined;
  #event = "";
  #id = "";
  #maxLine: number;
  #maxEvent: number;

  constructor(limits: SSELimits = {}) {
    this.#maxLine = (limits.maxLine ?? MIB) + FIELD_ROOM;
    this.#maxEvent = limits.maxEvent ?? MIB;
  }

  /** The frames that these bytes complete. What is left unfinished at the end of a stream is
   * dropped, as the standard says: there is no `finish`. */
  feed(bytes: Uint8Array): Frame[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    const frames: Frame[] = [];
    if (!text) return frames;
    // A CR ends its line at once; an LF that follows in the next read belongs to it.
    if (this.#afterCR && text[0] === "\n") text = text.slice(1);
    this.#afterCR = text.endsWith("\r");
    let start = 0;
    LINE_END.lastIndex = 0;
    for (let found; (found = LINE_END.exec(text)); ) {
      this.#grow(text.slice(start, found.index));
      start = LINE_END.lastIndex;
      const line = this.#line;
      this.#line = "";
      const frame = this.#take(line);
      if (frame) frames.push(frame);
    }
    this.#grow(text.slice(start));
    return frames;
  }

  #grow(piece: string): void {
    this.#line += piece;
    if (this.#line.length > this.#maxLine) throw tooLong("line");
  }

  #take(line: string): Frame | null {
    if (!line) return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) {
      this.comments++;
      return null;
    }
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") {
      this.#data = this.#data === undefined ? value : `${this.#data}\n${value}`;
      if (this.#data.length > this.#maxEvent) throw tooLong("event");
    } else if (name === "event") this.#event = value;
    else if (name === "id") {
      if (!value.includes("\0")) this.#id = value;
    } else if (name === "retry" && /^[0-9]{1,18}$/.test(value)) this.retryMs = Number(value);
    return null;
  }

  #dispatch(): Frame | null {
    this.lastEventId = this.#id;
    const event = this.#event || "message";
    this.#event = "";
    const data = this.#data;
    this.#data = undefined;
    return data === undefined ? null : { event, data, id: this.lastEventId };
  }
}

function tooLong(what: string): TokenwireError {
  return new TokenwireError("limit_exceeded", `a ${what} of the event stream is over its limit`);
}
