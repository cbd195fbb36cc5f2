/* The server's metrics, read from their text form, and what follows from two readings.

Always true: a rate is a difference of counters over the time between two readings; a counter that
fell (the server was restarted) counts from nothing. */

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export interface Reading {
  /** Milliseconds, of this machine's clock. */
  at: number;
  samples: Sample[];
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /\b(\w+)="((?:[^"\\]|\\.)*)"/g;

export function parseMetrics(text: string, at = Date.now()): Reading {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = Object.create(null) as Record<string, string>;
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) {
      labels[name!] = value!.replace(/\\(.)/g, (_, char) => (char === "n" ? "\n" : char));
    }
    samples.push({ name: found[1]!, labels, value: Number(found[3]) });
  }
  return { at, samples };
}

/** The sum of a metric over all its labels. */
export function total(reading: Reading | undefined, name: string, where: Record<string, string> = {}): number {
  let sum = 0;
  for (const sample of reading?.samples ?? []) {
    if (sample.name !== name) continue;
    if (Object.entries(where).every(([label, value]) => sample.labels[label] === value)) sum += sample.value;
  }
  return sum;
}

/** By one label, largest first. */
export function byLabel(reading: Reading | undefined, name: string, label: string): [string, number][] {
  const sums = new Map<string, number>();
  for (const sample of reading?.samples ?? []) {
    if (sample.name !== name) continue;
    const key = sample.labels[label] ?? "";
    sums.set(key, (sums.get(key) ?? 0) + sample.value);
  }
  return [...sums].filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]);
}

/** How much a counter grew a second between two readings. */
export function rate(before: Reading | undefined, after: Reading | undefined, name: string): number {
  if (!before || !after || after.at <= before.at) return 0;
  const [first, last] = [total(before, name), total(after, name)];
  const grown = last < first ? last : last - first;
  return (grown * 1000) / (after.at - before.at);
}

export interface Bucket {
  label: string;
  count: number;
  /** The upper edge, in seconds. */
  edge: number;
}

/** A histogram's buckets, each without what is in the ones below. */
export function buckets(reading: Reading | undefined, name: string): Bucket[] {
  const sums = new Map<string, number>();
  for (const sample of reading?.samples ?? []) {
    const edge = sample.labels.le;
    if (sample.name === `${name}_bucket` && edge) sums.set(edge, (sums.get(edge) ?? 0) + sample.value);
  }
  const edges = [...sums].map(([edge, count]) => [edge === "+Inf" ? Infinity : Number(edge), count] as const);
  edges.sort((a, b) => a[0] - b[0]);
  return edges.map(([edge, count], at) => {
    return { label: edgeLabel(edge), count: count - (edges[at - 1]?.[1] ?? 0), edge };
  });
}

/** The buckets of what came between two readings; everything after a restart. */
export function between(before: Reading | undefined, after: Reading, name: string): Bucket[] {
  const list = buckets(after, name);
  const older = new Map(buckets(before, name).map(({ label, count }) => [label, count]));
  if (list.some(({ label, count }) => count < (older.get(label) ?? 0))) return list;
  return list.map((bucket) => ({ ...bucket, count: bucket.count - (older.get(bucket.label) ?? 0) }));
}

function edgeLabel(edge: number): string {
  if (edge === Infinity) return "more";
  return edge < 1 ? `${Number((edge * 1000).toFixed(2))} ms` : `${edge} s`;
}

/** The value under which `share` of a histogram lies: its bucket's upper edge. */
export function quantile(list: Bucket[], share: number): string {
  const all = list.reduce((sum, { count }) => sum + count, 0);
  let seen = 0;
  for (const { label, count } of list) {
    seen += count;
    if (all && seen >= all * share) return label === "more" ? "more" : `< ${label}`;
  }
  return "–";
}
