/* Components without styling for the parts of a run.

Always true: a part is drawn again only when an event touched it; what a model or a tool wrote is
text, never markup. Each component takes a renderer of your own in `render`. */

import { stateOf, type Agent, type PartState, type RunState, type ToolState } from "@tokenwire/client";
import { Fragment, memo, useState, type ReactNode } from "react";
import { blocksOf, type TaskState } from "./agent.js";
import { useRunStore, type ChatMessage } from "./hooks.js";

export interface PartProps {
  part: PartState;
  /** For tool calls: what became of the call. */
  tool?: ToolState | undefined;
  /** Answers an approval of this call. A promise that rejects is shown beside the buttons, which
   * work again then. */
  onApprove?: ((approval: string, answer: { approved: boolean }) => unknown) | undefined;
}

export type Renderers = Partial<Record<string, (props: PartProps) => ReactNode>>;

/** One side of a turn: the question, or the answer as it grows. */
export const Message = memo(function Message(props: {
  message: ChatMessage;
  render?: Renderers;
  onApprove?: PartProps["onApprove"];
}): ReactNode {
  const { message, ...rest } = props;
  if (message.role === "user") return <div data-message="user">{message.text}</div>;
  return <Answer message={message} {...rest} />;
});

function Answer(props: {
  message: Extract<ChatMessage, { role: "assistant" }>;
  render?: Renderers;
  onApprove?: PartProps["onApprove"];
}): ReactNode {
  const { message, ...rest } = props;
  const { store, turn } = message;
  const { state, link, linkError } = useRunStore(store);
  const lost = turn.error ?? (link === "failed" ? linkError : undefined);
  const how = lost ? "error" : stateOf(state);
  return (
    <div data-message="assistant" data-state={how} aria-busy={how === "running"}>
      <MessageParts run={state} {...rest} />
      <RunProgress run={state} />
      {lost ? <div role="alert">{lost.message}</div> : <RunError run={state} />}
    </div>
  );
}

/** All parts of a run's first choice, step by step, and what an agent did between them. `render`
 * draws kinds of part in your way, `tasks` tasks that follow each other, `speaker` what one of
 * several agents says. */
export function MessageParts(props: {
  run: RunState;
  render?: Renderers;
  tasks?: (tasks: TaskState[]) => ReactNode;
  speaker?: (speaker: Agent, children: ReactNode) => ReactNode;
  onApprove?: PartProps["onApprove"];
}): ReactNode {
  const { run, render, tasks = plainTasks, speaker = plainSpeaker, onApprove } = props;
  return blocksOf(run).map((block) => {
    if (block.kind === "tasks") return <Fragment key={block.key}>{tasks(block.tasks)}</Fragment>;
    const parts = block.parts.map((part) => (
      <Part
        key={part.part}
        part={part}
        tool={run.tools.get(String(part.attrs.call_id ?? ""))}
        render={render?.[part.kind]}
        onApprove={onApprove}
      />
    ));
    return <Fragment key={block.key}>{block.speaker ? speaker(block.speaker, parts) : parts}</Fragment>;
  });
}

function plainTasks(tasks: TaskState[]): ReactNode {
  return (
    <ul data-part="tasks" aria-label="Tasks">
      {tasks.map(({ step, name, status }) => (
        <li key={step} data-status={status}>
          {name}: {status}
        </li>
      ))}
    </ul>
  );
}

function plainSpeaker({ id, name = id }: Agent, children: ReactNode): ReactNode {
  return (
    <div role="group" data-speaker={id} aria-label={name}>
      <strong>{name}</strong>
      {children}
    </div>
  );
}

/** How far the run of an agent is; nothing once it ended, or where it does not tell. */
export function RunProgress({ run }: { run: RunState }): ReactNode {
  if (!run.progress || run.outcome) return null;
  const { fraction, message = "Working" } = run.progress;
  return <progress max={1} value={fraction} aria-label={message} />;
}

