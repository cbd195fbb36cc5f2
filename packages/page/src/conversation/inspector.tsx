/* The stream inspector: how an answer travelled, as pictures. */

import { stateOf, usageOf } from "@tokenwire/client";
import { useRunStore, type Turn } from "@tokenwire/react";
import { useEffect, useState, type ReactNode } from "react";
import { Icon } from "../icons.js";
import { binned, cumulative, histogram, laneOf, LANES, paced, percentile, type Bar } from "./measure.js";
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
  return (
    <>
      <dl className="figures">
        <Figure name="first token" value={meter.firstMs === undefined ? "–" : time(meter.firstMs)} note={meter.asked ? "on this screen" : "on the server"} />
        <Figure name="rate" value={rate ? `${rate.toFixed(0)}/s` : "–"} note="tokens" />
        <Figure name="gap, median" value={gaps.length ? time(percentile(gaps, 0.5)) : "–"} note={gaps.length ? `95 %: ${time(percentile(gaps, 0.95))}` : ""} />
        <Figure name="events" value={meter.events.toLocaleString()} note={bytes(meter.bytes)} />
        <Figure name="reconnects" value={String(reconnects)} note={link} />
        <Figure name="text" value={meter.characters.toLocaleString()} note="characters" />
      </dl>
      <TimeLine turn={turn} />
      <Pace turn={turn} tokens={tokens} />
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

/** Where the lanes begin; their names stand at the left. */
const LEFT = 64;

/** Every event at its time, one lane a kind; how long nothing was seen, and where the line broke. */
function TimeLine({ turn }: { turn: Turn }): ReactNode {
  const { points, cuts, firstT } = turn.meter;
  const end = Math.max(1, points[points.length - 1]?.t ?? 1);
  const lanes = LANES.filter(({ id }) => points.some((point) => laneOf(point.type) === id));
  const height = lanes.length * 22 + 4;
  const x = (t: number) => LEFT + (Math.min(t, end) / end) * (WIDTH - LEFT);
  const told = [`${points.length} events in ${time(end)}, in ${lanes.length} kinds`];
  if (firstT !== undefined) told.push(`the first visible one after ${time(firstT)}`);
  if (cuts.length) told.push(`the connection lost ${cuts.length} times`);
  return (
    <figure>
      <figcaption>
        Events over time
        {firstT !== undefined && <Key kind="wait">to the first token</Key>}
        {cuts.length > 0 && <Key kind="cut">reconnect</Key>}
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${height + 16}`} role="img" aria-label={told.join(", ")}>
        {firstT !== undefined && <rect className="wait" x={LEFT} width={Math.max(1, x(firstT) - LEFT)} y="0" height={height - 4} rx="2" />}
        {lanes.map(({ id, label }, row) => (
          <g key={id} className={`lane ${id}`} transform={`translate(0 ${row * 22})`}>
            <text x="0" y="14">
              {label}
            </text>
            <line x1={LEFT} x2={WIDTH} y1="16.5" y2="16.5" className="axis" />
            {binned(points.filter((point) => laneOf(point.type) === id), end, 128).map((bar) => (
              <rect key={bar.at} x={LEFT + bar.at * 2} width="1.6" y={16 - bar.share * 13} height={bar.share * 13} />
            ))}
          </g>
        ))}
        {cuts.map((t, at) => (
          <line key={at} x1={x(t)} x2={x(t)} y1="0" y2={height - 4} className="cut" />
        ))}
        <Scale from={LEFT} y={height + 12} end={end} />
      </svg>
    </figure>
  );
}

function Key({ kind, children }: { kind: string; children: ReactNode }): ReactNode {
  return (
    <small className="key">
      <svg viewBox="0 0 10 10" aria-hidden="true" className={`key-${kind}`}>
        {kind === "cut" ? <line x1="5" x2="5" y1="0" y2="10" className="cut" /> : <rect width="10" height="10" rx="2" className={kind} />}
      </svg>
      {children}
    </small>
  );
}

function Scale({ from = 0, y, end }: { from?: number; y: number; end: number }): ReactNode {
  return (
    <>
      <text x={from} y={y} className="scale">
        0
      </text>
      <text x={WIDTH} y={y} className="scale end">
        {time(end)}
      </text>
    </>
  );
}

const SLICES = 40;

/** How fast the text came, slice by slice; in tokens where the provider counted them. */
function Pace({ turn, tokens }: { turn: Turn; tokens: number | undefined }): ReactNode {
  const { points, characters } = turn.meter;
  const end = Math.max(1, points[points.length - 1]?.t ?? 1);
  if (!characters || end < 50) return null;
  const { bars, perSecond } = paced(points, end, SLICES);
  const most = tokens ? (perSecond * tokens) / characters : perSecond;
  const unit = tokens ? "tokens" : "characters";
  const width = WIDTH / SLICES;
  return (
    <figure>
      <figcaption>
        {tokens ? "Tokens" : "Characters"} per second <small>{tokens ? "by the length of the text" : ""}</small>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} 76`} role="img" aria-label={`At most ${most.toFixed(0)} ${unit} per second`} className="pace">
        <line x1="0" x2={WIDTH} y1="6.5" y2="6.5" className="axis faint" />
        {bars.map(({ at, share }) => (
          <rect key={at} x={at * width + 0.8} width={width - 1.6} y={60 - share * 53} height={share * 53} rx="1.5" />
        ))}
        <line x1="0" x2={WIDTH} y1="60.5" y2="60.5" className="axis" />
        <text x="2" y="16" className="scale">
          {most.toFixed(most < 10 ? 1 : 0)}
        </text>
        <Scale y={72} end={end} />
      </svg>
    </figure>
  );
}

/** The text and its bytes as they grew; a straight line is a steady stream. */
function Growth({ turn }: { turn: Turn }): ReactNode {
  const { points, bytes: sent, characters } = turn.meter;
  const { path, total, end } = cumulative(points, WIDTH, 72);
  if (!total) return null;
  const size = cumulative(points, WIDTH, 72, "size");
  return (
    <figure>
      <figcaption>
        Growth <Key kind="text">{characters.toLocaleString()} characters</Key> <Key kind="bytes">{bytes(sent)} received</Key>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} 88`} role="img" aria-label={`${characters} characters and ${bytes(sent)} in ${time(end)}`} className="growth">
        <path className="area" d={`${path} L${WIDTH} 72 L0 72 Z`} />
        <path className="curve second" d={size.path} />
        <path className="curve" d={path} />
        <line x1="0" x2={WIDTH} y1="72.5" y2="72.5" className="axis" />
        <Scale y={84} end={end} />
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
