/* The questions that wait for their turn: changed, taken back, or sent at once, on every device. */

import type { TokenwireError } from "@tokenwire/client";
import type { WaitingQuestion } from "@tokenwire/react";
import { useEffect, useRef, useState, type ReactNode } from "react";
import type { ChatHandle } from "./handle.js";
import { Icon } from "../icons.js";
import { hasTouchKeyboard, isComposing } from "../keys.js";
import { nameIn, permits, type MemberList } from "../sharing/members.js";
import { plainWords } from "./words.js";

interface Draft {
  waiting: WaitingQuestion;
  /** Undefined while the whole question is read. */
  text: string | undefined;
}

export function Waiting(props: {
  chat: ChatHandle;
  members: MemberList | undefined;
  mayWrite: boolean;
  /** Asks anew what was being changed when its turn came. */
  onSend(question: string): void;
  /** Where the focus goes when what had it is gone. */
  onLeave(): void;
}): ReactNode {
  const { chat, members, mayWrite, onSend, onLeave } = props;
  const { queue } = chat;
  const [draft, setDraft] = useState<Draft>();
  const [problem, setProblem] = useState<{ id: string; text: string }>();
  const [acting, setActing] = useState<string>();
  const list = useRef<HTMLOListElement>(null);
  const isLate = draft?.text !== undefined && !queue.some(({ id }) => id === draft.waiting.id);

  const act = async (waiting: WaitingQuestion, work: () => Promise<unknown>): Promise<boolean> => {
    setProblem(undefined);
    setActing(waiting.id);
    try {
      await work();
      return true;
    } catch (error) {
      setProblem({ id: waiting.id, text: plainWords(error as TokenwireError) });
      void chat.refresh();
      return false;
    } finally {
      setActing(undefined);
    }
  };
  const begin = (waiting: WaitingQuestion) => {
    setDraft({ waiting, text: undefined });
    void act(waiting, async () => {
      const { prompt } = await chat.waitingQuestion(waiting);
      setDraft((now) => (now?.waiting.id === waiting.id ? { waiting, text: prompt } : now));
    }).then((read) => {
      if (!read) setDraft(undefined);
    });
  };
  const refocus = (id: string) => {
    requestAnimationFrame(() => {
      const button = list.current?.querySelector<HTMLElement>(`[data-id="${CSS.escape(id)}"] button`);
      if (button) button.focus();
      else onLeave();
    });
  };
  const save = async () => {
    const text = draft?.text?.trim();
    if (!draft || !text) return;
    const { waiting } = draft;
    if (isLate) {
      setDraft(undefined);
      onSend(text);
      onLeave();
    } else if (await act(waiting, () => chat.editWaiting(waiting, text))) {
      setDraft(undefined);
      refocus(waiting.id);
    }
  };
  const cancel = () => {
    setDraft(undefined);
    if (draft) refocus(draft.waiting.id);
  };
  if (!queue.length && !isLate) return null;
  const editor = draft && (
    <Editor
      draft={draft}
      isLate={isLate}
      isBusy={acting === draft.waiting.id}
      onText={(text) => setDraft({ ...draft, text })}
      onSave={() => void save()}
      onCancel={cancel}
    />
  );
  return (
    <section className="waiting" aria-label="Questions that wait">
      <h2>Waiting for their turn</h2>
      <ol ref={list}>
        {queue.map((waiting) => (
          <li key={waiting.id} data-id={waiting.id} aria-busy={acting === waiting.id}>
            {draft?.waiting.id === waiting.id ? (
              editor
            ) : (
              <Row
                waiting={waiting}
                isBusy={acting === waiting.id}
                by={(members?.members.length ?? 0) > 1 ? nameIn(members, waiting.by) : undefined}
                mayChange={mayWrite && (!waiting.by || waiting.by === members?.principal || permits(members, "own"))}
                maySend={mayWrite}
                onEdit={() => begin(waiting)}
                onNow={() => void act(waiting, () => chat.sendNow(waiting)).then((sent) => sent && onLeave())}
                onWithdraw={() => void act(waiting, () => chat.withdraw(waiting)).then((gone) => gone && onLeave())}
              />
            )}
            {problem?.id === waiting.id && (
              <p className="problem" role="alert">
                {problem.text}
              </p>
            )}
          </li>
        ))}
        {isLate && <li>{editor}</li>}
      </ol>
      {problem && !queue.some(({ id }) => id === problem.id) && (
        <p className="problem" role="alert">
          {problem.text}
        </p>
      )}
    </section>
  );
}

