/* Open runs, readers, rates, first-token times, store and errors, as they are now. */

import type { TokenwireError } from "@tokenwire/client";
import { useCallback, useEffect, useState, type ReactNode } from "react";
import { client } from "../server.js";
import { SignIn } from "../sign-in.js";
import { ThemeButton } from "../theme.js";
import { SpendingView } from "./spending.js";
import { Bars, Heat, Line, MOST_MS, number, Ranks, Tile, type Column, type Point } from "./charts.js";
import { between, buckets, byLabel, parseMetrics, quantile, rate, total, type Bucket, type Reading } from "./metrics.js";

const EVERY_MS = 2000;

export function Dashboard(): ReactNode {
  const [readings, setReadings] = useState<Reading[]>([]);
  const [problem, setProblem] = useState<TokenwireError>();
  const read = useCallback(async () => {
    try {
      const reading = parseMetrics(await client.text("/metrics"));
      setReadings((before) => [...before.filter(({ at }) => at > reading.at - MOST_MS), reading]);
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
        <a href="./" className="to-chat">Chat</a>
        <ThemeButton />
      </header>
      {problem && (
        <p className="notice" role="alert">
          {problem.message}
        </p>
      )}
      {now && <Figures readings={readings} now={now} />}
      {now && total(now, "tokenwire_usage_counted") > 0 && <SpendingView now={now} />}
    </main>
  );
}

function Figures({ readings, now }: { readings: Reading[]; now: Reading }): ReactNode {
  const series = (measure: (reading: Reading, before: Reading | undefined) => number): Point[] =>
    readings.map((reading, n) => ({ at: reading.at, value: measure(reading, readings[n - 1]) }));
  const running = series((r) => left(r, "tokenwire_runs_started_total", "tokenwire_runs_ended_total"));
  const readers = series((r) => left(r, "tokenwire_readers_total", "tokenwire_readers_left_total"));
  const sockets = series((r) => total(r, "tokenwire_connections_open"));
  const chunks = series((r, before) => rate(before, r, "tokenwire_chunk_gap_seconds_count"));
  const tokens = series((r) => tokensPerSecond(minuteBefore(readings, r), r));
  const events = series((r, before) => rate(before, r, "tokenwire_store_records_total"));
  const requests = series((r, before) => rate(before, r, "tokenwire_requests_total"));
  const failed = series((r) => failures(minuteBefore(readings, r), r));
  const lag = series((r) => total(r, "tokenwire_loop_lag_seconds") * 1000);
  const first = recent(readings, "tokenwire_first_token_seconds");
  const half = series((r) => middle(minuteBefore(readings, r), r, "tokenwire_first_token_seconds"));
  return (
    <>
      <dl className="figures">
        <Tile name="open runs" value={number(last(running))} points={running} />
        <Tile name="readers" value={number(last(readers))} points={readers} />
        <Tile name="output tokens" unit="per second" value={number(last(tokens))} points={tokens} />
        <Tile name="first token" unit="median" value={quantile(first, 0.5)} points={half} />
        <Tile name="failed runs" unit="1 min" value={number(last(failed))} points={failed} bad={last(failed) > 0} />
        <Tile name="loop lag" unit="ms" value={number(last(lag))} points={lag} bad={last(lag) > 100} />
      </dl>
      <div className="charts wide">
        <Line title="Open runs" points={running} />
        <Line title="Chunks from models per second" points={chunks} />
        <Heat title="First tokens" note="how long, and when" columns={columns(readings, "tokenwire_first_token_seconds")} />
        <Heat title="Gaps between chunks" note="how long, and when" columns={columns(readings, "tokenwire_chunk_gap_seconds")} />
      </div>
      <div className="charts">
        <Bars title="Time to the first visible event" list={buckets(now, "tokenwire_first_token_seconds")} />
        <Bars title="Gap between chunks" list={buckets(now, "tokenwire_chunk_gap_seconds")} />
        <Bars title="Time of a store's append" list={buckets(now, "tokenwire_store_append_seconds")} />
        <Bars title="Time of a run" list={buckets(now, "tokenwire_run_seconds")} />
        <Line title="Readers and connections" points={readers} more={sockets} />
        <Line title="Events stored per second" points={events} />
        <Line title="Requests per second" points={requests} />
        <Line title="Loop lag, milliseconds" points={lag} />
        <Ranks title="Runs by outcome" rows={byLabel(now, "tokenwire_runs_ended_total", "outcome")} kind="outcomes" />
        <Ranks title="Errors by code" rows={byLabel(now, "tokenwire_runs_ended_total", "code").filter(([code]) => code)} kind="errors" />
        <Ranks title="Readers by wire" rows={byLabel(now, "tokenwire_readers_total", "wire")} />
        <Ranks title="Answers by status" rows={byLabel(now, "tokenwire_requests_total", "status")} />
      </div>
    </>
  );
}

const last = (points: Point[]) => points[points.length - 1]?.value ?? 0;

/** Came, less those that left. */
function left(reading: Reading, came: string, gone: string): number {
  return Math.max(0, total(reading, came) - total(reading, gone));
}

function minuteBefore(readings: Reading[], reading: Reading): Reading | undefined {
  return readings.find(({ at }) => at >= reading.at - 60_000 && at < reading.at);
}

function tokensPerSecond(before: Reading | undefined, now: Reading): number {
  if (!before) return 0;
  const output = (reading: Reading) => total(reading, "tokenwire_tokens_total", { kind: "output" });
  return (Math.max(0, output(now) - output(before)) * 1000) / (now.at - before.at);
}

function failures(before: Reading | undefined, now: Reading): number {
  const of = (reading: Reading, outcome: string) => total(reading, "tokenwire_runs_ended_total", { outcome });
  return before
    ? ["error", "interrupted"].reduce((sum, outcome) => sum + Math.max(0, of(now, outcome) - of(before, outcome)), 0)
    : 0;
}

/** The buckets of the last minute, or of all time where that has none. */
function recent(readings: Reading[], name: string): Bucket[] {
  const now = readings[readings.length - 1]!;
  const found = between(minuteBefore(readings, now), now, name);
  return found.some(({ count }) => count) ? found : buckets(now, name);
}

/** The upper edge of the bucket that holds the middle one, in seconds. */
function middle(before: Reading | undefined, now: Reading, name: string): number {
  const list = between(before, now, name);
  const all = list.reduce((sum, { count }) => sum + count, 0);
  let seen = 0;
  return (all && list.find(({ count }) => (seen += count) * 2 >= all)?.edge) || 0;
}

/** What came between each two readings, a few readings to a column. */
function columns(readings: Reading[], name: string): Column[] {
  const step = Math.max(1, Math.ceil(readings.length / 60));
  const found: Column[] = [];
  for (let n = step; n < readings.length; n += step) {
    const [before, after] = [readings[n - step]!, readings[n]!];
    found.push({ from: before.at, to: after.at, list: between(before, after, name) });
  }
  return found;
}
