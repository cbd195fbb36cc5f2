// @vitest-environment happy-dom
/* An answer that grows shows only what stays: every prefix of a corpus against the final drawing. */

import { describe, expect, it } from "vitest";
import { ANSWERS } from "./answers.js";
import { HARD_ANSWERS, LATE_ANSWERS } from "./answers-hard.js";
import { Drawing, misfit } from "./growing.js";

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
