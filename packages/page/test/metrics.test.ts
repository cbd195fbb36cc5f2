import { expect, it } from "vitest";
import { buckets, byLabel, parseMetrics, quantile, rate, total } from "../src/dash/metrics.js";

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
    { label: "100 ms", count: 1 },
    { label: "1 s", count: 8 },
    { label: "more", count: 1 },
  ]);
  expect(quantile(list, 0.5)).toBe("< 1 s");
  expect(quantile([], 0.5)).toBe("–");
});
