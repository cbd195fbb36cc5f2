// @vitest-environment happy-dom
/* An answer that grows shows only what stays: every prefix of a corpus against the final drawing. */

import { describe, expect, it } from "vitest";
import { ANSWERS } from "./answers.js";
import { HARD_ANSWERS, LATE_ANSWERS } from "./answers-hard.js";
import { Drawing, misfit } from "./growing.js";
import { lex, noLinks } from "../../src/markdown/syntax.js";

describe("every prefix is a beginning of the final drawing", () => {
  it.each(Object.entries({ ...ANSWERS, ...HARD_ANSWERS }))("%s", (_name, text) => {
    const final = new Drawing().read(text, false);
    const drawing = new Drawing();
    for (let end = 1; end <= text.length; end++) {
      const wrong = misfit(drawing.read(text.slice(0, end), true), final);
      if (wrong) throw new Error(`at ${end}, ${JSON.stringify(text.slice(Math.max(0, end - 40), end))}: ${wrong}`);
    }
    expect(drawing.read(text, false)).toEqual(final);
  }, 60_000);
});

describe("an answer that has ended reads as one that came at once", () => {
  // The first two ended otherwise; the others are their neighbours.
  it.each([
    "| a | b |\n1.\n- $$\n",
    "$$\n> q\n\nx $$\na@b.test\n\n\nend *x* y\n\nmore\n\nand more\n",
    "<br\n<br/>\n:--|\n\n\nend *x* y\n\nmore\n\nand more\n",
    "\\[\n> q\n\nx \\]\na\n\nend\n\nmore\n\nand more\n",
    "\\[ x \\] and\n\ny\n\nz \\]\n\nmore\n\nand more\n",
  ])("%j", (text) => {
    const final = new Drawing().read(text, false);
    const drawing = new Drawing();
    for (let end = 1; end <= text.length; end++) {
      const wrong = misfit(drawing.read(text.slice(0, end), true), final);
      if (wrong) throw new Error(`at ${end}, ${JSON.stringify(text.slice(0, end))}: ${wrong}`);
    }
    expect(drawing.read(text, false)).toEqual(final);
  });
});

const DEFINITION = /^\[[^\]^]+\]: .*\n/gm;

describe("a reference that comes late", () => {
  it.each(Object.entries(LATE_ANSWERS))("%s: text until then, a link from then on", (_name, text) => {
    const final = new Drawing().read(text, false);
    const first = text.search(DEFINITION);
    const last = [...text.matchAll(DEFINITION)].map((found) => found.index + found[0].length).pop()!;
    const without = new Drawing().read(text.slice(0, first), false);
    const drawing = new Drawing();
    for (let end = 1; end <= text.length; end++) {
      const now = drawing.read(text.slice(0, end), true);
      const wrong = end <= first ? misfit(now, without) : end >= last ? misfit(now, final) : undefined;
      if (wrong) throw new Error(`at ${end}, ${JSON.stringify(text.slice(Math.max(0, end - 40), end))}: ${wrong}`);
    }
    expect(drawing.read(text, false)).toEqual(final);
    expect(JSON.stringify(final)).not.toMatch(/\[(?:a|API|x|d)\]/);
  });
});

/** Numbers from 0 to 1, the same ones for the same seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1103515245 + 12345) & 0x7fffffff) / 0x7fffffff;
}

const ALL = Object.values({ ...ANSWERS, ...HARD_ANSWERS, ...LATE_ANSWERS });
/** Paragraphs, lists, tables, ... of all answers; without the formula that never ends, and the table
 * whose first cell is held back only where its heading announces it. */
const PIECES = ALL.flatMap((text) => text.split("\n\n"))
  .map((piece) => piece.replace(/\n+$/, ""))
  .filter((piece) => !/^(?:\$\$open|Name \| Age)/.test(piece));

describe("answers put together from pieces of others", () => {
  it.each(Array.from({ length: 60 }, (_, seed) => seed + 1))("%d", (seed) => {
    const next = random(seed * 7919);
    const pick = () => PIECES[Math.floor(next() * PIECES.length)]!;
    const text = `${Array.from({ length: 4 + Math.floor(next() * 5) }, pick).join("\n\n")}\n`;
    const final = new Drawing().read(text, false);
    const drawing = new Drawing();
    const hasLate = text.search(DEFINITION) >= 0;
    for (let end = 1; end < text.length; end += 1 + Math.floor(next() * 12)) {
      const wrong = misfit(drawing.read(text.slice(0, end), true), final);
      if (wrong && !hasLate) throw new Error(`at ${end} of ${JSON.stringify(text)}: ${wrong}`);
    }
    // However it came: nothing of it is lost, added or read in another way.
    expect(drawing.read(text, false)).toEqual(final);
  });
});

it("tokens are the text that was read, character by character", () => {
  const texts = [...ALL, "a $$b$$ c \\[d\\] e\nf[^1] g\n[^1]: h\n$$\ni\n$$\nj\n", "x[^1] y\n", "$$a$$ b\n\\[c\\]\n"];
  for (const text of texts) {
    const raw = lex(text, noLinks()).map((token) => token.raw).join("");
    expect(raw).toBe(text);
  }
});
