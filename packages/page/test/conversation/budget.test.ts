/* Budgets in a person's words. */

import { describe, expect, it } from "vitest";
import { holding, momentWords, nearWords, stoppedWords, usedUpWords, waitWords, type BudgetState } from "../../src/conversation/budget.js";

const NOW = new Date(2026, 10, 29, 15, 0).getTime();
const at = (day: number, hour: number, month = 10) => new Date(2026, month, day, hour).getTime() / 1000;
const budget = (name: string, resets?: number, left = 0): BudgetState => ({ name, unit: "tokens", left, most: 200_000, resets });

describe("a budget in words", () => {
  it("says when it starts anew, in the reader's own time", () => {
    expect(momentWords(at(29, 18), NOW, "en-GB")).toBe("today at 18:00");
    expect(momentWords(at(30, 2), NOW, "en-GB")).toBe("tomorrow at 02:00");
    expect(momentWords(at(1, 0, 11), NOW, "en-GB")).toBe("on 1 December at 00:00");
    expect(momentWords(at(30, 0), at(29, 23) * 1000 + 3_599_000, "en-GB")).toBe("tomorrow at 00:00");
  });

  it("names whose it is", () => {
    expect(usedUpWords(budget("principal/day", at(30, 0)), NOW, "en-GB")).toBe("Your budget for today is used up. It starts anew tomorrow at 00:00.");
    expect(usedUpWords(budget("tenant/month", at(1, 0, 11)), NOW, "en-GB")).toBe(
      "Your organisation's budget for this month is used up. It starts anew on 1 December at 00:00.",
    );
    expect(usedUpWords(budget("thread"), NOW)).toBe("This conversation's budget is used up. Start a new conversation to go on.");
    expect(usedUpWords(budget("run"), NOW)).toBe("The budget of this answer is used up.");
  });

  it("says that what was written is saved, and how much is left", () => {
    expect(stoppedWords(budget("principal/day", at(30, 0)), NOW, "en-GB")).toBe(
      "The answer stops here: your budget for today is used up. It starts anew tomorrow at 00:00. What was written is saved.",
    );
    expect(stoppedWords(undefined)).toContain("a budget is used up");
    expect(nearWords(budget("principal/day", at(30, 0), 30_000), NOW, "en-GB")).toBe(
      "About 15 % of your budget for today is left. It starts anew tomorrow at 00:00.",
    );
    expect(nearWords(budget("thread", undefined, 10), NOW)).toBe("About 1 % of this conversation's budget is left.");
  });

  it("of several used-up ones tells the one that lasts", () => {
    const [day, month, left] = [budget("principal/day", at(30, 0)), budget("tenant/month", at(1, 0, 11)), budget("x", at(5, 0, 11), 5)];
    expect(holding([day, month, left])).toBe(month);
    expect(holding([left])).toBeUndefined();
  });

  it("promises no moment that it does not know", () => {
    expect(waitWords(3_600_000, NOW, "en-GB")).toBe("Your budget is used up. Try again today at 16:00.");
    expect(waitWords(86_400_000, NOW)).toBe("Your budget is used up."); // it may be a month
    expect(waitWords(undefined, NOW)).toBe("Your budget is used up.");
  });
});
