/* How much of a growing text can be drawn: what comes next may still change the meaning of its end.

Always true: what `steady` gives begins as the text does; it leaves out an end that is not decided
yet (half a marker, link, formula, emphasis, table head), and closes an emphasis that is open for so
long that it is surely one. */

import { type Line, linesOf } from "./lines.js";

/** Emphasis that is open for longer is drawn as it grows, in characters. */
const MOST_EMPHASIS = 160;
/** A formula between single dollars; longer ones are money. */
const MOST_DOLLARS = 60;
/** Code, formulas, texts of links, tags: longer ones are none. */
const MOST_HELD = 500;
/** Characters of a link's text, of an address. */
const MOST_LABEL = 1000;
const MOST_ADDRESS = 2000;
/** A formula of several lines. */
const MOST_FORMULA = 2000;
/** A line with a bar in it that is longer is prose, not the head of a table. */
const MOST_HEAD = 300;
/** Characters before the text of a line that goes on with another. */
const MOST_INDENT = 100;
/** Characters before the end that are looked at for what is open in a line of text. */
const MOST_LOOKED = 4000;

const DELIMITER = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*(?:\|[ \t]*)?$/;

/** The text as it may be drawn while more may come. */
export function steady(text: string): string {
  const lines = linesOf(text);
  const last = lines[lines.length - 1]!;
  if (last.fence) {
    // Spaces and fence signs may be the start of the closing line.
    return /^[`~ \t]*$/.test(last.rest) ? text.slice(0, Math.max(0, last.at - 1)) : text;
  }
  const held = heldFormula(lines, text.length) ?? heldLine(lines);
  if (held === undefined) return steadyLine(text, lines);
  // What is held may go on with the line before it.
  const before = text.slice(0, held);
  return steadyLine(before, linesOf(before));
}

function steadyLine(text: string, lines: Line[]): string {
  const start = inlineStart(lines, text);
  const { end, closers } = heldInline(text.slice(start));
  const kept = text.slice(0, start + end);
  if (closers) return kept.trimEnd() + closers;
  // What is left may end in half a marker again.
  return kept.length < text.length ? kept.slice(0, heldLine(linesOf(kept))) : kept;
}

/** Where a formula of several lines begins that has not ended. */
function heldFormula(lines: Line[], length: number): number | undefined {
  let open: { at: number; close: string } | undefined;
  for (const { at, text, rest, fence } of lines) {
    if (fence || length - at > MOST_FORMULA) continue;
    if (open) {
      if (rest.includes(open.close)) open = undefined;
      continue;
    }
    const opening = /^(?:\$\$|\\\[)/.exec(rest)?.[0];
    const close = opening === "$$" ? "$$" : "\\]";
    if (opening && !rest.slice(2).includes(close)) open = { at: at + text.length - rest.length, close };
  }
  return open?.at;
}

/** Where to cut when the last lines are not decided yet. */
function heldLine(lines: Line[]): number | undefined {
  const last = lines[lines.length - 1]!;
  const before = lines[lines.length - 2];
  const { rest, at } = last;
  const inTable = isInTable(lines);
  if (!inTable) {
    const head = isHead(before) ? before : undefined;
    // The line under a head says whether it is one.
    if (head && /^[|:\- \t]*$/.test(rest)) return head.at;
    if (isHead(last)) return at;
  }
  if (last.text && !rest) return at;
  const undecided =
    /^[-*_=+][-*_=+ \t]*$/.test(rest) ||
    /^\d{1,9}[.)]?$/.test(rest) ||
    /^#{1,6}[ \t]*$/.test(rest) ||
    /^(?:`{1,2}$|`{3}[^`]*$|~{1,2}$|~{3})/.test(rest) ||
    (last.marked && /^\[[ xX]?\]?[ \t]*$/.test(rest)) ||
    (/^<[A-Za-z/!?]?/.test(rest) && rest.length < 200) ||
    /^\[\^?[^\]\n]*\]:[ \t]*$/.test(rest) ||
    /^\[(?!\^)[^\]\n]+\]:/.test(rest) ||
    /^\\?\[$|^\\$/.test(rest);
  if (undecided) return at;
  const closing = closingSigns(rest);
  return closing < 0 ? undefined : at + last.text.length - (rest.length - closing);
}

/** Where the signs begin that may close a heading: a space, signs, spaces; -1 without any. */
function closingSigns(line: string): number {
  const head = /^#{1,6}[ \t]/.exec(line)?.[0].length;
  if (head === undefined) return -1;
  let end = line.length;
  while (/[ \t]/.test(line[end - 1] ?? "")) end--;
  let signs = end;
  while (line[signs - 1] === "#") signs--;
  if (signs < end && signs > head && /[ \t]/.test(line[signs - 1]!)) return signs - 1;
  const blank = Math.max(end, head);
  return blank < line.length ? blank : -1;
}

