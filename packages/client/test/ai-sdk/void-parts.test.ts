import { expect, test } from "vitest";
import { withoutVoid } from "../../src/ai-sdk/void-parts.js";

const words = (...texts: string[]) =>
  texts.map((text) => (/^(step-start|data-)/.test(text) ? { type: text } : { type: "text", text }));

test.each([
  ["nothing was started again", ["step-start", "a", "step-start", "b"], ["step-start", "a", "step-start", "b"]],
  ["the only step", ["step-start", "a", "data-step-reset", "step-start", "b"], ["step-start", "b"]],
  [
    "the second of two steps, twice",
    ["step-start", "a", "step-start", "b", "data-step-reset", "step-start", "c", "data-step-reset", "step-start", "d"],
    ["step-start", "a", "step-start", "d"],
  ],
  ["two marks in a row", ["a", "data-step-reset", "data-step-reset", "b"], ["b"]],
  ["a mark at the end", ["step-start", "a", "data-step-reset"], []],
  ["other data stays", ["step-start", "data-x", "a"], ["step-start", "data-x", "a"]],
])("%s", (_, parts, kept) => {
  const given = words(...parts);
  const before = [...given];
  expect(withoutVoid(given)).toEqual(words(...kept));
  expect(given).toEqual(before);
});
