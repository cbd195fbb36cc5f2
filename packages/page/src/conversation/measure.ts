/* Points of a stream to the shapes of its pictures. */

import type { RunMeter } from "@tokenwire/client/conversation";

type Point = RunMeter["points"][number];

export interface Bar {
  at: number;
  label: string;
  count: number;
  /** Of the highest bar, 0 to 1. */
  share: number;
}

export const LANES = [
  { id: "run", label: "run" },
  { id: "reasoning", label: "thinking" },
  { id: "text", label: "text" },
  { id: "tool", label: "tools" },
  { id: "other", label: "other" },
] as const;

export function laneOf(type: string): string {
  if (type.startsWith("text-") || type.startsWith("refusal-")) return "text";
  if (type.startsWith("reasoning-")) return "reasoning";
  if (/^(tool|approval|provider-result)-/.test(type)) return "tool";
  if (/^(run|step|response|finish|usage)/.test(type)) return "run";
  return "other";
}

/** Events per slice of time, for drawing; never more bars than slices. */
export function binned(points: Point[], end: number, slices: number): Bar[] {
  const counts = new Map<number, number>();
  for (const { t } of points) {
    const slice = Math.min(slices - 1, Math.floor((t / end) * slices));
    counts.set(slice, (counts.get(slice) ?? 0) + 1);
  }
  const most = Math.max(1, ...counts.values());
  return [...counts].map(([at, count]) => {
    // One event must be seen beside a hundred.
    return { at, label: "", count, share: 0.25 + (0.75 * count) / most };
  });
}

/** Visible characters in each slice of time, and the most of a slice in a second. */
export function paced(points: Point[], end: number, slices: number): { bars: Bar[]; perSecond: number } {
  const sums = Array<number>(slices).fill(0);
  for (const { t, text } of points) sums[Math.min(slices - 1, Math.floor((t / end) * slices))]! += text;
  const most = Math.max(1, ...sums);
  const bars = sums.map((count, at) => ({ at, label: "", count, share: count / most }));
  return { bars, perSecond: (most * slices * 1000) / end };
}

const EDGES = [2, 5, 10, 20, 50, 100, 200, 500, 1000];

/** Gaps in milliseconds, by size. */
export function histogram(gaps: number[]): Bar[] {
  const counts = Array<number>(EDGES.length + 1).fill(0);
  for (const gap of gaps) {
    const at = EDGES.findIndex((edge) => gap < edge);
    counts[at < 0 ? EDGES.length : at]!++;
  }
  const most = Math.max(1, ...counts);
  return counts.map((count, at) => {
    const edge = EDGES[at];
    const label = edge === undefined ? "more" : edge < 1000 ? `<${edge}` : "<1 s";
    return { at, label, count, share: count / most };
  });
}

export function percentile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

const MOST_CORNERS = 240;

/** Characters (or bytes) so far over time, as an SVG path in a box of `width` by `height`. */
export function cumulative(points: Point[], width: number, height: number, what: "text" | "size" = "text") {
  const visible = points.filter((point) => point[what]);
  const total = visible.reduce((sum, point) => sum + point[what], 0);
  const end = Math.max(1, points[points.length - 1]?.t ?? 1);
  const every = Math.max(1, Math.ceil(visible.length / MOST_CORNERS));
  // Before the first piece there was nothing, not a slope.
  let path = `M0 ${height} L${(((visible[0]?.t ?? 0) / end) * width).toFixed(1)} ${height}`;
  let sum = 0;
  visible.forEach((point, at) => {
    sum += point[what];
    if (at % every && at !== visible.length - 1) return;
    const x = (point.t / end) * width;
    const y = height - (sum / Math.max(1, total)) * (height - 6);
    path += ` L${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  path += ` L${width} ${(height - (sum / Math.max(1, total)) * (height - 6)).toFixed(1)}`;
  return { path, total, end };
}
