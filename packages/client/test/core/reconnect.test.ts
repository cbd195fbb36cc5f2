/* The one place that decides whether and how to connect again, by its table. */

import { describe, expect, it } from "vitest";
import { TokenwireError } from "../../src/index.js";
import { FRESH, next, type Outcome, readToEnd, type Streak } from "../../src/core/reconnect.js";

const unreadable = new TokenwireError("protocol_error", "this is no event");
const tooLong = new TokenwireError("limit_exceeded", "a line is over its limit");
const refused = new TokenwireError("forbidden", "no", 403);
const busy = new TokenwireError("http_503", "later", 503, true, 7000);
const lost = new TokenwireError("network", "gone", 0, true);

const after = (...outcomes: Outcome[]): Streak =>
  outcomes.reduce((streak, outcome) => next(streak, outcome, 3, Infinity), FRESH);

describe("after a connection", () => {
  it("that was healthy the delay is short again", () => {
    const before = after({ error: lost }, { error: lost }, { error: lost });
    expect(before.unhealthy).toBe(4 - 1);
    expect(next(before, { bytes: true, healthy: true }, 3, 0)).toMatchObject({ unhealthy: 1, fruitless: 0 });
  });

  it("that brought news nothing is fruitless, and the delay still grows", () => {
    expect(after({ error: lost }, { bytes: true, news: true })).toMatchObject({ unhealthy: 2, fruitless: 0 });
  });

  it("the next way is taken after two that brought nothing in a row, and the first after the last", () => {
    const silent = { error: lost };
    expect(after(silent).way).toBe(0);
    expect(after(silent, silent).way).toBe(1);
    expect(after(silent, silent, silent).way).toBe(1);
    expect(after(silent, { bytes: true }, silent).way).toBe(0);
    expect(after(silent, silent, silent, silent, silent, silent).way).toBe(0);
  });

  it.each([unreadable, tooLong])("what cannot be read is read once more: $code", (error) => {
    expect(after({ bytes: true, error }).unreadable).toBe(1);
    expect(() => after({ bytes: true, error }, { bytes: true, error })).toThrow(error);
    expect(after({ bytes: true, error }, { bytes: true, news: true, error }).unreadable).toBe(1);
  });

  it("a refusal ends the reading, a busy server does not and names the delay", () => {
    expect(() => after({ error: refused })).toThrow(refused);
    expect(after({ error: busy }).named).toBe(7000);
    expect(after({ bytes: true, again: 0 }).named).toBe(0);
    expect(after({ bytes: true }).named).toBeUndefined();
    const { named } = after({ bytes: true, again: 1000 });
    expect(named).toBeGreaterThanOrEqual(0);
    expect(named).toBeLessThan(1000);
  });

  it("too many fruitless ones end it with the last error, or say that the connection was lost", () => {
    const tired = { ...FRESH, fruitless: 2 };
    expect(next(tired, { bytes: true, error: lost }, 1, 3).fruitless).toBe(3);
    expect(() => next(tired, { bytes: true, error: lost }, 1, 2)).toThrow(lost);
    expect(() => next(tired, { bytes: true }, 1, 2)).toThrow("the connection was lost");
  });
});

it("what is over on an open connection is read no more", async () => {
  let connections = 0;
  const reading = {
    ended: false,
    position: 0,
    connect: async () => {
      connections++;
      reading.position++;
      reading.ended = connections === 3;
    },
    restart: () => true,
  };
  await readToEnd(reading, {});
  expect(connections).toBe(3);
});
