/* The dashboard's pictures. Every one is an SVG of its own with a name for those who cannot see it. */

import type { ReactNode } from "react";
import { quantile, type Bucket } from "./metrics.js";

/** A value at a moment (milliseconds). */
export interface Point {
  at: number;
  value: number;
}

const WIDTH = 400;
const HEIGHT = 124;
const FOOT = 19;
/** The shortest and the longest stretch of time that is drawn. */
const LEAST_MS = 60_000;
export const MOST_MS = 300_000;

export function number(value: number): string {
  const places = value === 0 || value >= 100 || Number.isInteger(value) ? 0 : value >= 1 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: places, minimumFractionDigits: 0 });
}

const last = (points: Point[]) => points[points.length - 1]?.value ?? 0;
const spanOf = (first: number, now: number) => Math.min(MOST_MS, Math.max(LEAST_MS, now - first));

function ago(ms: number): string {
  return ms < 90_000 ? `${Math.round(ms / 1000)} s ago` : `${Math.round(ms / 60_000)} min ago`;
}

/** The points as a line, and as the area under it. */
function shape(points: Point[], width: number, height: number, most: number): { line: string; area: string } {
  const now = points[points.length - 1]?.at ?? 0;
  const span = spanOf(points[0]?.at ?? 0, now);
  const x = (at: number) => (width - ((now - at) / span) * width).toFixed(1);
  const y = (value: number) => (height - (value / most) * height).toFixed(1);
  const line = points.map(({ at, value }, n) => `${n ? "L" : "M"}${x(at)} ${y(value)}`).join(" ");
  return { line, area: `${line} L${x(now)} ${height} L${x(points[0]?.at ?? now)} ${height} Z` };
}

/** A number that matters now, and how it came to be. */
export function Tile(props: { name: string; value: string; unit?: string; points: Point[]; bad?: boolean }): ReactNode {
  const { name, value, unit, points, bad } = props;
  const most = Math.max(1e-9, ...points.map((point) => point.value)) * 1.1;
  const { line, area } = shape(points, 160, 36, most);
  return (
    <div className={bad ? "bad" : undefined}>
      <dt>
        {name}
        {unit && <span>, {unit}</span>}
      </dt>
      <dd>
        {value}
        <svg viewBox="0 0 160 38" preserveAspectRatio="none" aria-hidden="true" className="growth spark">
          <path className="area" d={area} />
          <path className="curve" d={line} />
        </svg>
      </dd>
    </div>
  );
}

/** One or two lines over the last minutes; the newest at the right. */
export function Line(props: { title: string; points: Point[]; note?: string; more?: Point[] }): ReactNode {
  const { title, points, note, more = [] } = props;
  const most = roundUp(Math.max(0, ...points.map(valueOf), ...more.map(valueOf)));
  const height = HEIGHT - FOOT - 8;
  const { line, area } = shape(points, WIDTH, height, most);
  const span = spanOf(points[0]?.at ?? 0, points[points.length - 1]?.at ?? 0);
  return (
    <figure>
      <figcaption>
        {title} {note && <small>{note}</small>}
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title}: now ${number(last(points))}`} className="growth">
        <g transform="translate(0 8)">
          {[0, 0.5, 1].map((share) => (
            <line key={share} x1="0" x2={WIDTH} y1={height * share} y2={height * share} className={share === 1 ? "axis" : "axis faint"} />
          ))}
          <path className="area" d={area} />
          <path className="curve" d={line} />
          {more.length > 0 && <path className="curve second" d={shape(more, WIDTH, height, most).line} />}
          <text x="2" y="12" className="scale">{number(most)}</text>
        </g>
        <Times span={span} />
      </svg>
    </figure>
  );
}

const valueOf = (point: Point) => point.value;

function Times({ span }: { span: number }): ReactNode {
  return (
    <>
      <text x="0" y={HEIGHT - 2} className="scale">{ago(span)}</text>
      <text x={WIDTH} y={HEIGHT - 2} className="scale end">now</text>
    </>
  );
}

/** 1, 2 or 5 times a power of ten: a scale that does not jump with every reading. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999) ?? value;
}

/** How often each length of time came. */
export function Bars({ title, list }: { title: string; list: Bucket[] }): ReactNode {
  const all = list.reduce((sum, { count }) => sum + count, 0);
  const shown = trimmed(list);
  const most = Math.max(1, ...shown.map(({ count }) => count));
  const width = WIDTH / Math.max(1, shown.length);
  const facts = `half ${quantile(list, 0.5)}, 95 % ${quantile(list, 0.95)}`;
  return (
    <figure>
      <figcaption>
        {title} <small>{facts}</small>
      </figcaption>
      {all === 0 ? (
        <p className="none">none yet</p>
      ) : (
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title}: ${facts}`} className="gaps">
          {shown.map(({ label, count }, at) => {
            const height = count ? Math.max(2, (count / most) * (HEIGHT - FOOT - 10)) : 0;
            return (
              <g key={label}>
                <title>{`up to ${label}: ${count}`}</title>
                <rect x={at * width + 1.5} width={width - 3} y={HEIGHT - FOOT - height} height={height} rx="2" />
                {(shown.length < 8 || at % 2 === 0) && (
                  <text x={at * width + width / 2} y={HEIGHT - 4} className="scale middle">{label}</text>
                )}
              </g>
            );
          })}
          <line x1="0" x2={WIDTH} y1={HEIGHT - FOOT + 0.5} y2={HEIGHT - FOOT + 0.5} className="axis" />
        </svg>
      )}
    </figure>
  );
}

