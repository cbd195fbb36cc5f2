/* The conversations, newest first: found by their titles, opened, renamed, erased. */

import type { ThreadEntry } from "@tokenwire/client/threads";
import { useEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { Icon } from "../icons.js";
import { isComposing } from "../keys.js";
import { InboxView, type Inbox } from "./inbox.js";
import { byAge, found, nameOf } from "./threads.js";

interface Actions {
  onOpen(id?: string): void;
  onRename(id: string, title: string): void;
  onRemove(id: string): void;
}

export function Sidebar(
  props: {
    open: boolean;
    list: ThreadEntry[];
    /** What the server did not do, by conversation. */
    failed: ReadonlyMap<string, Error> | undefined;
    current: string;
    /** How long they are kept. */
    kept: string | undefined;
    inbox: Inbox;
    onClose(): void;
  } & Actions,
): ReactNode {
  const { open, list, current, onClose, onRemove } = props;
  const nav = useRef<HTMLElement>(null);
  const search = useRef<HTMLInputElement>(null);
  const [wanted, setWanted] = useState("");
  const [leaving, setLeaving] = useState<ThreadEntry>();
  useEffect(() => {
    if (open) nav.current?.querySelector<HTMLElement>("button")?.focus();
  }, [open]);
  useEffect(() => {
    if (!open) return undefined;
    // First of all, so that nothing under the drawer hears of the key; a field with something in it
    // has its own use for it.
    const onKey = (event: globalThis.KeyboardEvent) => {
      const { target } = event;
      const used = target instanceof HTMLInputElement && (target.type !== "search" || target.value);
      if (event.key !== "Escape" || isComposing(event) || used || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      onClose();
    };
    addEventListener("keydown", onKey, true);
    return () => removeEventListener("keydown", onKey, true);
  }, [open, onClose]);
  useEffect(() => {
    const onKey = (event: globalThis.KeyboardEvent) => {
      const place = search.current;
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k" && place?.checkVisibility()) {
        event.preventDefault();
        place.focus();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const shown = found(list, wanted);
  return (
    <>
      {open && <div className="shade" onClick={onClose} aria-hidden="true" />}
      <nav ref={nav} className={`sidebar${open ? " open" : ""}`} aria-label="Conversations">
        <button type="button" className="new" title="New conversation (Ctrl+Shift+O)" onClick={() => props.onOpen()}>
          <Icon name="plus" /> New conversation
        </button>
        <label className="search">
          <Icon name="search" />
          <input
            ref={search}
            type="search"
            placeholder="Search"
            aria-label="Search conversations"
            title="Search (Ctrl+K)"
            value={wanted}
            onChange={(event) => setWanted(event.target.value)}
            onKeyDown={(event) => {
              if (event.key !== "Escape" || !wanted || isComposing(event)) return;
              event.preventDefault();
              setWanted("");
            }}
          />
        </label>
        <InboxView
          inbox={props.inbox}
          current={props.current}
          titleOf={(thread) => nameOf(list.find((entry) => entry.thread === thread) ?? {})}
          onOpen={props.onOpen}
        />
        <div className="threads">
          {byAge(shown, new Date()).map(({ name, entries }) => (
            <section key={name} aria-label={name}>
              <h2>{name}</h2>
              <ul>
                {entries.map((entry) => (
                  <Row
                    key={entry.thread}
                    {...props}
                    entry={entry}
                    current={entry.thread === current}
                    failed={props.failed?.get(entry.thread)}
                    onRemove={() => setLeaving(entry)}
                  />
                ))}
              </ul>
            </section>
          ))}
          {!list.length && <p className="empty">Your conversations appear here.</p>}
          {props.kept && <p className="empty kept">{props.kept}</p>}
          <p className="empty" role="status">
            {wanted && list.length > 0 && (shown.length ? <span className="offscreen">{shown.length} found</span> : `Nothing is called “${wanted}”.`)}
          </p>
        </div>
        <footer>
          <span className="brand">
            <Icon name="wave" /> tokenwire
          </span>
          <a href="dash">Dashboard</a>
        </footer>
      </nav>
      {leaving && (
        <Confirm
          title={nameOf(leaving)}
          onAnswer={(sure) => {
            setLeaving(undefined);
            if (!sure) return;
            onRemove(leaving.thread);
            // What had the focus is gone.
            nav.current?.querySelector<HTMLElement>("button")?.focus();
          }}
        />
      )}
    </>
  );
}

function Row(
  props: { entry: ThreadEntry; current: boolean; failed: Error | undefined } & Actions,
): ReactNode {
  const { entry, current, failed, onOpen, onRename, onRemove } = props;
  const { thread: id, updated } = entry;
  const title = nameOf(entry);
  const [draft, setDraft] = useState<string>();
  const button = useRef<HTMLButtonElement>(null);
  const done = (save: boolean, refocus = true) => {
    if (draft === undefined) return;
    setDraft(undefined);
    if (save) onRename(id, draft.trim());
    if (refocus) requestAnimationFrame(() => button.current?.focus());
  };
  if (draft !== undefined) {
    return (
      <li className="current">
        <input
          className="rename"
          autoFocus
          aria-label="Title"
          maxLength={200}
          value={draft}
          onFocus={(event) => event.target.select()}
          onChange={(event) => setDraft(event.target.value)}
          onBlur={() => done(true, false)}
          onKeyDown={(event) => {
            if (isComposing(event) || !["Enter", "Escape"].includes(event.key)) return;
            event.preventDefault();
            done(event.key === "Enter");
          }}
        />
      </li>
    );
  }
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "F2") setDraft(title);
    else if (event.key === "Delete") onRemove(id);
    else return;
    event.preventDefault();
  };
  return (
    <li className={current ? "current" : undefined}>
      <button
        ref={button}
        type="button"
        className="thread"
        aria-current={current ? "page" : undefined}
        aria-keyshortcuts="F2 Delete"
        title={title}
        onClick={() => onOpen(id)}
        onDoubleClick={() => setDraft(title)}
        onKeyDown={onKey}
      >
        <span dir="auto">{title}</span>
        {entry.state ? (
          <em>{entry.state === "waiting" ? "waits" : "answering"}</em>
        ) : (
          <time dateTime={new Date(updated * 1000).toISOString()}>{ago(updated * 1000)}</time>
        )}
      </button>
      <span className="row-actions">
        <button type="button" className="quiet icon" aria-label={`Rename ${title}`} title="Rename (F2)" onClick={() => setDraft(title)}>
          <Icon name="edit" />
        </button>
        <button type="button" className="quiet icon" aria-label={`Delete ${title}`} title="Delete (Del)" onClick={() => onRemove(id)}>
          <Icon name="trash" />
        </button>
      </span>
      {failed && (
        <p className="problem" role="alert">
          Not changed: {failed.message}
        </p>
      )}
    </li>
  );
}

/** Asks before something is gone for good. */
function Confirm({ title, onAnswer }: { title: string; onAnswer(sure: boolean): void }): ReactNode {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    if (!element?.open) element?.showModal();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby="confirm-title" onCancel={() => onAnswer(false)} onKeyDown={(event) => event.stopPropagation()}>
      <h2 id="confirm-title">Delete this conversation?</h2>
      <p>
        <strong dir="auto">{title}</strong> and all of its answers are erased from the server. This cannot be undone.
      </p>
      <div className="buttons">
        <button type="button" autoFocus onClick={() => onAnswer(false)}>
          Cancel
        </button>
        <button type="button" className="danger" onClick={() => onAnswer(true)}>
          Delete
        </button>
      </div>
    </dialog>
  );
}

function ago(then: number): string {
  const minutes = Math.floor((Date.now() - then) / 60000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h`;
  return new Date(then).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}
