/* What the dashboard says of usage: nothing unknown as nothing. */

import { describe, expect, it } from "vitest";
import { costText, leftText, nameOf, nearness, pressing, ranked, tokensText, whyUnknown, type ModelUsage, type OwnerUsage } from "../../src/dash/usage.js";

const usage = (more: Partial<ModelUsage>): ModelUsage => ({ calls: 1, cost: 0, known_cost: 0, ...more });

describe("usage on the dashboard", () => {
  it("shows an unknown cost as unknown", () => {
    const unpriced = usage({ cost: null, unpriced_tokens: 1234, input_tokens: 1234 });
    expect([costText(unpriced), whyUnknown(unpriced)]).toEqual(["unknown", "1,234 tokens without a price"]);
    const partly = usage({ cost: null, known_cost: 1.5, unreported_calls: 2 });
    expect([costText(partly), whyUnknown(partly)]).toEqual(["$1.50 + unknown", "2 calls whose tokens were not reported"]);
    expect(costText(usage({}))).toBe("$0.00");
    expect(costText(usage({ cost: 0.0025, known_cost: 0.0025 }))).toBe("$0.0025");
  });

  it("marks estimates", () => {
    const estimated = usage({ cost: null, known_cost: 1, output_tokens: 900, estimated_tokens: 100, estimated_cost: 0.5, unreported_calls: 1 });
    expect([tokensText(estimated), costText(estimated)]).toEqual(["≈ 1K", "≈ $1.50"]);
    expect(whyUnknown(estimated)).toContain("100 tokens estimated");
    // Nobody has a price of what was estimated.
    expect(costText(usage({ cost: null, estimated_tokens: 10 }))).toBe("unknown");
    expect(costText(usage({ cost: null, known_cost: 1, estimated_tokens: 10 }))).toBe("≈ $1.00 + unknown");
  });

  it("lists what presses, the nearest first", () => {
    const owner = (name: string, left: number): OwnerUsage => ({
      owner: name,
      tenant: "acme",
      day: usage({}),
      month: usage({ known_cost: left }),
      budgets: [{ name: "principal/day", unit: "tokens", left, most: 100 }],
    });
    const owners = [owner("a", 90), owner("b", 20), owner("c", 0), owner("d", 21)];
    expect(pressing(owners).map(({ who }) => who)).toEqual(["acme / c", "acme / b"]);
    expect(ranked(owners).map(nameOf)[0]).toBe("acme / a");
    expect(nearness({ name: "x", unit: "dollars", left: 0, most: 0 })).toBe("over");
    expect(leftText({ name: "x", unit: "tokens", left: 1200, most: 200000 })).toBe("1,200 of 200,000 tokens left");
    expect(nameOf({ ...owner("", 1), tenant: undefined })).toBe("everybody (no keys)");
  });
});
