/* One question and its answer. */

import { finishReasonOf, stateOf, textOf, usageOf, type RunState } from "@tokenwire/client";
import { useRunStore, type Turn } from "@tokenwire/react";
import { memo, useMemo, useState, type ReactNode } from "react";
import { filesIn, pastedFiles, useAttachments, type Attachment } from "./attach.js";
import { Boundary } from "../boundary.js";
import { CopyButton } from "../copy.js";
import { FileView } from "./files.js";
import { Icon } from "../icons.js";
import { hasTouchKeyboard, isComposing } from "../keys.js";
import { AnswerParts, type Approve } from "./parts.js";
import { Unsent } from "./waiting.js";
import { BudgetWords, isStopped, NearBudget } from "./budget-note.js";
import { plainWords } from "./words.js";

export interface TurnProps {
  turn: Turn;
  /** Its question, which may be read after the turn itself. */
  prompt: string;
  /** Whether the server has not got it yet. */
  isUnsent: boolean;
  /** Who asked, where several people do. */
  by: string | undefined;
  mayWrite: boolean;
  mayApprove: boolean;
  versions: Turn[];
  onChoose(turn: Turn): void;
  onRetry(turn: Turn): void;
  onEdit(turn: Turn, question: string, files: Attachment[]): void;
  onApprove(turn: Turn, approval: string, answer: { approved: boolean; arguments?: unknown }): Promise<unknown>;
  onInspect(turn: Turn): void;
}

export const TurnView = memo(
  function TurnView(props: TurnProps): ReactNode {
    const { turn, onRetry, onApprove, onInspect } = props;
    const { state, link, linkError } = useRunStore(turn.store);
    const word = stateOf(state);
    const open = !turn.error && link !== "failed" && (word === "running" || word === "waiting");
    const approve: Approve = (approval, answer) => onApprove(turn, approval, answer);
    const nothing = !state.progress && !state.steps.some(({ parts, kind }) => parts.length || kind === "task");
    return (
      <article aria-busy={open}>
        <Question {...props} />
        {/* While it is written, a translator must not move its nodes. */}
        <div className="answer" data-state={turn.error ? "failed" : word} translate={open ? "no" : undefined}>
          <h2 className="offscreen">Answer</h2>
          <Boundary what="This answer" text={textOf(state)}>
            <AnswerParts state={state} open={open} onApprove={props.mayApprove ? approve : undefined} />
          </Boundary>
          {open && turn.isUnsent && <Unsent isOffline />}
          {open && nothing && !turn.isUnsent && link !== "reconnecting" && (
            <p className="typing" aria-label="Waiting for the first word">
              <span />
              <span />
              <span />
            </p>
          )}
          {open && link === "reconnecting" && (
            <p className="quiet-note">
              <span className="spinner" /> Reconnecting…
            </p>
          )}
          <NearBudget state={state} />
          <Failure turn={turn} state={state} link={link} reason={linkError && plainWords(linkError)} onRetry={props.mayWrite ? onRetry : undefined} />
          {!open && (
            <footer className="facts">
              <CopyButton text={textOf(state)} label="Copy answer" />
              {props.mayWrite && (
                <button type="button" className="quiet icon" aria-label="Answer again" title="Answer again" onClick={() => onRetry(turn)}>
                  <Icon name="retry" />
                </button>
              )}
              <Facts turn={turn} state={state} onInspect={onInspect} />
            </footer>
          )}
          {open && !nothing && (
            <footer className="facts">
              <Facts turn={turn} state={state} onInspect={onInspect} />
            </footer>
          )}
        </div>
      </article>
    );
  },
  (a, b) =>
    a.turn === b.turn &&
    a.prompt === b.prompt &&
    a.isUnsent === b.isUnsent &&
    a.by === b.by &&
    a.mayWrite === b.mayWrite &&
    a.mayApprove === b.mayApprove &&
    a.versions.length === b.versions.length &&
    a.onEdit === b.onEdit &&
    a.onRetry === b.onRetry &&
    a.onInspect === b.onInspect,
);