/** One part; skipped by React while nothing changed in it. */
export const Part = memo(function Part({
  render,
  ...props
}: PartProps & { render?: ((props: PartProps) => ReactNode) | undefined }): ReactNode {
  return render ? render(props) : <PlainPart {...props} />;
});

function PlainPart(props: PartProps): ReactNode {
  const { part } = props;
  if (part.kind === "reasoning") return <Reasoning part={part} />;
  if (part.kind === "tool-call") return <ToolCall {...props} />;
  if (part.kind === "file") return <span data-part="file">{String(part.attrs.name ?? "file")}</span>;
  if (part.kind === "opaque") return null;
  return <div data-part={part.kind}>{part.text}</div>;
}

/** Reasoning, folded. */
export function Reasoning({ part }: { part: PartState }): ReactNode {
  return (
    <details data-part="reasoning">
      <summary>{part.status === "open" ? "Thinking" : "Reasoning"}</summary>
      {part.text}
    </details>
  );
}

/** A tool call: its arguments as they grow, its progress, its result, and its approval. */
export function ToolCall({ part, tool, onApprove }: PartProps): ReactNode {
  return (
    <div data-part="tool-call" data-status={toolStatus(part, tool)}>
      <strong>{String(part.attrs.name ?? "")}</strong>
      <pre>{part.text}</pre>
      {tool && !tool.done && tool.started && <Progress tool={tool} />}
      {tool && waitsForApproval(tool) && onApprove && <Approval tool={tool} onApprove={onApprove} />}
      {tool?.done && <pre data-error={tool.error}>{shown(tool.content)}</pre>}
    </div>
  );
}

/** How far a tool is; without a fraction, that it is at work. */
export function Progress({ tool }: { tool: ToolState }): ReactNode {
  const label = tool.progress ?? `${tool.name} is running`;
  return <progress max={1} value={tool.fraction} aria-label={label} />;
}

export function Approval({
  tool,
  onApprove,
}: {
  tool: ToolState;
  onApprove: NonNullable<PartProps["onApprove"]>;
}): ReactNode {
  const { pending, error, answer } = useApprovalAnswer(tool, onApprove);
  return (
    <div role="group" aria-label={`Approve ${tool.name}?`}>
      <pre>{shown(tool.approval_arguments)}</pre>
      <button type="button" disabled={pending} onClick={() => answer(true)}>
        Allow
      </button>
      <button type="button" disabled={pending} onClick={() => answer(false)}>
        Deny
      </button>
      {error && <span role="alert">{error}</span>}
    </div>
  );
}

/** One answer to an approval at a time; why the last one did not reach the run. */
export function useApprovalAnswer(
  tool: ToolState,
  onApprove: NonNullable<PartProps["onApprove"]>,
): { pending: boolean; error: string | undefined; answer(approved: boolean): void } {
  const [pending, setPending] = useState(false);
  const [error, setError] = useState<string>();
  const fail = (failed: unknown) => {
    setPending(false);
    setError(failed instanceof Error ? failed.message : String(failed));
  };
  const answer = (approved: boolean) => {
    setError(undefined);
    try {
      const sent = onApprove(tool.approval_id!, { approved });
      if (!(sent instanceof Promise)) return;
      // What went through is told by the run, and ends the question.
      setPending(true);
      sent.catch(fail);
    } catch (failed) {
      fail(failed);
    }
  };
  return { pending, error, answer };
}

export function RunError({ run }: { run: RunState }): ReactNode {
  return run.error ? <div role="alert">{run.error.message}</div> : null;
}

export function waitsForApproval(tool: ToolState): boolean {
  return !!tool.approval_id && tool.approved === undefined && !tool.done;
}

/** `writing`, `waiting`, `running`, `done`, `failed`, or how the call was cut. */
export function toolStatus(part: PartState, tool: ToolState | undefined): string {
  if (tool?.error) return "failed";
  if (tool?.done) return "done";
  if (tool && waitsForApproval(tool)) return "waiting";
  if (part.status === "open") return "writing";
  return part.status === "complete" ? "running" : part.status;
}

/** Any JSON value as text. */
export function shown(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
}
