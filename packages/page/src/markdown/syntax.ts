/* The Markdown that answers are written in: GitHub's, with formulas and footnotes, to tokens.

Always true: the time of one reading grows with the text's length alone; what is nested too deep, or
has too many signs, is shown as the text that it is. */

import { Lexer, Marked, type Token, type Tokens } from "marked";

const math = {
  block: {
    name: "math",
    level: "block" as const,
    // Only where a line begins: a paragraph is cut there, and with a line end put together again.
    start: (text: string) => text.search(/\n(?=\$\$|\\\[)/),
    tokenizer(text: string): Tokens.Generic | undefined {
      const found = /^(?:\$\$([^$]{1,2000}?)\$\$|\\\[((?:(?!\\\])[\s\S]){1,2000})\\\])(?:\n|$)/.exec(text);
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
      // `$5 and $6` is money, `$A/$B` are names: a formula has no space inside its dollars, no letter
      // or digit after them.
      const found =
        /^(?:\$\$([^$\n]{1,500}?)\$\$|\$(?!\s)([^$\n]{1,500}?)(?<![\s\\])\$(?![\p{L}\p{N}])|\\\((.{1,500}?)\\\)|\\\[(.{1,500}?)\\\])/u.exec(
          text,
        );
      if (!found) return undefined;
      const inner = found[1] ?? found[2] ?? found[3] ?? found[4] ?? "";
      return { type: "math", raw: found[0], text: inner, display: found[2] === undefined && found[3] === undefined };
    },
  },
};

/** `[^1]` and `[^1]: what it says`. The text stands where the model wrote it. */
const footnote = {
  block: {
    name: "footnote",
    level: "block" as const,
    start: (text: string) => text.search(/\n(?=\[\^)/),
    tokenizer(this: { lexer: Lexer }, text: string): Tokens.Generic | undefined {
      const found = /^\[\^([^\]\s]{1,60})\]:[ \t]*([^\n]*(?:\n(?: {2,}|\t)\S[^\n]*)*)(?:\n|$)/.exec(text);
      if (!found) return undefined;
      const tokens = this.lexer.inlineTokens(found[2]!.replace(/\n\s+/g, "\n"));
      return { type: "footnote", raw: found[0], label: found[1], tokens };
    },
  },
  inline: {
    name: "footnoteMark",
    level: "inline" as const,
    start: (text: string) => text.indexOf("[^"),
    tokenizer(text: string): Tokens.Generic | undefined {
      const found = /^\[\^([^\]\s]{1,60})\](?!\(|:)/.exec(text);
      return found ? { type: "footnoteMark", raw: found[0], label: found[1] } : undefined;
    },
  },
};

const marked = new Marked({
  gfm: true,
  extensions: [math.block, math.inline, footnote.block, footnote.inline],
  // A line of dashes under a text is a rule: as a heading it would change what was shown above it.
  // A mail address would become a link when its sign comes: after its name was shown.
  tokenizer: {
    lheading: () => undefined,
    url: (text: string) => (/^(?:https?:\/\/|www\.)/i.test(text) ? false : undefined),
  },
});

/** A bar in a line, outside of code: without one, the line is no head of a table, whatever the next
 * line says. */
const BAR = /^(?=(?:[^\n|`\\]|\\[^\n]|`[^`\n]*`|`(?![^`\n]*`))*\|)/.source.slice(1);

/** marked's own rule with a part of it exchanged. */
function changed(rule: RegExp, part: string, by: string): RegExp {
  if (!rule.source.includes(part)) throw new Error(`a rule of marked has no ${part}`);
  return new RegExp(rule.source.replace(part, () => by), rule.flags);
}

const { block, inline } = Lexer.rules;
const HEAD = " *([^\\n ].*)\\n {0,3}((?:\\| *)?:?-+";
const RULES = {
  block: {
    ...block.gfm,
    table: changed(block.gfm.table, HEAD, BAR + HEAD),
    paragraph: changed(block.gfm.paragraph, HEAD, BAR + HEAD),
  },
  // An address in a word is none: the word's letters would change when it comes.
  inline: {
    ...inline.gfm,
    text: changed(inline.gfm.text, "[hH][tT][tT][pP][sS]?|[fF][tT][pP]:", "(?<![a-zA-Z0-9])[hH][tT][tT][pP][sS]?:"),
  },
};

/** A line with more markers of quotes and lists before its text. */
const DEEP = /^(?:[ \t]*(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))){25}/m;
/** An item of a list: what is before its marker, and its number. */
const MARKER = /^([ \t]*)(?:[-*+]|(\d{1,9})[.)])[ \t]/;
/** More signs of emphasis, links and code in one paragraph or item. */
const MOST_SIGNS = 1000;

function isTooDeep(text: string): boolean {
  if (DEEP.test(text)) return true;
  // Listings and tables have many, and no depth.
  if (/^[ \t>]*(?:`{3}|~{3}|\|)/m.test(text)) return false;
  let signs = 0;
  let before = "";
  /** Where the marker of the ordered list stands that goes on. */
  let ordered = -1;
  for (const line of text.split("\n")) {
    const marker = MARKER.exec(line);
    const [, indent = "", number] = marker ?? [];
    // Only a list that begins with 1 begins under a text; the next numbers go on with it.
    const begins = marker && (!number || number === "1" || !before.trim() || indent.length <= ordered);
    if (begins) ordered = number ? indent.length : -1;
    if (begins || !line.trim()) signs = 0;
    for (const sign of line) if ("*_[]~<".includes(sign) && ++signs > MOST_SIGNS) return true;
    before = line;
  }
  return false;
}

/** The addresses of references, by label. */
export type Links = Record<string, Pick<Tokens.Link | Tokens.Image, "href" | "title">>;

export const noLinks = () => Object.create(null) as Links;

/** The tokens of a text. Its references mean `links`; its definitions are put into them. */
export function lex(text: string, links: Links): Token[] {
  if (!text) return [];
  if (!isTooDeep(text)) {
    try {
      const lexer = new Lexer(marked.defaults);
      lexer.tokens.links = links;
      const { tokenizer } = marked.defaults;
      if (tokenizer) tokenizer.rules = { ...tokenizer.rules, ...RULES };
      return [...lexer.lex(text)];
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // else: nested deeper than the stack
    }
  }
  const plain = { type: "text", raw: text, text, escaped: true } as Tokens.Text;
  return [{ type: "paragraph", raw: text, text, tokens: [plain] } as Tokens.Paragraph];
}