/** Without the empty buckets at both ends, but never fewer than six. */
function trimmed(list: Bucket[]): Bucket[] {
  let first = list.findIndex(({ count }) => count > 0);
  if (first < 0) return list;
  let end = list.length;
  while (end > 0 && !list[end - 1]!.count) end--;
  first = Math.max(0, first - 1);
  end = Math.min(list.length, end + 1);
  while (end - first < 6 && (first > 0 || end < list.length)) {
    if (end < list.length) end++;
    if (end - first < 6 && first > 0) first--;
  }
  return list.slice(first, end);
}

/** A column of buckets for each stretch of time: which lengths came when. */
export interface Column {
  from: number;
  to: number;
  list: Bucket[];
}

export function Heat({ title, columns, note }: { title: string; columns: Column[]; note: string }): ReactNode {
  const now = columns[columns.length - 1]?.to ?? 0;
  const span = spanOf(columns[0]?.from ?? 0, now);
  const used = columns.flatMap(({ list }) => list.flatMap(({ count }, at) => (count ? [at] : [])));
  const low = Math.max(0, Math.min(...used) - 1);
  const high = Math.max(...used) + 1;
  const labels = columns[0]?.list.slice(low, high + 1) ?? [];
  const most = Math.max(1, ...columns.flatMap(({ list }) => list.map(({ count }) => count)));
  const left = 48;
  const tall = HEIGHT - FOOT;
  const row = tall / Math.max(1, labels.length);
  const x = (at: number) => WIDTH - ((now - at) / span) * (WIDTH - left);
  return (
    <figure>
      <figcaption>
        {title} <small>{note}</small>
      </figcaption>
      {used.length === 0 ? (
        <p className="none">nothing in this time</p>
      ) : (
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title}, ${note}`} className="heat">
          {labels.map(({ label }, at) => (
            <g key={label}>
              <rect x={left} width={WIDTH - left} y={tall - (at + 1) * row + 0.5} height={row - 1} className="cold" />
              {(labels.length < 9 || at % 2 === 0) && (
                <text x={left - 5} y={tall - at * row - row / 2 + 3} className="scale end">{label}</text>
              )}
            </g>
          ))}
          {columns.map(({ from, to, list }) =>
            list.slice(low, high + 1).map(({ count, label }, at) =>
              count ? (
                <rect
                  key={`${from} ${label}`}
                  x={x(from)}
                  width={Math.max(1, x(to) - x(from) - 0.5)}
                  y={tall - (at + 1) * row + 0.5}
                  height={row - 1}
                  opacity={0.2 + 0.8 * Math.sqrt(count / most)}
                >
                  <title>{`up to ${label}: ${count}`}</title>
                </rect>
              ) : null,
            ),
          )}
          <text x={left} y={HEIGHT - 2} className="scale">{ago(span)}</text>
          <text x={WIDTH} y={HEIGHT - 2} className="scale end">now</text>
        </svg>
      )}
    </figure>
  );
}

/** Names by how often they came, each with its share as a bar. */
export function Ranks({ title, rows, kind }: { title: string; rows: [string, number][]; kind?: string }): ReactNode {
  const most = Math.max(1, ...rows.map(([, count]) => count));
  return (
    <figure>
      <figcaption>{title}</figcaption>
      {!rows.length && <p className="none">none yet</p>}
      {rows.length > 0 && (
        <table className={kind}>
          <tbody>
            {rows.slice(0, 8).map(([name, count]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td className="share">
                  <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
                    <rect width={Math.max(1, (count / most) * 100)} height="8" rx="1" className={`of-${name.replace(/\W/g, "")}`} />
                  </svg>
                </td>
                <td>{number(count)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </figure>
  );
}