function Question({ turn, by, mayWrite, versions, onChoose, onEdit }: TurnProps): ReactNode {
  const [draft, setDraft] = useState<string>();
  const [dropped, setDropped] = useState<Attachment[]>([]);
  const added = useAttachments();
  const files = useMemo(() => filesIn(turn.content), [turn.content]);
  const at = versions.indexOf(turn);
  if (draft !== undefined) {
    const kept = [...files.filter((file) => !dropped.includes(file)), ...added.files];
    const done = (save: boolean) => {
      if (save && added.reading) return;
      setDraft(undefined);
      setDropped([]);
      added.clear();
      if (save && (draft.trim() || kept.length)) onEdit(turn, draft.trim(), kept);
    };
    return (
      <form
        className="question editing"
        onSubmit={(event) => {
          event.preventDefault();
          done(true);
        }}
      >
        <Files
          list={kept}
          onRemove={(file) => {
            if (added.files.includes(file)) added.remove(file);
            else setDropped([...dropped, file]);
          }}
        />
        {added.problems.map((problem) => (
          <p key={problem} className="problem" role="alert">
            {problem}
          </p>
        ))}
        <textarea
          autoFocus
          aria-label="Edit your question"
          dir="auto"
          rows={Math.min(12, draft.split("\n").length + 1)}
          value={draft}
          onChange={(event) => setDraft(event.target.value)}
          onPaste={(event) => {
            const pasted = pastedFiles(event.clipboardData);
            if (!pasted.length) return;
            event.preventDefault();
            added.add(pasted);
          }}
          onKeyDown={(event) => {
            if (isComposing(event)) return;
            if (event.key === "Escape") {
              event.preventDefault();
              done(false);
            }
            if (event.key === "Enter" && !event.shiftKey && !hasTouchKeyboard()) {
              event.preventDefault();
              done(true);
            }
          }}
        />
        <div className="buttons">
          <button type="button" onClick={() => done(false)}>
            Cancel
          </button>
          <button type="submit" className="primary">
            Ask
          </button>
        </div>
      </form>
    );
  }
  return (
    <div className="question">
      {by ? (
        <h2 className="by">
          <bdi>{by}</bdi>
        </h2>
      ) : (
        <h2 className="offscreen">You</h2>
      )}
      <Files list={files} />
      {turn.prompt && <p dir="auto">{turn.prompt}</p>}
      <div className="actions">
        {versions.length > 1 && (
          <span className="versions" role="group" aria-label="Versions">
            <button type="button" className="quiet icon" disabled={at <= 0} aria-label="Older version" onClick={() => onChoose(versions[at - 1]!)}>
              <Icon name="left" />
            </button>
            <span>
              {at + 1} / {versions.length}
            </span>
            <button
              type="button"
              className="quiet icon"
              disabled={at >= versions.length - 1}
              aria-label="Newer version"
              onClick={() => onChoose(versions[at + 1]!)}
            >
              <Icon name="right" />
            </button>
          </span>
        )}
        <CopyButton text={turn.prompt} label="Copy question" />
        {mayWrite && (
          <button type="button" className="quiet icon" aria-label="Edit question" title="Edit question" onClick={() => setDraft(turn.prompt)}>
            <Icon name="edit" />
          </button>
        )}
      </div>
    </div>
  );
}

function Files({ list, onRemove }: { list: Attachment[]; onRemove?: (file: Attachment) => void }): ReactNode {
  if (!list.length) return null;
  return (
    <ul className="attached" aria-label="Attached files">
      {list.map((file, at) => (
        <li key={at}>
          <FileView file={file} {...(onRemove ? { onRemove: () => onRemove(file) } : {})} />
        </li>
      ))}
    </ul>
  );
}

const REASONS: Record<string, string> = {
  length: "The answer reached the model's length limit.",
  content_filter: "The provider's filter ended the answer.",
  refusal: "The model refused.",
  context_overflow: "The conversation is longer than the model can read.",
};

/** Why an answer is not whole, and what to do. */
function Failure(props: {
  turn: Turn;
  state: RunState;
  link: string;
  reason: string | undefined;
  /** Undefined for a person who may not ask here. */
  onRetry: ((turn: Turn) => void) | undefined;
}): ReactNode {
  const { turn, state, link, reason, onRetry } = props;
  const word = stateOf(state);
  let text: ReactNode = "";
  const isRefused = turn.error?.code === "budget";
  if (isRefused || isStopped(state)) text = <BudgetWords state={state} error={turn.error} />;
  else if (turn.error) text = plainWords(turn.error);
  else if (link === "failed") text = reason ?? "The answer cannot be read.";
  else if (word === "error") text = state.error?.message ?? "The provider reported an error.";
  else if (word === "interrupted") text = "The server stopped while answering. The text so far is saved.";
  else if (word === "incomplete") {
    const why = finishReasonOf(state) ?? state.end_reason ?? "";
    text = (Object.hasOwn(REASONS, why) && REASONS[why]) || state.error?.message || "The answer was cut off.";
  } else if (word === "cancelled") return <p className="quiet-note">Stopped.</p>;
  if (!text) return null;
  return (
    <div className={`failure${isRefused || word === "incomplete" ? " mild" : ""}`} role="alert">
      <Icon name="warning" />
      <div>
        <p>{text}</p>
        {word === "interrupted" && state.error?.message && <p>{state.error.message}</p>}
        {state.error?.code && <p className="code-word">{state.error.code}</p>}
      </div>
      {onRetry && (
        <button type="button" onClick={() => onRetry(turn)}>
          Try again
        </button>
      )}
    </div>
  );
}

/** First-token time, rate and tokens. */
function Facts({ turn, state, onInspect }: { turn: Turn; state: RunState; onInspect(turn: Turn): void }): ReactNode {
  const { meter } = turn;
  const tokens = usageOf(state).output_tokens;
  const seconds = meter.spanMs / 1000;
  const facts: string[] = [];
  if (meter.firstMs !== undefined) facts.push(`first token ${time(meter.firstMs)}`);
  if (tokens && seconds > 0.05) facts.push(`${(tokens / seconds).toFixed(tokens / seconds < 10 ? 1 : 0)} tokens/s`);
  if (tokens) facts.push(`${tokens.toLocaleString()} tokens`);
  const model = state.steps[0]?.model ?? state.model ?? turn.model;
  if (!facts.length) return null;
  return (
    <button type="button" className="quiet numbers" onClick={() => onInspect(turn)} title={`Show the stream${model ? ` · ${model}` : ""}`}>
      {facts.join(" · ")}
    </button>
  );
}

export function time(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}
