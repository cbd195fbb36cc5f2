/* Where a question is written. A draft stays with its conversation over a reload. */

import { useEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { Icon } from "./icons.js";

const MOST = 200_000;

export function Composer(props: {
  busy: boolean;
  thread: string;
  onSend(question: string): void;
  onStop(): void;
}): ReactNode {
  const { busy, onSend, onStop, thread } = props;
  const [text, setText] = useState("");
  const area = useRef<HTMLTextAreaElement>(null);
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
  const send = () => {
    const question = text.trim();
    if (!question || busy) return;
    setText("");
    onSend(question);
  };
  const onKey = (event: KeyboardEvent) => {
    // While an input method composes, Enter chooses a word.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div className="box">
        <textarea
          ref={area}
          rows={1}
          value={text}
          maxLength={MOST}
          placeholder="Ask anything"
          aria-label="Your question"
          onChange={(event) => setText(event.target.value)}
          onKeyDown={onKey}
        />
        {busy ? (
          <button type="button" className="round" onClick={onStop} aria-label="Stop" title="Stop (Esc)">
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" className="round" disabled={!text.trim()} aria-label="Send" title="Send (Enter)">
            <Icon name="send" />
          </button>
        )}
      </div>
      <p className="hint">
        <kbd>Enter</kbd> sends, <kbd>Shift</kbd>+<kbd>Enter</kbd> breaks the line, <kbd>Esc</kbd> stops
      </p>
    </form>
  );
}
