import { expect, it } from "vitest";
import { roundUp } from "../../src/dash/charts.js";
import { between, buckets, byLabel, parseMetrics, quantile, rate, total } from "../../src/dash/metrics.js";

const TEXT = `# HELP x y
tokenwire_runs_ended_total{code="",model="demo",outcome="complete"} 4.0
tokenwire_runs_ended_total{code="over\\"loaded",model="demo",outcome="error"} 2.0
tokenwire_t_bucket{le="0.1"} 1.0
tokenwire_t_bucket{le="1.0"} 9.0
tokenwire_t_bucket{le="+Inf"} 10.0
tokenwire_runs_running 3
tokenwire_x_created 1.7954179369e+09
`;

it("reads metrics and what follows from two readings", () => {
  const first = parseMetrics(TEXT, 1000);
  const later = parseMetrics(TEXT.replace("4.0", "10.0"), 3000);
  expect(total(first, "tokenwire_runs_ended_total")).toBe(6);
  expect(total(first, "tokenwire_runs_ended_total", { outcome: "error" })).toBe(2);
  expect(rate(first, later, "tokenwire_runs_ended_total")).toBe(3);
  expect(rate(later, { ...first, at: 4000 }, "tokenwire_runs_ended_total")).toBe(6);
  expect(byLabel(later, "tokenwire_runs_ended_total", "code")).toEqual([
    ["", 10],
    ['over"loaded', 2],
  ]);
  const list = buckets(first, "tokenwire_t");
  expect(list).toEqual([
    { label: "100 ms", count: 1, edge: 0.1 },
    { label: "1 s", count: 8, edge: 1 },
    { label: "more", count: 1, edge: Infinity },
  ]);
  expect(quantile(list, 0.5)).toBe("< 1 s");
  expect(quantile([], 0.5)).toBe("–");
});

it("tells what came between two readings, also over a restart", () => {
  const first = parseMetrics(TEXT, 1000);
  const later = parseMetrics(TEXT.replace('"1.0"} 9.0', '"1.0"} 12.0').replace('"+Inf"} 10.0', '"+Inf"} 14.0'), 3000);
  const counts = (before: typeof first | undefined, after: typeof first) =>
    between(before, after, "tokenwire_t").map(({ count }) => count);
  expect(counts(first, later)).toEqual([0, 3, 1]);
  expect(counts(first, first)).toEqual([0, 0, 0]);
  expect(counts(undefined, first)).toEqual([1, 8, 1]);
  expect(counts(later, first)).toEqual([1, 8, 1]);
});

it("chooses scales that stay", () => {
  expect([0, 0.03, 1, 1.2, 3, 7, 20, 495].map(roundUp)).toEqual([1, 0.05, 1, 2, 5, 10, 20, 500]);
});
