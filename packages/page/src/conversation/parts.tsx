/* How the parts of an answer look: text, reasoning, tools, approvals, refusals, files. */

import type { PartState, RunState, ToolState } from "@tokenwire/client";
import { MessageParts, shown, toolStatus, useApprovalAnswer, waitsForApproval, type PartProps, type Renderers } from "@tokenwire/react";
import { useMemo, useState, type ReactNode } from "react";
import { hiddenCount, revealed } from "../hidden.js";
import { AgentFacts, RunProgress, Speaker, Tasks } from "./agent.js";
import { cleanBase64, FileView } from "./files.js";
import { Icon } from "../icons.js";
import { safeLink } from "../markdown/links.js";
import { Markdown } from "../markdown/markdown.js";

export type Approve = (approval: string, answer: { approved: boolean; arguments?: unknown }) => Promise<unknown>;

const RENDER: Renderers = {
  text: ({ part }) => <TextPart part={part} />,
  reasoning: ({ part }) => <Reasoning part={part} />,
  refusal: ({ part }) => <p className="refusal" dir="auto">{part.text}</p>,
  "tool-call": (props) => <ToolCard {...props} />,
  "provider-result": ({ part }) => <Result title={`Result of ${String(part.attrs.name ?? "a tool")}`} content={part.attrs.content ?? part.text} />,
  file: ({ part }) => <FileCard part={part} />,
};

export function AnswerParts(props: {
  state: RunState;
  open: boolean;
  /** Undefined for a person who may not allow tools. */
  onApprove: Approve | undefined;
}): ReactNode {
  const { onApprove } = props;
  // Parts are memoized, so what they call must stay the same while the turn does.
  const [holder] = useState({ onApprove });
  holder.onApprove = onApprove;
  const approve = useMemo(
    () => (approval: string, answer: { approved: boolean }) => holder.onApprove?.(approval, answer),
    [holder],
  );
  const run = props.state;
  return (
    <>
      <MessageParts
        run={run}
        render={RENDER}
        tasks={(tasks) => <Tasks tasks={tasks} />}
        speaker={(speaker, children) => <Speaker speaker={speaker}>{children}</Speaker>}
        onApprove={onApprove && approve}
      />
      <RunProgress run={run} />
      <AgentFacts run={run} />
    </>
  );
}

function TextPart({ part }: { part: PartState }): ReactNode {
  const hidden = part.status === "open" ? 0 : hiddenCount(part.text);
  return (
    <>
      <Markdown text={part.text} open={part.status === "open"} />
      <Citations list={part.attrs.citations} />
      {hidden > 0 && (
        <p className="quiet-note">
          <Icon name="warning" /> This text holds {hidden} characters that cannot be seen.
        </p>
      )}
    </>
  );
}

function Citations({ list }: { list: unknown }): ReactNode {
  if (!Array.isArray(list) || !list.length) return null;
  const seen = new Map<string, string>();
  for (const one of list as Record<string, unknown>[]) {
    const safe = typeof one?.url === "string" ? safeLink(one.url) : null;
    if (safe) seen.set(safe.href, typeof one.title === "string" && one.title ? revealed(one.title) : safe.host);
  }
  if (!seen.size) return null;
  return (
    <ul className="citations" aria-label="Sources">
      {[...seen].map(([href, title]) => (
        <li key={href}>
          <a href={href} target="_blank" rel="noopener noreferrer nofollow">
            {title}
          </a>
          <span className="host"> ({safeLink(href)?.host})</span>
        </li>
      ))}
    </ul>
  );
}

function Reasoning({ part }: { part: PartState }): ReactNode {
  const open = part.status === "open";
  if (!part.text) return null;
  return (
    <details className="reasoning">
      <summary>
        <Icon name="thought" /> {open ? "Thinking…" : part.attrs.summary ? "Summary of the reasoning" : "Reasoning"}
      </summary>
      <div className="thoughts" dir="auto">{part.text}</div>
    </details>
  );
}

const STATUS: Record<string, string> = {
  writing: "writing arguments",
  waiting: "waits for you",
  running: "running",
  done: "done",
  failed: "failed",
  truncated: "cut off",
  invalid: "invalid arguments",
};

