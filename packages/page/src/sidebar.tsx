/* The conversations, newest first. */

import { useEffect, useRef, type ReactNode } from "react";
import { Icon } from "./icons.js";
import type { ThreadEntry } from "./threads.js";

export function Sidebar(props: {
  open: boolean;
  list: ThreadEntry[];
  current: string;
  onOpen(id?: string): void;
  onClose(): void;
  onRemove(id: string): void;
}): ReactNode {
  const { open, list, current, onOpen, onClose, onRemove } = props;
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    if (!open) return undefined;
    nav.current?.querySelector<HTMLElement>("button")?.focus();
    const onKey = (event: KeyboardEvent) => event.key === "Escape" && onClose();
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [open, onClose]);
  return (
    <>
      {open && <div className="shade" onClick={onClose} aria-hidden="true" />}
      <nav ref={nav} className={`sidebar${open ? " open" : ""}`} aria-label="Conversations">
        <button type="button" className="new" onClick={() => onOpen()}>
          <Icon name="plus" /> New conversation
        </button>
        <ul>
          {list.map((entry) => (
            <li key={entry.id} className={entry.id === current ? "current" : undefined}>
              <button
                type="button"
                className="thread"
                aria-current={entry.id === current ? "page" : undefined}
                onClick={() => onOpen(entry.id)}
              >
                <span>{entry.title}</span>
                <time dateTime={new Date(entry.updated).toISOString()}>{ago(entry.updated)}</time>
              </button>
              <button
                type="button"
                className="quiet icon remove"
                aria-label={`Delete ${entry.title}`}
                title="Delete"
                onClick={() => onRemove(entry.id)}
              >
                <Icon name="trash" />
              </button>
            </li>
          ))}
        </ul>
        {!list.length && <p className="empty">Your conversations appear here.</p>}
        <footer>
          <span className="brand">
            <Icon name="wave" /> tokenwire
          </span>
        </footer>
      </nav>
    </>
  );
}

function ago(then: number): string {
  const minutes = Math.floor((Date.now() - then) / 60000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h`;
  return new Date(then).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}
