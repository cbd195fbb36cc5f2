/* What an agent does beside its words: its tasks, how far it is, its sources and facts, its state.

Always true: names and values are an agent's or a tool's, so they are text with what hides revealed,
and become links only where `safeLink` says so. */

import type { Agent, RunState } from "@tokenwire/client";
import type { TaskState } from "@tokenwire/react";
import { type ReactNode } from "react";
import { revealed } from "../hidden.js";
import { Icon } from "../icons.js";
import { safeLink } from "../markdown/links.js";

const TASK: Record<TaskState["status"], string> = {
  running: "running",
  done: "done",
  failed: "failed",
  stopped: "stopped",
};

export function Tasks({ tasks }: { tasks: TaskState[] }): ReactNode {
  return (
    <ul className="tasks" aria-label="Steps of the agent">
      {tasks.map(({ step, name, status, attempt }) => (
        <li key={step} data-status={status}>
          <Mark status={status} />
          <bdi className="task-name">{revealed(name || "step")}</bdi>
          <span className="status">
            {TASK[status]}
            {attempt > 1 ? `, attempt ${attempt}` : ""}
          </span>
        </li>
      ))}
    </ul>
  );
}

function Mark({ status }: { status: TaskState["status"] }): ReactNode {
  if (status === "running") return <span className="spinner" aria-hidden="true" />;
  return <Icon name={status === "done" ? "check" : status === "failed" ? "warning" : "stop"} />;
}

/** What one of several agents says; a subagent's words stand apart from the answer. */
export function Speaker({ speaker, children }: { speaker: Agent; children: ReactNode }): ReactNode {
  const { id, name = id, parent } = speaker;
  const shown = revealed(name);
  return (
    <div className={`speaker${parent === undefined ? "" : " sub"}`} role="group" aria-label={shown} dir="auto">
      <p className="speaker-name" aria-hidden="true">
        <Icon name="agent" /> <span>{shown}</span>
      </p>
      {children}
    </div>
  );
}

/** How far the run is, while it is under way. */
export function RunProgress({ run }: { run: RunState }): ReactNode {
  if (!run.progress || run.outcome) return null;
  const { fraction, message } = run.progress;
  const label = message ? revealed(message) : "Working";
  return (
    <div className="progress of-run">
      <progress max={1} value={fraction} aria-label={label} />
      <span className="said">
        <bdi>{label}</bdi>
        {fraction !== undefined && <span className="percent"> {Math.round(fraction * 100)} %</span>}
      </span>
    </div>
  );
}

const SOURCES = /^(sources?|citations?|documents?|references?)$/i;

/** Sources, other facts, and the state that the agent shares. */
export function AgentFacts({ run }: { run: RunState }): ReactNode {
  const sources = run.data.filter(({ name }) => SOURCES.test(name)).flatMap(({ payload }) => listOf(payload));
  const names = new Set(run.data.map(({ name }) => name).filter((name) => !SOURCES.test(name)));
  return (
    <>
      {sources.length > 0 && <Sources list={sources} />}
      {[...names].map((name) => {
        const values = run.data.filter((one) => one.name === name).map(({ payload }) => payload);
        return <Fact key={name} title={name} value={values.length > 1 ? values : values[0]} />;
      })}
      {run.shared !== undefined && run.shared !== null && <Fact title="State" value={run.shared} />}
    </>
  );
}

const MOST_SOURCES = 30;

function listOf(payload: unknown): unknown[] {
  if (Array.isArray(payload)) return payload as unknown[];
  return payload === null || payload === undefined ? [] : [payload];
}

interface Source {
  title: string;
  href?: string | undefined;
  host?: string | undefined;
}

/** A text, an address, or an object that names either. */
function sourceOf(value: unknown): Source {
  if (typeof value === "string") return linked(value, "");
  if (!value || typeof value !== "object") return { title: String(value) };
  const fields = value as Record<string, unknown>;
  const text = (...names: string[]) =>
    names.map((name) => (Object.hasOwn(fields, name) ? fields[name] : "")).find((one) => typeof one === "string" && one) as
      | string
      | undefined;
  const title = text("title", "name", "filename", "document_title", "page", "id") ?? "";
  const url = text("url", "href", "link", "uri", "source");
  return url ? linked(url, title) : { title: title || JSON.stringify(value) };
}

function linked(url: string, title: string): Source {
  const safe = /^[a-z][a-z0-9+.-]*:/i.test(url) ? safeLink(url) : null;
  return safe ? { title: title || url, href: safe.href, host: safe.host } : { title: title ? `${title} (${url})` : url };
}

function Sources({ list }: { list: unknown[] }): ReactNode {
  const sources = list.slice(0, MOST_SOURCES).map(sourceOf);
  return (
    <div className="sources" role="group" aria-label="Sources">
      <p className="sources-title" aria-hidden="true">
        Sources
      </p>
      <ol dir="auto">
        {sources.map(({ title, href, host }, at) => (
          <li key={at}>
            {href ? (
              <a href={href} target="_blank" rel="noopener noreferrer nofollow">
                {revealed(title)}
              </a>
            ) : (
              revealed(title)
            )}
            {host && <span className="host"> ({host})</span>}
          </li>
        ))}
      </ol>
      {list.length > MOST_SOURCES && <p className="quiet-note">and {list.length - MOST_SOURCES} more</p>}
    </div>
  );
}

function Fact({ title, value }: { title: string; value: unknown }): ReactNode {
  return (
    <details className="fact">
      <summary>
        <bdi>{revealed(title)}</bdi>
      </summary>
      <Value value={value} depth={0} />
    </details>
  );
}

const MOST_ENTRIES = 100;
const MOST_TEXT = 20000;
const MOST_DEPTH = 6;

/** A JSON value as lists of names and values. */
function Value({ value, depth }: { value: unknown; depth: number }): ReactNode {
  if (value === null || typeof value !== "object") {
    const text = typeof value === "string" ? value : String(value ?? "none");
    return <span className="value" dir="auto">{revealed(text.slice(0, MOST_TEXT))}</span>;
  }
  const entries = Object.entries(value);
  if (!entries.length) return <span className="value quiet">empty</span>;
  if (depth >= MOST_DEPTH) return <span className="value">{revealed(JSON.stringify(value).slice(0, MOST_TEXT))}</span>;
  const shown = entries.slice(0, MOST_ENTRIES);
  const more = entries.length > shown.length && <p className="quiet-note">and {entries.length - shown.length} more</p>;
  if (Array.isArray(value)) {
    return (
      <>
        <ul className="values">
          {shown.map(([name, item]) => (
            <li key={name}>
              <Value value={item} depth={depth + 1} />
            </li>
          ))}
        </ul>
        {more}
      </>
    );
  }
  return (
    <>
      <dl className="values">
        {shown.map(([name, item]) => (
          <div key={name}>
            <dt>
              <bdi>{revealed(name)}</bdi>
            </dt>
            <dd>
              <Value value={item} depth={depth + 1} />
            </dd>
          </div>
        ))}
      </dl>
      {more}
    </>
  );
}
