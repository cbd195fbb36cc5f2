/* Where a question is written, with its files. A draft stays with its conversation over a reload. */

import { useEffect, useRef, useState, useSyncExternalStore, type KeyboardEvent, type ReactNode } from "react";
import { ACCEPTED, pastedFiles, type Attached } from "./attach.js";
import { FileView } from "./files.js";
import { Icon } from "../icons.js";
import { hasTouchKeyboard, isComposing } from "../keys.js";
import { keptName } from "../unsent.js";

const MOST = 200_000;

export function Composer(props: {
  busy: boolean;
  /** Whether this person may ask here. */
  mayWrite: boolean;
  onType: (() => void) | undefined;
  /** Whether a question waits for its turn. */
  waits: boolean;
  /** Whether a stop waits for the server, or was taken by it. */
  stopping: "pending" | "accepted" | undefined;
  /** Why the server refused to stop. */
  stopError: string | undefined;
  /** Whose draft it is, once that is known. */
  reader: string | undefined;
  thread: string;
  /** Nobody has asked here yet: its id is not kept over a reload. */
  fresh: boolean;
  attached: Attached;
  onSend(question: string): void;
  onStop(): void;
}): ReactNode {
  const { busy, onSend, onStop, thread, attached } = props;
  const [text, setText] = useDraft(props.reader, props.fresh ? "new" : thread);
  const area = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, 240)}px`;
  }, [text]);
  useEffect(() => {
    // On a phone, focus would open the keyboard over the page.
    if (matchMedia("(hover: hover)").matches) area.current?.focus();
  }, [thread]);
  const isOnline = useOnline();
  const ready = (!!text.trim() || attached.files.length > 0) && !attached.reading;
  const send = () => {
    if (!ready) return;
    setText("");
    onSend(text.trim());
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || isComposing(event) || hasTouchKeyboard()) return;
    event.preventDefault();
    send();
  };
  if (!props.mayWrite) {
    return (
      <div className="composer">
        <p className="offline" role="status">
          You may read this conversation, but not write in it.
        </p>
      </div>
    );
  }
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div className="box">
        {(attached.files.length > 0 || attached.reading) && (
          <ul className="attached" aria-label="Attached files">
            {attached.files.map((file, at) => (
              <li key={at}>
                <FileView file={file} onRemove={() => attached.remove(file)} />
              </li>
            ))}
            {attached.reading && (
              <li className="quiet-note">
                <span className="spinner" /> Reading…
              </li>
            )}
          </ul>
        )}
        {attached.problems.length > 0 && (
          <div className="problems" role="alert">
            {attached.problems.map((problem) => (
              <p key={problem}>{problem}</p>
            ))}
          </div>
        )}
        {busy && props.stopError && (
          <div className="problems" role="alert">
            <p>Not stopped: {props.stopError}</p>
          </div>
        )}
        {busy && props.stopping && (
          <p className="stopping" role="status">
            <span className="spinner" />{" "}
            {props.stopping === "pending" ? "Stopping, as soon as the server can be reached…" : "Stopping…"}
          </p>
        )}
        <div className="line">
          <input
            ref={picker}
            type="file"
            multiple
            hidden
            accept={ACCEPTED}
            aria-label="Files to attach"
            onChange={(event) => {
              attached.add([...(event.target.files ?? [])]);
              event.target.value = "";
              area.current?.focus();
            }}
          />
          <button type="button" className="quiet icon" aria-label="Attach files" title="Attach files" onClick={() => picker.current?.click()}>
            <Icon name="clip" />
          </button>
          <textarea
            ref={area}
            rows={1}
            value={text}
            maxLength={MOST}
            placeholder={props.waits ? "Ask the next question" : "Ask anything"}
            aria-label="Your question"
            dir="auto"
            enterKeyHint={hasTouchKeyboard() ? "enter" : "send"}
            onChange={(event) => {
              setText(event.target.value);
              props.onType?.();
            }}
            onKeyDown={onKey}
            onPaste={(event) => {
              const files = pastedFiles(event.clipboardData);
              if (!files.length) return;
              event.preventDefault();
              attached.add(files);
            }}
          />
          {busy && (
            <button
              type="button"
              className="round"
              onClick={onStop}
              disabled={!!props.stopping}
              aria-label={props.stopping ? "Stopping" : "Stop"}
              title="Stop (Esc)"
            >
              <Icon name="stop" />
            </button>
          )}
          {(!busy || ready) && (
            <button
              type="submit"
              className="round"
              disabled={!ready}
              aria-label={props.waits ? "Send when its turn comes" : "Send"}
              title={props.waits ? "Send when its turn comes (Enter)" : "Send (Enter)"}
            >
              <Icon name="send" />
            </button>
          )}
        </div>
      </div>
      {!isOnline && (
        <p className="offline" role="status">
          You are offline. What you send is kept here, and goes out when the network is back.
        </p>
      )}
      <p className="hint">
        <kbd>Enter</kbd> {props.waits ? "queues" : "sends"}, <kbd>Shift</kbd>+<kbd>Enter</kbd> breaks the line, <kbd>Esc</kbd> stops
      </p>
    </form>
  );
}

function useOnline(): boolean {
  return useSyncExternalStore(onNetwork, () => navigator.onLine);
}

function onNetwork(changed: () => void): () => void {
  addEventListener("online", changed);
  addEventListener("offline", changed);
  return () => {
    removeEventListener("online", changed);
    removeEventListener("offline", changed);
  };
}

/** What was written and not sent, per person and conversation, for as long as the tab lives. */
function useDraft(reader: string | undefined, name: string): [string, (text: string) => void] {
  const key = reader === undefined ? "" : keptName(reader, "draft", name);
  const [draft, setDraft] = useState({ key, text: "" });
  const now = useRef(draft);
  const write = (text: string) => {
    setDraft((now.current = { key, text }));
    if (!key) return;
    try {
      if (text) sessionStorage.setItem(key, text);
      else sessionStorage.removeItem(key);
    } catch {
      // Without storage a draft lives as long as the page.
    }
  };
  useEffect(() => {
    const { key: before, text } = now.current;
    // What was written before it was known who writes goes on.
    if (text && (!before || before === key)) return write(text);
    let kept: string | null = null;
    try {
      if (key) kept = sessionStorage.getItem(key);
    } catch {
      // As above.
    }
    setDraft((now.current = { key, text: kept ?? "" }));
  }, [key]);
  return [draft.text, write];
}
