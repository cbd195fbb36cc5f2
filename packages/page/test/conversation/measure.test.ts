import type { Delivered } from "@tokenwire/client";
import { RunMeter } from "@tokenwire/client/conversation";
import { expect, test } from "vitest";
import { binned, cumulative, histogram, paced, percentile } from "../../src/conversation/measure.js";

const point = (t: number, text = 1, size = 40) => ({ t, at: t, type: "text-delta", size, text });

test("pace: what came in each slice, and the most of one in a second", () => {
  const points = [point(0, 10), point(400, 20), point(600, 10), point(1000, 5)];
  const { bars, perSecond } = paced(points, 1000, 2);
  expect(bars.map(({ count, share }) => [count, share])).toEqual([
    [30, 1],
    [15, 0.5],
  ]);
  expect(perSecond).toBe(60);
  expect(paced([], 1, 4).bars.every(({ count }) => count === 0)).toBe(true);
});

test("growth ends at the top, in characters and in bytes", () => {
  const points = [point(0, 0, 100), point(500, 10), point(1000, 10)];
  const text = cumulative(points, 100, 50);
  expect(text).toMatchObject({ total: 20, end: 1000 });
  expect(text.path).toBe("M0 50 L50.0 50 L50.0 28.0 L100.0 6.0 L100 6.0");
  expect(cumulative(points, 100, 50, "size").total).toBe(180);
});

test("one event is seen beside many, and never more bars than slices", () => {
  const bars = binned([...Array(100).fill(point(0)), point(999)], 1000, 10);
  expect(bars.map(({ at, count }) => [at, count])).toEqual([
    [0, 100],
    [9, 1],
  ]);
  expect(bars[1]!.share).toBeGreaterThan(0.25);
});

test("gaps by size", () => {
  const bars = histogram([1, 3, 3, 30, 5000]);
  expect(bars.filter(({ count }) => count).map(({ label, count }) => [label, count])).toEqual([
    ["<2", 1],
    ["<5", 2],
    ["<50", 1],
    ["more", 1],
  ]);
  expect(percentile([3, 1, 2], 0.5)).toBe(2);
  expect(percentile([], 0.5)).toBe(0);
});

test("a meter knows when nothing was seen yet, what came, and where the line broke", () => {
  const meter = new RunMeter();
  const event = (type: string, t: number, text?: string): Delivered =>
    ({ cursor: "1-a", event: { type, t, ...(text ? { text } : {}) }, json: "x".repeat(30) }) as unknown as Delivered;
  meter.take([event("run-start", 0), event("text-start", 90), event("text-delta", 100, "Hello")]);
  meter.noteCuts(0);
  expect(meter.cuts).toEqual([]);
  meter.noteCuts(1);
  meter.noteCuts(1);
  meter.take([event("text-delta", 300, " there")]);
  meter.noteCuts(3);
  expect(meter.cuts).toEqual([100, 300, 300]);
  expect(meter).toMatchObject({ firstT: 100, firstMs: 100, characters: 11, bytes: 120, events: 4, spanMs: 200 });
});
