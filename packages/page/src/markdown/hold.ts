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

/** Cuts of a cut: each may uncover one more. */
const MOST_CUTS = 8;
/** Characters of a first cell without a bar before it, where a table is announced. */
const MOST_CELL = 24;

const DELIMITER = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*(?:\|[ \t]*)?$/;

/** The text as it may be drawn while more may come. */
export function steady(text: string): string {
  const lines = linesOf(text);
  const last = lines[lines.length - 1]!;
  if (last.fence) {
    // Spaces and fence signs may be the start of the closing line.
    return /^[`~ \t]*$/.test(last.rest) ? text.slice(0, Math.max(0, last.at - 1)) : text;
  }
  const held = formulaOf(lines).held ?? heldLine(lines);
  if (held === undefined) return steadyLine(text, lines);
  // What is held may go on with the line before it.
  const before = text.slice(0, held);
  return steadyLine(before, linesOf(before));
}

function steadyLine(text: string, lines: Line[], cuts = 0): string {
  // Behind the formulas that have ended: their signs begin nothing.
  const start = Math.max(inlineStart(lines, text), formulaOf(lines).end);
  const { end, closers } = heldInline(text.slice(start));
  const kept = text.slice(0, start + end);
  if (closers) return kept.trimEnd() + closers;
  // What is left may end in half a marker again.
  const left = linesOf(kept);
  const held = kept.length < text.length ? heldLine(left) : undefined;
  if (held === undefined || cuts === MOST_CUTS) return kept.slice(0, held);
  return steadyLine(kept.slice(0, held), linesOf(kept.slice(0, held)), cuts + 1);
}

/** Where the line begins with a formula of several lines that has not ended; the end of the last one
 * that has. */
function formulaOf(lines: Line[]): { held?: number; end: number } {
  let end = 0;
  for (let at = 0; at < lines.length; at++) {
    const last = lastOfFormula(lines, at);
    if (last === undefined) continue;
    if (last < 0) return { held: lines[at]!.at, end };
    at = last;
    end = lines[last]!.at + lines[last]!.text.length + 1;
  }
  return { end };
}

/** The last line of the formula that begins with a line; -1 while that is open, undefined for none. */
function lastOfFormula(lines: Line[], first: number): number | undefined {
  const { rest, text, fence, at: begin } = lines[first]!;
  const opening = fence ? undefined : /^(?:\$\$|\\\[)/.exec(rest)?.[0];
  if (!opening) return undefined;
  const inPlace = text.length > rest.length;
  for (let at = first; at < lines.length; at++) {
    const line = lines[at]!;
    if (line.at - begin > MOST_FORMULA || line.fence) return undefined;
    // It ends with the quote or the item that it stands in.
    if (inPlace && line.rest && line.text.length === line.rest.length) return undefined;
    const isLast = at === lines.length - 1;
    const close = line.rest.indexOf(opening === "$$" ? "$" : "\\]", at === first ? 2 : 0);
    if (close < 0) continue;
    const after = line.rest.slice(close);
    if (isLast && after.length < 2) return -1;
    // Only what ends with its line is one, and no other sign stands in it.
    if (after !== (opening === "$$" ? "$$" : "\\]")) return undefined;
    return isLast ? -1 : at;
  }
  return lines[lines.length - 1]!.at - begin > MOST_FORMULA ? undefined : -1;
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
    if (isHead(last) || isCell(lines)) return at;
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

/** Whether the last line may be the first cell of a table without bars at its sides: a few words
 * under a heading or a colon. Elsewhere text is drawn at once, and such a table shows its first cell as
 * text until the bar comes. */
function isCell(lines: Line[]): boolean {
  const { rest, marked, fence } = lines[lines.length - 1]!;
  if (marked || fence || rest.length > MOST_CELL || !/^[\p{L}\p{N}][\p{L}\p{N} \t]*$/u.test(rest)) return false;
  const above = lines[lines.length - 2]?.rest.trim() ? lines[lines.length - 2] : lines[lines.length - 3];
  return above !== undefined && !above.fence && /:$|:\*\*$|^#{1,6}[ \t]/.test(above.rest.trimEnd());
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
  /** How many signs it had, and whether they could close as well. */
  length: number;
  both: boolean;
}

/** What has been read of a run of text. */
interface Run {
  open: Mark[];
  /** Whether what was read last would mean something else at the end of a text. */
  depends: boolean;
}

/** Where a run of text is not decided any more, and what closes the emphasis before that. */
function heldInline(text: string): { end: number; closers: string } {
  let end = text.length;
  let open: Mark[] = [];
  for (let cuts = 0; cuts < MOST_CUTS; cuts++) {
    const walked = walk(text, end);
    open = walked.open;
    const young = open.find((mark) => text.length - mark.at <= MOST_EMPHASIS);
    const cut = Math.min(walked.end, young?.at ?? walked.end);
    if (cut === end) break;
    end = cut;
  }
  const old = open.filter((mark) => mark.at < end).reverse();
  return { end, closers: old.map(({ sign, count }) => sign.repeat(count)).join("") };
}

/** Reads up to `limit`; the end is before what a cut there would give another meaning. */
function walk(text: string, limit: number): { end: number; open: Mark[] } {
  const run: Run = { open: [], depends: false };
  let sure = 0;
  for (let at = 0; at < limit; ) {
    run.depends = false;
    const next = step(text, at, run);
    if (next < 0) return { end: sure, open: run.open };
    at = next;
    if (!run.depends || at >= text.length) sure = Math.min(at, limit);
  }
  return { end: sure, open: run.open };
}

/** The place behind what begins at `at`; negative when its end is not there yet. */
function step(text: string, at: number, run: Run): number {
  const rest = text.length - at;
  switch (text[at]) {
    case "\\":
      // At the end of a line it breaks the line, if another follows.
      if (rest <= MOST_INDENT && /^\\(?:\n[ \t>]*)?$/.test(text.slice(at))) return -1;
      if (text[at + 1] === "\n") {
        run.depends = true;
        return at + /^\\\n[ \t>]*/.exec(text.slice(at))![0].length;
      }
      if (text[at + 1] === "(" || text[at + 1] === "[") {
        run.depends = text[at + 1] === "[" && beginsLine(text, at);
        return closed(text, at, text[at + 1] === "(" ? "\\)" : "\\]", 2);
      }
      return /[\p{P}\p{S}]/u.test(text[at + 1] ?? "") ? at + 2 : at + 1;
    case "`": {
      const run = /^`+/.exec(text.slice(at))![0];
      const found = new RegExp(`(?<!\`)\`{${run.length}}(?!\`)`).exec(text.slice(at + run.length));
      if (!found) return rest <= MOST_HELD ? -1 : at + run.length;
      const end = at + 2 * run.length + found.index;
      return end === text.length ? -1 : end;
    }
    case "$":
      run.depends = text[at + 1] === "$" && beginsLine(text, at);
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
      return emphasis(text, at, run);
    case "h":
    case "H":
    case "w":
    case "W":
      return address(text, at, run);
    default: {
      const plain = /[\\`$![<&*_~hHwW]/.exec(text.slice(at + 1));
      return plain ? at + 1 + plain.index : text.length;
    }
  }
}

/** A block's formula begins its line. */
function beginsLine(text: string, at: number): boolean {
  return at === 0 || text[at - 1] === "\n";
}

/** An address that becomes a link, and may still grow. */
function address(text: string, at: number, run: Run): number {
  const before = text[at - 1] ?? " ";
  const begins = /[wW]/.test(text[at]!) ? /[\s*_~(]/.test(before) : !/[A-Za-z0-9]/.test(before);
  if (!begins) return at + 1;
  const rest = text.slice(at, at + MOST_ADDRESS);
  if (at + rest.length === text.length) {
    const half = /^(?:h(?:t(?:t(?:ps?:?\/?)?)?)?|w(?:w(?:w)?)?|(?:https?:\/\/|www\.)[^\s<]*)$/i;
    if (half.test(rest)) return -1;
  }
  const whole = /^(?:https?:\/\/|www\.)[a-z0-9-][^\s<]*/i.exec(rest)?.[0];
  if (!whole) return at + 1;
  // Signs in it begin nothing; an emphasis around it may end in it.
  const end = at + whole.length;
  for (let place = at; place < end; ) {
    const next = /[*_~]/.test(text[place]!) ? emphasis(text, place, run) : place + 1;
    if (next < 0) return next;
    place = next;
  }
  run.open = run.open.filter((mark) => mark.at < at);
  return end;
}

function closed(text: string, at: number, close: string, opening: number): number {
  const end = text.indexOf(close, at + opening);
  if (end < 0) return text.length - at <= MOST_HELD ? -1 : at + opening;
  // What stands behind it says whether it is a block.
  return end + close.length === text.length ? -1 : end + close.length;
}

function dollars(text: string, at: number): number {
  if (at + 1 === text.length) return -1;
  if (text[at + 1] === "$") return twoDollars(text, at);
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

/** A formula between two dollars stands in one line and has no dollar in it. */
function twoDollars(text: string, at: number): number {
  const inner = /^[^$\n]*/.exec(text.slice(at + 2, at + 2 + MOST_HELD))![0];
  const end = at + 2 + inner.length;
  const rest = text.length - end;
  if (rest === 0 || (inner && rest === 1 && text[end] === "$")) return -1;
  if (!inner || !text.startsWith("$$", end)) return at + 1;
  // What stands behind it says whether it is a block.
  return rest === 2 ? -1 : end + 2;
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
function emphasis(text: string, at: number, run: Run): number {
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
  const both = canOpen && canClose;
  // At the end of a text it could only close.
  run.depends = canOpen || !canClose;
  const { open } = run;
  let rest = count;
  while (canClose && rest) {
    const mark = open.findLast((one) => one.sign === sign && arePair(one, count, both));
    if (!mark) break;
    const used = Math.min(rest, mark.count);
    rest -= used;
    mark.count -= used;
    // What was opened inside and not closed is text.
    open.length = open.indexOf(mark) + (mark.count ? 1 : 0);
  }
  if (rest && canOpen) open.push({ sign, count: rest, at: at + count - rest, length: count, both });
  return at + count;
}

/** Whether a run of so many signs closes what the mark opened: by the rule of three, and strokes only
 * by as many. */
function arePair(mark: Mark, count: number, both: boolean): boolean {
  if (mark.sign === "~") return mark.length === count;
  if (!mark.both && !both) return true;
  return (mark.length + count) % 3 !== 0 || (mark.length % 3 === 0 && count % 3 === 0);
}
