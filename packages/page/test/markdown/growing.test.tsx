// @vitest-environment happy-dom
/* An answer that grows shows only what stays: every prefix of a corpus against the final drawing. */

import { describe, expect, it } from "vitest";
import { ANSWERS } from "./answers.js";
import { Drawing, misfit } from "./growing.js";

describe("every prefix is a beginning of the final drawing", () => {
  it.each(Object.entries(ANSWERS))("%s", (_name, text) => {
    const final = new Drawing().read(text, false);
    const drawing = new Drawing();
    for (let end = 1; end <= text.length; end++) {
      const wrong = misfit(drawing.read(text.slice(0, end), true), final);
      if (wrong) throw new Error(`at ${end}, ${JSON.stringify(text.slice(Math.max(0, end - 40), end))}: ${wrong}`);
    }
    expect(drawing.read(text, false)).toEqual(final);
  }, 60_000);
});