function Row(props: {
  waiting: WaitingQuestion;
  isBusy: boolean;
  by: string | undefined;
  mayChange: boolean;
  maySend: boolean;
  onEdit(): void;
  onNow(): void;
  onWithdraw(): void;
}): ReactNode {
  const { waiting, isBusy, by, mayChange, maySend, onEdit, onNow, onWithdraw } = props;
  const { text, unsent, steers, edits } = waiting;
  const name = text.length > 40 ? `${text.slice(0, 39)}…` : text || "the files";
  const isFixed = !!unsent || !!steers;
  return (
    <>
      <div className="waiting-text">
        <p dir="auto">{text || "Files"}</p>
        {by && (
          <p className="quiet-note">
            <bdi>{by}</bdi>
          </p>
        )}
        {unsent && <Unsent isOffline={!!unsent.isUnsent} />}
        {steers && <p className="quiet-note">Given to the answer that is being written.</p>}
        {!isFixed && edits > 0 && <p className="quiet-note">Edited</p>}
      </div>
      <span className="waiting-actions">
        {!isFixed && mayChange && (
          <button type="button" className="quiet icon" disabled={isBusy} aria-label={`Edit “${name}”`} title="Edit" onClick={onEdit}>
            <Icon name="edit" />
          </button>
        )}
        {!isFixed && maySend && (
          <button
            type="button"
            className="quiet icon"
            disabled={isBusy}
            aria-label={`Stop the answer and send “${name}” now`}
            title="Stop the answer and send now"
            onClick={onNow}
          >
            <Icon name="send" />
          </button>
        )}
        {!steers && mayChange && (
          <button type="button" className="quiet icon" disabled={isBusy} aria-label={`Withdraw “${name}”`} title="Withdraw" onClick={onWithdraw}>
            <Icon name="close" />
          </button>
        )}
      </span>
    </>
  );
}

/** What happens to a question that has not reached the server. */
export function Unsent({ isOffline }: { isOffline: boolean }): ReactNode {
  return (
    <p className="quiet-note" role="status">
      <span className="spinner" /> {isOffline ? "Not sent yet: it goes out when the server can be reached." : "Sending…"}
    </p>
  );
}

function Editor(props: {
  draft: Draft;
  isLate: boolean;
  isBusy: boolean;
  onText(text: string): void;
  onSave(): void;
  onCancel(): void;
}): ReactNode {
  const { draft, isLate, isBusy, onText, onSave, onCancel } = props;
  const area = useRef<HTMLTextAreaElement>(null);
  const isRead = draft.text !== undefined;
  useEffect(() => {
    if (isRead) area.current?.focus();
  }, [isRead]);
  if (!isRead) return <p className="quiet-note"><span className="spinner" /> Reading the question…</p>;
  return (
    <form
      className="waiting-edit"
      onSubmit={(event) => {
        event.preventDefault();
        onSave();
      }}
    >
      {isLate && <p className="quiet-note" role="status">This question is no longer waiting. What you wrote can be asked as a new one.</p>}
      <textarea
        ref={area}
        aria-label="Edit the waiting question"
        dir="auto"
        rows={Math.min(8, (draft.text ?? "").split("\n").length + 1)}
        value={draft.text}
        onChange={(event) => onText(event.target.value)}
        onKeyDown={(event) => {
          if (isComposing(event)) return;
          if (event.key === "Escape") {
            event.preventDefault();
            onCancel();
          }
          if (event.key === "Enter" && !event.shiftKey && !hasTouchKeyboard()) {
            event.preventDefault();
            onSave();
          }
        }}
      />
      <div className="buttons">
        <button type="button" onClick={onCancel}>
          {isLate ? "Discard" : "Cancel"}
        </button>
        <button type="submit" className="primary" disabled={isBusy || !draft.text?.trim()}>
          {isLate ? "Ask" : "Save"}
        </button>
      </div>
    </form>
  );
}
