/* The stream inspector: how an answer travelled, as pictures. */

import { stateOf, usageOf } from "@tokenwire/client";
import { useRunStore, type Turn } from "@tokenwire/react";
import { useEffect, useState, type ReactNode } from "react";
import { Icon } from "./icons.js";
import { binned, cumulative, histogram, laneOf, LANES, percentile, type Bar } from "./measure.js";
import { time } from "./turn.js";

const WIDTH = 320;

export function Inspector({ turn, onClose }: { turn: Turn | undefined; onClose(): void }): ReactNode {
  return (
    <aside className="inspector" aria-label="Stream inspector">
      <header>
        <h2>Stream</h2>
        <button type="button" className="quiet icon" aria-label="Close the inspector" onClick={onClose}>
          <Icon name="close" />
        </button>
      </header>
      {turn ? <Details key={turn.id} turn={turn} /> : <p className="empty">Ask something to see its stream.</p>}
    </aside>
  );
}

function Details({ turn }: { turn: Turn }): ReactNode {
  const { state, link, reconnects } = useRunStore(turn.store);
  const live = stateOf(state) === "running" || stateOf(state) === "waiting";
  // Pictures need no more than a few frames a second.
  const [, tick] = useState(0);
  useEffect(() => {
    if (!live) return undefined;
    const timer = setInterval(() => tick((n) => n + 1), 250);
    return () => clearInterval(timer);
  }, [live]);
  const { meter } = turn;
  const gaps = meter.gaps();
  const tokens = usageOf(state).output_tokens;
  const rate = tokens && meter.spanMs > 50 ? (tokens * 1000) / meter.spanMs : undefined;
  const characters = meter.points.reduce((sum, point) => sum + point.text, 0);
  return (
    <>
      <dl className="figures">
        <Figure name="first token" value={meter.firstMs === undefined ? "–" : time(meter.firstMs)} note={meter.asked ? "on this screen" : "on the server"} />
        <Figure name="rate" value={rate ? `${rate.toFixed(0)}/s` : "–"} note="tokens" />
        <Figure name="gap, median" value={gaps.length ? time(percentile(gaps, 0.5)) : "–"} note={gaps.length ? `95 %: ${time(percentile(gaps, 0.95))}` : ""} />
        <Figure name="events" value={meter.events.toLocaleString()} note={bytes(meter.bytes)} />
        <Figure name="reconnects" value={String(reconnects)} note={link} />
        <Figure name="text" value={characters.toLocaleString()} note="characters" />
      </dl>
      <TimeLine turn={turn} />
      <Growth turn={turn} />
      <Histogram gaps={gaps} />
      <p className="run-id">
        <code>{turn.run ?? "not started"}</code>
        <br />
        {stateOf(state)}
        {state.model ? ` · ${state.model}` : ""}
      </p>
    </>
  );
}

function Figure({ name, value, note }: { name: string; value: string; note: string }): ReactNode {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {value}
        <small>{note}</small>
      </dd>
    </div>
  );
}

/** Every event at its time, one lane a kind. */
function TimeLine({ turn }: { turn: Turn }): ReactNode {
  const { points } = turn.meter;
  const end = Math.max(1, points[points.length - 1]?.t ?? 1);
  const lanes = LANES.filter(({ id }) => points.some((point) => laneOf(point.type) === id));
  const height = lanes.length * 22 + 4;
  return (
    <figure>
      <figcaption>Events over time</figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${height + 16}`} role="img" aria-label={`${points.length} events in ${time(end)}, in ${lanes.length} kinds`}>
        {lanes.map(({ id, label }, row) => (
          <g key={id} className={`lane ${id}`} transform={`translate(0 ${row * 22})`}>
            <text x="0" y="14">
              {label}
            </text>
            <line x1="64" x2={WIDTH} y1="16.5" y2="16.5" className="axis" />
            {binned(points.filter((point) => laneOf(point.type) === id), end, 128).map((bar) => (
              <rect key={bar.at} x={64 + bar.at * 2} width="1.6" y={16 - bar.share * 13} height={bar.share * 13} />
            ))}
          </g>
        ))}
        <text x="64" y={height + 12} className="scale">
          0
        </text>
        <text x={WIDTH} y={height + 12} className="scale end">
          {time(end)}
        </text>
      </svg>
    </figure>
  );
}

/** The text as it grew; a straight line is a steady stream. */
function Growth({ turn }: { turn: Turn }): ReactNode {
  const { points } = turn.meter;
  const { path, total, end } = cumulative(points, WIDTH, 72);
  if (!total) return null;
  return (
    <figure>
      <figcaption>Text, piece by piece</figcaption>
      <svg viewBox={`0 0 ${WIDTH} 88`} role="img" aria-label={`${total} characters in ${time(end)}`} className="growth">
        <path className="area" d={`${path} L${WIDTH} 72 L0 72 Z`} />
        <path className="curve" d={path} />
        <line x1="0" x2={WIDTH} y1="72.5" y2="72.5" className="axis" />
        <text x="0" y="84" className="scale">
          0
        </text>
        <text x={WIDTH} y="84" className="scale end">
          {time(end)}
        </text>
      </svg>
    </figure>
  );
}

function Histogram({ gaps }: { gaps: number[] }): ReactNode {
  if (gaps.length < 2) return null;
  const bars: Bar[] = histogram(gaps);
  const width = WIDTH / bars.length;
  return (
    <figure>
      <figcaption>Gaps between pieces</figcaption>
      <svg viewBox={`0 0 ${WIDTH} 88`} role="img" aria-label={`Median ${time(percentile(gaps, 0.5))}, 95 % under ${time(percentile(gaps, 0.95))}`} className="gaps">
        {bars.map((bar, at) => (
          <g key={bar.label}>
            <rect x={at * width + 2} width={width - 4} y={70 - bar.share * 62} height={Math.max(bar.share * 62, bar.count ? 1 : 0)} rx="2" />
            <text x={at * width + width / 2} y="84" className="scale middle">
              {bar.label}
            </text>
          </g>
        ))}
        <line x1="0" x2={WIDTH} y1="70.5" y2="70.5" className="axis" />
      </svg>
    </figure>
  );
}

function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  return count < 1 << 20 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / (1 << 20)).toFixed(1)} MiB`;
}
