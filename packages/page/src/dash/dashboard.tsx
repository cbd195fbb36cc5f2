/* Open runs, readers, rates, first-token times, store and errors, as they are now. */

import { TokenwireClient, type TokenwireError } from "@tokenwire/client";
import { useCallback, useEffect, useState, type ReactNode } from "react";
import { SignIn } from "../sign-in.js";
import { ThemeButton } from "../theme.js";
import { buckets, byLabel, parseMetrics, quantile, rate, total, type Bucket, type Reading } from "./metrics.js";

const EVERY_MS = 2000;
/** Five minutes. */
const MOST_READINGS = 150;
const client = new TokenwireClient();

export function Dashboard(): ReactNode {
  const [readings, setReadings] = useState<Reading[]>([]);
  const [problem, setProblem] = useState<TokenwireError>();
  const read = useCallback(async () => {
    try {
      const reading = parseMetrics(await client.text("/metrics"));
      setReadings((before) => [...before.slice(1 - MOST_READINGS), reading]);
      setProblem(undefined);
    } catch (error) {
      setProblem(error as TokenwireError);
    }
  }, []);
  useEffect(() => {
    void read();
    const timer = setInterval(() => document.hidden || void read(), EVERY_MS);
    return () => clearInterval(timer);
  }, [read]);
  if (problem?.status === 401) return <SignIn client={client} onDone={() => void read()} />;
  const now = readings[readings.length - 1];
  return (
    <main className="dash">
      <header className="bar">
        <h1>tokenwire dashboard</h1>
        <a href="/">Chat</a>
        <ThemeButton />
      </header>
      {problem && (
        <p className="notice" role="alert">
          {problem.message}
        </p>
      )}
      {now && <Figures readings={readings} now={now} />}
    </main>
  );
}

function Figures({ readings, now }: { readings: Reading[]; now: Reading }): ReactNode {
  const series = (measure: (reading: Reading, before: Reading | undefined) => number) =>
    readings.map((reading, at) => measure(reading, readings[at - 1]));
  const running = series((reading) => {
    const ended = total(reading, "tokenwire_runs_ended_total");
    return Math.max(0, total(reading, "tokenwire_runs_started_total") - ended);
  });
  const connections = series((reading) => total(reading, "tokenwire_connections_open"));
  const events = series((reading, before) => rate(before, reading, "tokenwire_store_records_total"));
  const requests = series((reading, before) => rate(before, reading, "tokenwire_requests_total"));
  const lag = series((reading) => total(reading, "tokenwire_loop_lag_seconds") * 1000);
  const minute = readings[Math.max(0, readings.length - 31)];
  const tokens = tokensPerSecond(minute, now);
  return (
    <>
      <dl className="figures">
        <Figure name="open runs" value={last(running)} />
        <Figure name="connections" value={last(connections)} />
        <Figure name="events stored" value={last(events)} unit="/s" />
        <Figure name="output tokens" value={tokens} unit="/s, last minute" />
        <Figure name="runs started" value={total(now, "tokenwire_runs_started_total")} />
        <Figure name="loop lag" value={last(lag)} unit="ms" />
      </dl>
      <div className="charts">
        <Line title="Open runs" values={running} />
        <Line title="Events stored per second" values={events} />
        <Line title="Connections" values={connections} />
        <Line title="Requests per second" values={requests} />
        <Bars title="Time to the first visible event" list={buckets(now, "tokenwire_first_token_seconds")} />
        <Bars title="Time of a run" list={buckets(now, "tokenwire_run_seconds")} />
        <Bars title="Time of a store's append" list={buckets(now, "tokenwire_store_append_seconds")} />
        <Line title="Loop lag, milliseconds" values={lag} />
      </div>
      <div className="charts">
        <Table title="Runs by outcome" rows={byLabel(now, "tokenwire_runs_ended_total", "outcome")} />
        <Table title="Errors by code" rows={byLabel(now, "tokenwire_runs_ended_total", "code").filter(([code]) => code)} />
        <Table title="Readers by wire" rows={byLabel(now, "tokenwire_readers_total", "wire")} />
        <Table title="Answers by status" rows={byLabel(now, "tokenwire_requests_total", "status")} />
      </div>
    </>
  );
}

function tokensPerSecond(before: Reading | undefined, now: Reading): number {
  if (!before || now.at <= before.at) return 0;
  const output = (reading: Reading) => total(reading, "tokenwire_tokens_total", { kind: "output" });
  return (Math.max(0, output(now) - output(before)) * 1000) / (now.at - before.at);
}

const last = (values: number[]) => values[values.length - 1] ?? 0;

function Figure({ name, value, unit = "" }: { name: string; value: number; unit?: string }): ReactNode {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {number(value)}
        <small>{unit}</small>
      </dd>
    </div>
  );
}

function number(value: number): string {
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString() : value.toFixed(1);
}

const WIDTH = 400;
const HEIGHT = 110;

/** The last five minutes; the newest at the right. */
function Line({ title, values }: { title: string; values: number[] }): ReactNode {
  const most = Math.max(1, ...values);
  const x = (at: number) => WIDTH - (values.length - 1 - at) * (WIDTH / (MOST_READINGS - 1));
  const y = (value: number) => HEIGHT - 16 - (value / most) * (HEIGHT - 30);
  const path = values.map((value, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join(" ");
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title}: now ${number(last(values))}, at most ${number(most)}`} className="growth">
        <path className="area" d={`${path} L${WIDTH} ${HEIGHT - 16} L${x(0).toFixed(1)} ${HEIGHT - 16} Z`} />
        <path className="curve" d={path} />
        <line x1="0" x2={WIDTH} y1={HEIGHT - 15.5} y2={HEIGHT - 15.5} className="axis" />
        <text x="0" y="10" className="scale">
          {number(most)}
        </text>
        <text x="0" y={HEIGHT - 3} className="scale">
          5 min ago
        </text>
        <text x={WIDTH} y={HEIGHT - 3} className="scale end">
          now
        </text>
      </svg>
    </figure>
  );
}

function Bars({ title, list }: { title: string; list: Bucket[] }): ReactNode {
  const most = Math.max(1, ...list.map(({ count }) => count));
  const width = WIDTH / Math.max(1, list.length);
  return (
    <figure>
      <figcaption>
        {title}
        <small>
          half {quantile(list, 0.5)}, 95 % {quantile(list, 0.95)}
        </small>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title}: half ${quantile(list, 0.5)}, 95 % ${quantile(list, 0.95)}`} className="gaps">
        {list.map(({ label, count }, at) => {
          const height = (count / most) * (HEIGHT - 30);
          return (
            <g key={label}>
              <rect x={at * width + 2} width={width - 4} y={HEIGHT - 16 - height} height={height} rx="2" />
              {at % 2 === 0 && (
                <text x={at * width + width / 2} y={HEIGHT - 3} className="scale middle">
                  {label}
                </text>
              )}
            </g>
          );
        })}
        <line x1="0" x2={WIDTH} y1={HEIGHT - 15.5} y2={HEIGHT - 15.5} className="axis" />
      </svg>
    </figure>
  );
}

function Table({ title, rows }: { title: string; rows: [string, number][] }): ReactNode {
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <table>
        <tbody>
          {rows.slice(0, 8).map(([name, count]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{number(count)}</td>
            </tr>
          ))}
          {!rows.length && (
            <tr>
              <td>none yet</td>
            </tr>
          )}
        </tbody>
      </table>
    </figure>
  );
}
