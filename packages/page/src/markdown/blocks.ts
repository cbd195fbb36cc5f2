/* Markdown that is still being written, as blocks.

Always true: a finished block is not looked at again while the answer grows, unless it names a
reference whose address comes later, so the work for one more piece depends on what is open and not on
the length of the answer; a block's `key` stays the same while it grows; an answer that was never
divided ends as it reads at once. */

import type { Token } from "marked";
import { steady } from "./hold.js";
import { lex, noLinks } from "./syntax.js";

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

/** Reads one text as it grows. */
export class BlockReader {
  #done: Block[] = [];
  #doneEnd = 0;
  #lastText = "";
  #last: Block[] = [];
  #finished = false;
  /** What the rest of a divided block begins with: the line that opens a listing, the head of a
   * table. */
  #head = "";
  #key = 0;
  #links = noLinks();
  /** Label of a reference -> the finished blocks that may mean it. */
  #wanted = new Map<string, Set<number>>();

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
    // The end of an answer is read as a whole, once; its blocks keep their keys.
    else if (!open && text.length <= MOST_OPEN) {
      this.#key -= this.#done.length;
      this.#restart();
    }
    this.#lastText = text;
    this.#finished = !open;
    let tokens = this.#lexTail(text, open);
    tokens = tokens.slice(this.#settle(tokens));
    if (text.length - this.#doneEnd > MOST_OPEN && this.#divide(text, tokens)) {
      tokens = this.#lexTail(text, open);
    }
    this.#resolve();
    const rest = tokens.map((token, at): Block => {
      const last = at === tokens.length - 1;
      return { key: this.#key + at, tokens: [token], open: open && last };
    });
    this.#last = [...this.#done, ...rest];
    return this.#last;
  }

  #lexTail(text: string, open: boolean): Token[] {
    const tail = this.#head + text.slice(this.#doneEnd);
    return lex(open ? steady(tail) : tail, this.#links);
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
    this.#head = "";
    this.#links = noLinks();
    this.#wanted.clear();
  }

  /** Takes what cannot change any more out of `tokens`; returns how many those are. */
  #settle(tokens: Token[]): number {
    const solid = tokens.map((token, at) => (token.type === "space" ? -1 : at)).filter((at) => at >= 0);
    if (solid.length <= UNSTABLE) return 0;
    const count = solid[solid.length - UNSTABLE]!;
    const settled = tokens.slice(0, count);
    const raw = settled.map((token) => token.raw).join("");
    // What was read must be what was written, or the rest would begin at another place.
    const source = this.#head + this.#lastText.slice(this.#doneEnd, this.#doneEnd + raw.length);
    if (!source.startsWith(raw)) return 0;
    // A divided block that came to its end: its head was not in the text.
    const length = raw.length - this.#head.length;
    this.#head = "";
    this.#add(settled);
    this.#doneEnd += length;
    return count;
  }

  #add(tokens: Token[]): void {
    for (const token of tokens) {
      if (token.type !== "code") this.#want(token.raw, this.#done.length);
      this.#done.push({ key: this.#key++, tokens: [token], open: false });
    }
    // A new array: what was given out stays as it was.
    this.#done = [...this.#done];
  }

  #want(raw: string, at: number): void {
    for (const [, label] of raw.matchAll(/\[([^[\]]{1,200})\]/g)) {
      const name = label!.toLowerCase().replace(/\s+/g, " ");
      if (name in this.#links) continue;
      const blocks = this.#wanted.get(name) ?? new Set();
      this.#wanted.set(name, blocks.add(at));
    }
  }

  /** Reads the finished blocks again that mean a definition which came after them. */
  #resolve(): void {
    if (!this.#wanted.size) return;
    const changed = new Set<number>();
    for (const label of Object.keys(this.#links)) {
      for (const at of this.#wanted.get(label) ?? []) changed.add(at);
      this.#wanted.delete(label);
    }
    if (!changed.size) return;
    this.#done = this.#done.map((block, at) => {
      if (!changed.has(at)) return block;
      return { ...block, tokens: lex(block.tokens.map(({ raw }) => raw).join(""), this.#links) };
    });
  }

  /** Finishes what of a long open block can be: up to a line behind which the rest reads as it did
   * before. Whether there was one. */
  #divide(text: string, tokens: Token[]): boolean {
    let divided = false;
    for (let open = tokens; text.length - this.#doneEnd > MOST_OPEN; divided = true) {
      const piece = this.#head + text.slice(this.#doneEnd, this.#doneEnd + MOST_OPEN);
      if (divided) open = lex(piece, this.#links);
      const { cut, head } = cutOf(piece, open);
      if (cut <= this.#head.length) return divided;
      this.#add(lex(piece.slice(0, cut), this.#links));
      this.#doneEnd += cut - this.#head.length;
      this.#head = head;
    }
    return divided;
  }
}

/** Where a long text is cut, and what the rest begins with so that it reads the same. */
function cutOf(piece: string, tokens: Token[]): { cut: number; head: string } {
  const line = piece.lastIndexOf("\n") + 1;
  const last = tokens.findLast(({ type }) => type !== "space");
  const first = last && piece.includes(last.raw.slice(0, 200)) ? last : undefined;
  switch (first?.type) {
    case "code": {
      const opening = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))[^\n]*\n/.exec(first.raw)?.[0] ?? "";
      return { cut: line, head: opening };
    }
    case "table":
      return { cut: line, head: /^[^\n]*\n[^\n]*\n/.exec(first.raw)?.[0] ?? "" };
    case "list": {
      // Before an item of the list itself; what is inside one stays together.
      const item = [...piece.matchAll(/\n(?=(?:[-*+]|\d{1,9}[.)])[ \t])/g)].pop();
      return { cut: item ? item.index + 1 : 0, head: "" };
    }
    case "blockquote":
      return { cut: 0, head: "" };
    default:
      return { cut: line || piece.length, head: "" };
  }
}
