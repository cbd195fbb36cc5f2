/* Markdown that is still being written, as blocks.

Always true: a finished block is never looked at again, so the work for one more piece depends on
what is open and not on the length of the answer; a block's `key` stays the same while it grows. */

import { Marked, type Token, type Tokens } from "marked";

export interface Block {
  key: number;
  tokens: Token[];
  /** The end of the text is in this block: a link that touches it is not complete. */
  open: boolean;
}

/** An open part longer than this is divided, so that one endless list or listing stays cheap. */
const MOST_OPEN = 32 * 1024;
const STEP = 64 * 1024;
/** What can still change what came before: a list goes on after one more paragraph. */
const UNSTABLE = 2;

const math = {
  block: {
    name: "math",
    level: "block" as const,
    start: (text: string) => text.search(/\$\$|\\\[/),
    tokenizer(text: string): Tokens.Generic | undefined {
      const found = /^(?:\$\$([^$]{1,2000}?)\$\$|\\\[([\s\S]{1,2000}?)\\\])(?:\n|$)/.exec(text);
      return found
        ? { type: "math", raw: found[0], text: found[1] ?? found[2], display: true }
        : undefined;
    },
  },
  inline: {
    name: "inlineMath",
    level: "inline" as const,
    start: (text: string) => text.search(/\$|\\\(|\\\[/),
    tokenizer(text: string): Tokens.Generic | undefined {
      // `$5 and $6` is money: a formula has no space inside its dollars, no digit after them.
      const found =
        /^(?:\$\$([^$\n]{1,500}?)\$\$|\$(?!\s)([^$\n]{1,500}?)(?<![\s\\])\$(?!\d)|\\\((.{1,500}?)\\\)|\\\[(.{1,500}?)\\\])/.exec(text);
      if (!found) return undefined;
      const inner = found[1] ?? found[2] ?? found[3] ?? found[4] ?? "";
      return { type: "math", raw: found[0], text: inner, display: found[2] === undefined && found[3] === undefined };
    },
  },
};

const marked = new Marked({ gfm: true, extensions: [math.block, math.inline] });

/** Reads one text as it grows. */
export class BlockReader {
  #done: Block[] = [];
  #doneEnd = 0;
  #lastText = "";
  #last: Block[] = [];
  #finished = false;
  /** The line that opens the listing in which the finished blocks stopped. */
  #fence = "";
  #key = 0;

  /** All blocks of `text`; `open` while more may come. */
  read(raw: string, open: boolean): Block[] {
    const text = raw.includes("\r") ? raw.replace(/\r\n?/g, "\n") : raw;
    // A long text that comes at once is read like one that grows.
    for (let end = this.#lastText.length + STEP; end < text.length; end += STEP) {
      this.#step(text.slice(0, end), true);
    }
    return this.#step(text, open);
  }

  #step(text: string, open: boolean): Block[] {
    if (text === this.#lastText && this.#finished === !open) return this.#last;
    if (!this.#continues(text)) this.#restart();
    this.#lastText = text;
    this.#finished = !open;
    let tail = this.#fence + text.slice(this.#doneEnd);
    let tokens = lex(open ? mend(tail) : tail);
    const settled = this.#settle(tokens);
    if (settled) {
      tail = this.#fence + text.slice(this.#doneEnd);
      tokens = tokens.slice(settled);
    }
    if (tail.length > MOST_OPEN) {
      this.#divide(text);
      tokens = lex(open ? mend(this.#fence + text.slice(this.#doneEnd)) : this.#fence + text.slice(this.#doneEnd));
    }
    const rest = tokens.map((token, at): Block => {
      const last = at === tokens.length - 1;
      return { key: this.#key + at, tokens: [token], open: open && last };
    });
    this.#last = [...this.#done, ...rest];
    return this.#last;
  }

  #continues(text: string): boolean {
    const seen = this.#lastText.slice(0, this.#doneEnd);
    return (
      text.length >= this.#lastText.length &&
      text.slice(Math.max(0, this.#doneEnd - 64), this.#doneEnd) === seen.slice(-64)
    );
  }

  #restart(): void {
    this.#done = [];
    this.#doneEnd = 0;
    this.#fence = "";
  }

  /** Takes what cannot change any more out of `tokens`; returns how many those are. */
  #settle(tokens: Token[]): number {
    const solid = tokens.map((token, at) => (token.type === "space" ? -1 : at)).filter((at) => at >= 0);
    if (solid.length <= UNSTABLE) return 0;
    const count = solid[solid.length - UNSTABLE]!;
    const settled = tokens.slice(0, count);
    // A divided listing that came to its end: its opening line was not in the text.
    const length = settled.reduce((sum, token) => sum + token.raw.length, 0) - this.#fence.length;
    this.#fence = "";
    this.#add(settled);
    this.#doneEnd += length;
    return count;
  }

  #add(tokens: Token[]): void {
    for (const token of tokens) this.#done.push({ key: this.#key++, tokens: [token], open: false });
    // A new array: what was given out stays as it was.
    this.#done = [...this.#done];
  }

  /** Closes a long open block at its last line. */
  #divide(text: string): void {
    while (text.length - this.#doneEnd > MOST_OPEN) {
      const limit = this.#doneEnd + MOST_OPEN;
      const line = text.lastIndexOf("\n", limit);
      const end = line > this.#doneEnd ? line + 1 : limit;
      const piece = this.#fence + text.slice(this.#doneEnd, end);
      const tokens = lex(piece);
      this.#add(tokens);
      this.#doneEnd = end;
      const last = tokens[tokens.length - 1];
      const opening = last?.type === "code" ? /^ {0,3}(`{3,}|~{3,})[^\n]*\n/.exec(last.raw) : null;
      const closed = opening && last!.raw.trimEnd().endsWith(`\n${opening[1]}`);
      this.#fence = opening && !closed ? opening[0] : "";
    }
  }
}

function lex(text: string): Token[] {
  return text ? (marked.lexer(text) as Token[]) : [];
}

/** Closes at the end what the model has opened and not closed yet, so that it looks right while it
 * is being written; an unfinished link shows its text only. */
export function mend(text: string): string {
  const start = Math.max(text.lastIndexOf("\n\n") + 2, text.lastIndexOf("\n") + 1, text.length - 2000);
  if (insideFence(text)) return text;
  const head = text.slice(0, start);
  let line = text.slice(start);
  const ticks = line.match(/`/g)?.length ?? 0;
  if (ticks % 2) return line.endsWith("`") ? head + line.slice(0, -1) : `${text}\``;
  line = line
    // [text](https://half  or  ![alt](https://half  or  [text]( or [te
    .replace(/!?\[([^[\]]*)\]\([^()\s]*$/, "$1")
    .replace(/!?\[([^[\]]*)$/, "$1");
  const bare = line.replace(/`[^`]*`/g, "");
  if ((bare.match(/\*\*/g)?.length ?? 0) % 2) {
    line = /\*\*\s*$/.test(line) ? line.replace(/\*\*\s*$/, "") : `${line.replace(/\*$/, "")}**`;
  }
  return head + line;
}

function insideFence(text: string): boolean {
  let fence = "";
  for (const [, marker] of text.matchAll(/^ {0,3}(`{3,}|~{3,})/gm)) {
    if (!fence) fence = marker!;
    else if (marker!.startsWith(fence)) fence = "";
  }
  return fence !== "";
}
