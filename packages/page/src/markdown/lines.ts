/* The lines of a text, and which of them are inside a listing.

Always true: a listing ends with its closing line, and with the quote or the item that it stands in. */

export interface Line {
  at: number;
  text: string;
  /** Without the markers of quotes and lists before it. */
  rest: string;
  marked: boolean;
  /** Whether it is inside a listing. */
  fence: boolean;
}

/** What a listing stands in: so many quotes, and an item whose text begins at this column. */
interface Place {
  quotes: number;
  column: number;
}

const CONTAINER = /^(?:[ \t]*(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t])))*[ \t]*/;
const FENCE = /^(`{3,}(?=[^`]*$)|~{3,})/;
const QUOTES = /^(?:[ \t]{0,3}>[ ]?)*/;
/** Further than this from its place, a line is a listing by its indentation. */
const MOST_INDENT = 3;

export function linesOf(text: string): Line[] {
  const lines: Line[] = [];
  const items = new Items();
  let fence: ({ sign: string } & Place) | undefined;
  let at = 0;
  for (const line of text.split("\n")) {
    if (fence && hasLeft(line, fence)) fence = undefined;
    const quoted = fence ? /^[ \t>]*/.exec(line)![0] : CONTAINER.exec(line)![0];
    const rest = line.slice(quoted.length);
    const isLast = at + line.length === text.length;
    const inside = fence !== undefined;
    const sign = FENCE.exec(rest)?.[1];
    if (fence) {
      if (sign && rest.trimEnd() === sign && sign.startsWith(fence.sign)) fence = undefined;
    } else {
      const place = items.place(line, quoted);
      if (sign && place && !isLast) fence = { sign, ...place };
    }
    lines.push({ at, text: line, rest, marked: /[-*+\d]/.test(quoted), fence: inside });
    at += line.length + 1;
  }
  return lines;
}

function hasLeft(line: string, { quotes, column }: Place): boolean {
  const inner = withoutQuotes(line, quotes);
  if (inner === undefined) return true;
  return column > 0 && inner.trim() !== "" && indentOf(inner) < column;
}

/** The line inside of so many quotes; undefined when it is not in them. */
function withoutQuotes(line: string, quotes: number): string | undefined {
  let rest = line;
  for (let n = 0; n < quotes; n++) {
    const mark = /^[ \t]*>[ ]?/.exec(rest)?.[0];
    if (mark === undefined) return undefined;
    rest = rest.slice(mark.length);
  }
  return rest;
}

function indentOf(text: string): number {
  let column = 0;
  for (const sign of text) {
    if (sign === "\t") column += 4 - (column % 4);
    else if (sign === " ") column++;
    else break;
  }
  return column;
}

/** The items of lists that are open. */
class Items {
  #quotes = 0;
  #columns: number[] = [];

  /** Where the text of a line stands; undefined when its indentation makes it a listing. `quoted`:
   * its markers. */
  place(line: string, quoted: string): Place | undefined {
    const quotes = QUOTES.exec(line)![0].split(">").length - 1;
    if (quotes !== this.#quotes) this.#columns = [];
    this.#quotes = quotes;
    const inner = withoutQuotes(line, quotes)!;
    if (!inner.trim()) return undefined;
    const indent = indentOf(inner);
    this.#columns = this.#columns.filter((column) => column <= indent);
    let from = this.#columns[this.#columns.length - 1] ?? 0;
    if (indent - from > MOST_INDENT) return undefined;
    let rest = quoted.slice(line.length - inner.length);
    for (let column = 0; ; ) {
      const marker = /^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+/.exec(rest)?.[0];
      if (!marker) break;
      const spaces = marker.length - marker.trimEnd().length;
      // More spaces than this are a listing's.
      const taken = spaces > 4 ? marker.trimEnd().length + 1 : marker.length;
      column += taken;
      this.#columns.push((from = column));
      rest = rest.slice(taken);
      if (spaces > 4) return undefined;
    }
    return { quotes, column: from };
  }
}