function ToolCard({ part, tool, onApprove }: PartProps): ReactNode {
  const status = toolStatus(part, tool);
  const written = part.text || (part.attrs.arguments === undefined ? "" : shown(part.attrs.arguments));
  const asks = !!tool && waitsForApproval(tool) && !!onApprove;
  const ended = status === "done" || status === "failed";
  return (
    <section className="tool" data-status={status} aria-label={`Tool ${String(part.attrs.name ?? "")}`}>
      <header>
        <Icon name="tool" />
        <strong>{revealed(String(part.attrs.name ?? ""))}</strong>
        <span className="status">{status === "waiting" && !asks ? "waits" : (STATUS[status] ?? status)}</span>
      </header>
      {written && !asks && (
        <pre className="arguments" tabIndex={0} aria-label="Arguments">
          {revealed(part.status === "open" ? written : pretty(written))}
        </pre>
      )}
      {part.attrs.error !== undefined && <p className="quiet-note">{revealed(shown(part.attrs.error))}</p>}
      {tool?.started && !ended && <Progress tool={tool} />}
      {tool && !ended && tool.output && (
        <pre className="output" tabIndex={0} aria-label="Output so far">
          {revealed(tool.output.slice(-4000))}
        </pre>
      )}
      {tool && !onApprove && waitsForApproval(tool) && <p className="quiet-note">It waits for somebody who may allow it.</p>}
      {tool && asks && <ApprovalBox tool={tool} onApprove={onApprove!} />}
      {tool?.approved === false && <p className="quiet-note">Not allowed{tool.approval_reason ? `: ${tool.approval_reason}` : "."}</p>}
      {tool?.done && <Result title={tool.error ? `Failed: ${tool.error}` : "Result"} content={tool.content} failed={!!tool.error} />}
    </section>
  );
}

function Progress({ tool }: { tool: ToolState }): ReactNode {
  const label = tool.progress ?? "Running";
  return (
    <div className="progress">
      <progress max={1} value={tool.fraction} aria-label={label} />
      <span>
        {label}
        {tool.fraction === undefined ? "" : ` ${Math.round(tool.fraction * 100)} %`}
      </span>
    </div>
  );
}

/** A person decides; exactly these arguments run. */
function ApprovalBox({ tool, onApprove }: { tool: ToolState; onApprove: NonNullable<PartProps["onApprove"]> }): ReactNode {
  const { pending, error, answer } = useApprovalAnswer(tool, onApprove);
  return (
    <div className="approval" role="group" aria-label={`Allow ${tool.name}?`}>
      <p>
        Allow <strong>{revealed(tool.name)}</strong> to run with these arguments?
        {tool.approval_reason ? ` ${tool.approval_reason}` : ""}
      </p>
      <pre tabIndex={0}>{revealed(pretty(JSON.stringify(tool.approval_arguments ?? {})))}</pre>
      <div className="buttons">
        {error && (
          <p className="problem" role="alert">
            Not sent: {error}
          </p>
        )}
        <button type="button" disabled={pending} onClick={() => answer(false)}>
          Deny
        </button>
        <button type="button" className="primary" disabled={pending} onClick={() => answer(true)}>
          Allow
        </button>
      </div>
    </div>
  );
}

const MOST_SHOWN = 20000;

function Result({ title, content, failed = false }: { title: string; content: unknown; failed?: boolean }): ReactNode {
  const text = revealed(pretty(shown(content ?? "")));
  const short = text.length < 400;
  return (
    <details className={`result${failed ? " failed" : ""}`} open={short || failed}>
      <summary>{revealed(title)}</summary>
      <pre tabIndex={0}>
        {text.slice(0, MOST_SHOWN)}
        {text.length > MOST_SHOWN ? `\n… ${text.length - MOST_SHOWN} more characters` : ""}
      </pre>
    </details>
  );
}

/** A file that the model made: its own bytes, or where it is. */
function FileCard({ part }: { part: PartState }): ReactNode {
  const { name, media, media_type: told, url } = part.attrs as Record<string, unknown>;
  const open = part.status === "open";
  const link = typeof url === "string" && !part.text ? safeLink(url) : null;
  const type = typeof told === "string" ? told : "application/octet-stream";
  const shown = typeof name === "string" && name ? name : `${String(media ?? "file")}.${type.split("/").pop()!.replace(/\W.*$/, "")}`;
  if (link) {
    return (
      <p className="file">
        <Icon name="file" />
        <a href={link.href} target="_blank" rel="noopener noreferrer nofollow">
          {revealed(shown)}
        </a>
        <span className="host">({link.host})</span>
      </p>
    );
  }
  const size = Math.floor((cleanBase64(part.text).length * 3) / 4);
  const file = { name: shown, type, size, data: open ? undefined : part.text };
  return <FileView file={file} large={!open} />;
}

/** JSON of no more characters stands in one line. */
const ONE_LINE = 60;

function pretty(json: string): string {
  if (json.length > 50000) return json;
  try {
    const value: unknown = JSON.parse(json);
    if (typeof value !== "object") return json;
    const lines = JSON.stringify(value, null, 2);
    return json.length <= ONE_LINE ? lines.replace(/\n\s*/g, " ") : lines;
  } catch {
    return json;
  }
}