/** Whether a line may be the head of a table. */
function isHead(line: Line | undefined): boolean {
  if (!line || line.fence || !line.rest.includes("|")) return false;
  const bare = line.rest.replace(/`[^`]*`|\\\|/g, "");
  return bare.startsWith("|") || (bare.includes("|") && line.rest.length <= MOST_HEAD);
}

function isInTable(lines: Line[]): boolean {
  for (let at = lines.length - 1; at > 0; at--) {
    const { rest, text } = lines[at]!;
    if (!text.trim() && at < lines.length - 1) return false;
    // The last line may still go on.
    if (at < lines.length - 1 && DELIMITER.test(rest) && lines[at - 1]!.rest.includes("|")) return true;
  }
  return false;
}

/** Where the run of text begins that the end belongs to. */
function inlineStart(lines: Line[], text: string): number {
  const least = text.length - MOST_LOOKED;
  const last = lines[lines.length - 1]!;
  if (isInTable(lines)) {
    const row = last.text.replace(/\\\|/g, "  ");
    return last.at + row.lastIndexOf("|") + 1;
  }
  let first = last;
  // A text that ends with its line may go on in the next.
  for (let at = lines.length - (last.text ? 1 : 2); at >= 0; at--) {
    const line = lines[at]!;
    if (!line.rest.trim() || line.fence || line.at < least) break;
    first = line;
    if (beginsItem(lines, at) || /^#{1,6}[ \t]/.test(line.rest)) break;
  }
  return Math.max(first.at + first.text.length - first.rest.length, least, 0);
}

/** Whether a line begins an item of a list. Under a text, only a list that begins with 1 does. */
function beginsItem(lines: Line[], at: number): boolean {
  const line = lines[at]!;
  if (!line.marked || !/^[ \t>]*(?!1[.)])\d{1,9}[.)]/.test(line.text)) return line.marked;
  let before = at - 1;
  while (before >= 0 && lines[before]!.rest.trim() && !lines[before]!.marked) before--;
  return before === at - 1 || !!lines[before]?.marked;
}

interface Mark {
  sign: string;
  count: number;
  at: number;
}

/** Where a run of text is not decided any more, and what closes the emphasis before that. */
function heldInline(text: string): { end: number; closers: string } {
  const open: Mark[] = [];
  let end = text.length;
  for (let at = 0; at < text.length; ) {
    const next = step(text, at, open);
    if (next < 0) {
      end = at;
      break;
    }
    at = next;
  }
  const young = open.find((mark) => text.length - mark.at <= MOST_EMPHASIS);
  if (young) end = Math.min(end, young.at);
  const old = open.filter((mark) => mark.at < end).reverse();
  return { end, closers: old.map(({ sign, count }) => sign.repeat(count)).join("") };
}

/** The place behind what begins at `at`; negative when its end is not there yet. */
function step(text: string, at: number, open: Mark[]): number {
  const rest = text.length - at;
  switch (text[at]) {
    case "\\":
      // At the end of a line it breaks the line, if another follows.
      if (rest <= MOST_INDENT && /^\\(?:\n[ \t>]*)?$/.test(text.slice(at))) return -1;
      if (text[at + 1] === "(" || text[at + 1] === "[") {
        return closed(text, at, text[at + 1] === "(" ? "\\)" : "\\]", 2);
      }
      return at + 2;
    case "`": {
      const run = /^`+/.exec(text.slice(at))![0];
      const found = new RegExp(`(?<!\`)\`{${run.length}}(?!\`)`).exec(text.slice(at + run.length));
      if (!found) return rest <= MOST_HELD ? -1 : at + run.length;
      const end = at + 2 * run.length + found.index;
      return end === text.length ? -1 : end;
    }
    case "$":
      return dollars(text, at);
    case "!":
      return rest === 1 ? -1 : text[at + 1] === "[" ? link(text, at, at + 1) : at + 1;
    case "[":
      return link(text, at, at);
    case "<":
      if (/^<(?:[A-Za-z/!?][^>\n]*)?$/.test(text.slice(at))) return rest <= MOST_HELD ? -1 : at + 1;
      return at + (/^<[A-Za-z/!?][^>\n]*>/.exec(text.slice(at))?.[0].length ?? 1);
    case "&":
      return /^&#?\w{0,10}$/.test(text.slice(at, at + 13)) ? -1 : at + 1;
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, open);
    case "h":
    case "H":
    case "w":
    case "W":
      // An address that becomes a link, and may still grow.
      if (rest <= MOST_ADDRESS && !/[\p{L}\p{N}]/u.test(text[at - 1] ?? " ")) {
        if (/^(?:h(?:t(?:t(?:ps?:?\/?)?)?)?|w(?:w(?:w)?)?|(?:https?:\/\/|www\.)[^\s<]*)$/i.test(text.slice(at))) {
          return -1;
        }
      }
      return at + 1;
    default: {
      const plain = /[\\`$![<&*_~hHwW]/.exec(text.slice(at + 1));
      return plain ? at + 1 + plain.index : text.length;
    }
  }
}

function closed(text: string, at: number, close: string, opening: number): number {
  const end = text.indexOf(close, at + opening);
  if (end < 0) return text.length - at <= MOST_HELD ? -1 : at + opening;
  // What stands behind it says whether it is a block.
  return end + close.length === text.length ? -1 : end + close.length;
}

function dollars(text: string, at: number): number {
  if (at + 1 === text.length) return -1;
  if (text[at + 1] === "$") return closed(text, at, "$$", 2);
  if (/\s/.test(text[at + 1]!)) return at + 1;
  const line = text.slice(at + 1).split("\n", 1)[0]!;
  const close = line.indexOf("$");
  if (close < 0) {
    const goesOn = at + 1 + line.length === text.length;
    return goesOn && line.length <= MOST_DOLLARS ? -1 : at + 1;
  }
  const after = text[at + 1 + close + 1];
  if (after === undefined) return -1;
  return /[\s\\]/.test(line[close - 1] ?? " ") || /[\p{L}\p{N}]/u.test(after) ? at + 1 : at + close + 2;
}

const TARGET = /^\(\s*(?!\s)(?:<[^<>\n]*>|(?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*)(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)/;
const HALF_TARGET =
  /^\(\s*(?!\s)(?:<[^<>\n]*>?|(?:[^\s()\\]|\\.?|\((?:[^\s()\\]|\\.)*\)?)*)(?:\s+(?:(?:"[^"]*"?|'[^']*'?|\([^()]*\)?)\s*)?)?$/;

/** A link or picture whose bracket is at `bracket`. */
function link(text: string, at: number, bracket: number): number {
  const end = bracketEnd(text, bracket);
  if (end < 0) return text.length - at <= MOST_HELD ? -1 : bracket + 1;
  const after = text[end];
  if (after === undefined) return -1;
  if (after === "[") {
    const label = bracketEnd(text, end);
    return label < 0 ? (text.length - end <= MOST_HELD ? -1 : end) : label;
  }
  if (after !== "(") return bracket + 1;
  const target = text.slice(end);
  const whole = TARGET.exec(target);
  if (whole) return end + whole[0].length;
  return HALF_TARGET.test(target) ? -1 : bracket + 1;
}

/** Behind the bracket that closes the one at `at`; negative when there is none. */
function bracketEnd(text: string, at: number): number {
  let depth = 0;
  const most = Math.min(text.length, at + MOST_LABEL);
  for (let place = at; place < most; place++) {
    const sign = text[place];
    if (sign === "\\") place++;
    else if (sign === "[") depth++;
    else if (sign === "]" && !--depth) return place + 1;
    else if (sign === "\n" && text[place + 1] === "\n") return -1;
  }
  return -1;
}

/** Emphasis by the flanks of its marks, as CommonMark has it. */
function emphasis(text: string, at: number, open: Mark[]): number {
  const sign = text[at]!;
  let count = 1;
  while (text[at + count] === sign) count++;
  const next = text[at + count];
  if (next === undefined) return -1;
  if (sign === "~" && count > 2) return at + count;
  const previous = text[at - 1] ?? " ";
  const [spaceBefore, spaceAfter] = [/\s/.test(previous), /\s/.test(next)];
  const [signBefore, signAfter] = [/[\p{P}\p{S}]/u.test(previous), /[\p{P}\p{S}]/u.test(next)];
  const left = !spaceAfter && (!signAfter || spaceBefore || signBefore);
  const right = !spaceBefore && (!signBefore || spaceAfter || signAfter);
  const canOpen = sign === "_" ? left && (!right || signBefore) : left;
  const canClose = sign === "_" ? right && (!left || signAfter) : right;
  let rest = count;
  while (canClose && rest) {
    const mark = open.findLast((one) => one.sign === sign);
    if (!mark) break;
    const used = Math.min(rest, mark.count);
    rest -= used;
    mark.count -= used;
    // What was opened inside and not closed is text.
    open.length = open.indexOf(mark) + (mark.count ? 1 : 0);
  }
  if (rest && canOpen) open.push({ sign, count: rest, at: at + count - rest });
  return at + count;
}
