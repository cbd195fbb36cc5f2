/* The turns of a conversation, and where the next question is written. */

import { stateOf } from "@tokenwire/client";
import { isBusy } from "@tokenwire/client/conversation";
import type { Turn } from "@tokenwire/react";
import { useCallback, useEffect, useRef, useState, type DragEvent, type ReactNode, type RefObject } from "react";
import { contentOf, useAttachments, type Attachment } from "./attach.js";
import { Composer } from "./composer.js";
import type { ChatHandle } from "./handle.js";
import { Icon } from "../icons.js";
import { isComposing } from "../keys.js";
import { nameIn, type MemberList } from "../sharing/members.js";
import { TurnView } from "./turn.js";
import { Waiting } from "./waiting.js";
import { plainWords } from "./words.js";

/** What the demo model can show. */
const SCENARIOS = [
  ["Show what you can do", "scenario:text"],
  ["Think before answering", "scenario:reasoning"],
  ["Use a tool", "scenario:tool"],
  ["Ask me for approval", "scenario:approval"],
  ["Break off with an error", "scenario:error"],
  ["How does tokenwire keep every word?", "How does tokenwire keep every word?"],
] as const;

const QUESTIONS = [
  ["Explain something", "Explain how a rainbow forms, in three short paragraphs."],
  ["Plan as a table", "Plan a weekend in Lisbon, as a table."],
  ["Show some code", "Show quicksort in Python, with a short explanation."],
  ["Work out a formula", "Derive the quadratic formula step by step."],
] as const;

/** Nearer to the end than this, no button leads there. */
const NEAR = 80;
/** The end itself, for browsers that scroll by parts of a pixel. */
const AT_END = 2;

export function Chat(props: {
  chat: ChatHandle;
  reader: string | undefined;
  members: MemberList | undefined;
  /** Who else writes a question now. */
  typing: string[];
  /** This person writes; undefined where nobody else would see it. */
  onType: (() => void) | undefined;
  mayWrite: boolean;
  mayApprove: boolean;
  /** Whether the model is the simulated one. */
  demo: boolean;
  onAsk(question: string): void;
  onInspect(turn: Turn): void;
}): ReactNode {
  const { chat, members, mayWrite, mayApprove, onAsk, onInspect } = props;
  const isShared = (members?.members.length ?? 0) > 1;
  const { turns, queue, status, busy } = chat;
  const { error: unread } = chat.conversation.getSnapshot();
  const last = turns.findLast(isBusy) ?? turns[turns.length - 1];
  const { scroller, content, atEnd, toEnd } = useFollowedEnd(turns.length + queue.length);
  const toField = useCallback(() => document.querySelector<HTMLElement>(".composer textarea")?.focus(), []);

  const attached = useAttachments();
  const [dragging, setDragging] = useState(false);
  const { files, clear } = attached;
  const send = useCallback(
    (question: string) => {
      onAsk(question || files[0]?.name || "");
      chat.send(question, { content: contentOf(question, files) });
      clear();
      toEnd();
    },
    [chat.send, onAsk, toEnd, files, clear],
  );
  const edit = useCallback(
    (turn: Turn, question: string, kept: Attachment[]) => {
      onAsk(question || kept[0]?.name || "");
      chat.edit(turn, question, { content: contentOf(question, kept) });
      toEnd();
    },
    [chat.edit, onAsk, toEnd],
  );
  useEffect(clear, [chat.thread, clear]);
  const onDrag = (event: DragEvent) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    const inside = event.currentTarget.contains(event.relatedTarget as Node | null);
    if (event.type === "dragleave" && !inside) setDragging(false);
    else if (event.type === "dragenter") setDragging(true);
    else if (event.type === "drop") {
      setDragging(false);
      attached.add([...event.dataTransfer.files]);
    }
  };
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || !busy || event.defaultPrevented || isComposing(event)) return;
      // Whatever else has the focus, a list or a field, is closed by it and nothing more.
      const within = event.target instanceof Element ? event.target : document.body;
      if (within === document.body || within.closest(".chat")) void chat.stop();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [busy, chat.stop]);

  return (
    <div className="chat" onDragEnter={onDrag} onDragOver={onDrag} onDragLeave={onDrag} onDrop={onDrag}>
      {dragging && <p className="drop">Drop files to attach them</p>}
      <div className="scroller" ref={scroller} tabIndex={-1}>
        <div className="column" ref={content}>
          {!turns.length && !chat.loading && !unread && <Welcome onTry={send} demo={props.demo} />}
          {unread && (
            <div className="notice" role="alert">
              {plainWords(unread)}{" "}
              <button type="button" onClick={() => void chat.refresh()}>
                Try again
              </button>
            </div>
          )}
          {chat.earlier && <Earlier key={chat.thread} scroller={scroller} onLoad={chat.loadEarlier} />}
          {chat.loading && !turns.length && <p className="loading">Loading the conversation…</p>}
          <ol className="turns" aria-label="Conversation">
            {turns.map((turn) => (
              <li key={turn.id}>
                <TurnView
                  turn={turn}
                  prompt={turn.prompt}
                  isUnsent={!!turn.isUnsent}
                  by={isShared ? nameIn(members, turn.by) : undefined}
                  mayWrite={mayWrite}
                  mayApprove={mayApprove}
                  versions={chat.versions(turn)}
                  onChoose={chat.choose}
                  onRetry={chat.retry}
                  onEdit={edit}
                  onApprove={chat.approve}
                  onInspect={onInspect}
                />
              </li>
            ))}
          </ol>
          {!chat.isGone && <Waiting chat={chat} members={members} mayWrite={mayWrite} onSend={send} onLeave={toField} />}
        </div>
      </div>
      <div className="foot">
        {!atEnd && (
          <button type="button" className="to-end" onClick={toEnd} aria-label="To the newest">
            <Icon name="down" />
          </button>
        )}
        {props.typing.length > 0 && (
          <p className="types" role="status">
            <bdi>{props.typing.join(", ")}</bdi> {props.typing.length === 1 ? "writes…" : "write…"}
          </p>
        )}
        {!chat.isGone && (
          <Composer
            busy={busy}
            mayWrite={mayWrite}
            onType={props.onType}
            waits={busy || queue.length > 0}
            reader={props.reader}
            thread={chat.thread}
            fresh={!turns.length && !chat.loading}
            attached={attached}
            onSend={send}
            stopping={last?.stopping}
            stopError={last?.stopError?.message}
            onStop={() => void chat.stop()}
          />
        )}
      </div>
      <Announcer turn={last} status={status} waiting={queue.length} />
    </div>
  );
}

/** Reads earlier turns when a person scrolls up to it; what is shown stays where it is. */
function Earlier(props: { scroller: RefObject<HTMLDivElement | null>; onLoad(): Promise<void> }): ReactNode {
  const { scroller, onLoad } = props;
  const button = useRef<HTMLButtonElement>(null);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const load = useCallback(() => {
    const element = scroller.current;
    if (!element) return;
    const rest = element.scrollHeight - element.scrollTop;
    setBusy(true);
    setProblem("");
    onLoad().then(
      () => {
        setBusy(false);
        requestAnimationFrame(() => (element.scrollTop = element.scrollHeight - rest));
      },
      (error: Error) => {
        setBusy(false);
        setProblem(error.message);
      },
    );
  }, [scroller, onLoad]);
  useEffect(() => {
    const element = button.current;
    if (!element || busy || problem) return undefined;
    let seen = false;
    const observer = new IntersectionObserver(
      ([entry]) => {
        // Shown at once, before anybody has scrolled: the page is about to go to its end.
        if (entry?.isIntersecting && seen) load();
        seen = true;
      },
      { root: scroller.current, rootMargin: "200px 0px 0px" },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [scroller, load, busy, problem]);
  return (
    <p className="earlier">
      <button ref={button} type="button" disabled={busy} onClick={load}>
        {busy ? "Loading…" : "Earlier messages"}
      </button>
      {problem && (
        <span className="problem" role="alert">
          {problem}
        </span>
      )}
    </p>
  );
}

function Welcome({ onTry, demo }: { onTry(question: string): void; demo: boolean }): ReactNode {
  return (
    <section className="welcome">
      <span className="mark">
        <Icon name="wave" />
      </span>
      <h2>Ask, and watch the answer arrive.</h2>
      <p>Reload, lose the network, open a second tab: not a word is lost or repeated.</p>
      <div className="try">
        {(demo ? SCENARIOS : QUESTIONS).map(([label, question]) => (
          <button key={question} type="button" onClick={() => onTry(question)}>
            {label}
          </button>
        ))}
      </div>
    </section>
  );
}

/** Keeps the end in view while the answer grows, unless the person has scrolled away. */
function useFollowedEnd(turns: number) {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const [atEnd, setAtEnd] = useState(true);
  const toEnd = useCallback(() => {
    following.current = true;
    setAtEnd(true);
    const element = scroller.current;
    if (element) element.scrollTop = element.scrollHeight;
  }, []);
  useEffect(() => {
    const element = scroller.current;
    if (!element || !content.current) return undefined;
    let top = element.scrollTop;
    const onScroll = () => {
      const rest = element.scrollHeight - element.scrollTop - element.clientHeight;
      // Only a person scrolls up; growing content moves the end away downwards.
      if (rest <= AT_END) following.current = true;
      else if (element.scrollTop < top) following.current = false;
      top = element.scrollTop;
      setAtEnd(following.current || rest < NEAR);
    };
    // Before the browser has moved anything, so that no growth takes it back.
    const onWheel = ({ deltaY }: WheelEvent) => {
      if (deltaY < 0 && element.scrollTop > 0) following.current = false;
    };
    const observer = new ResizeObserver(() => {
      if (following.current) element.scrollTop = element.scrollHeight;
      top = element.scrollTop;
      setAtEnd(following.current || element.scrollHeight - top - element.clientHeight < NEAR);
    });
    observer.observe(content.current);
    element.addEventListener("scroll", onScroll, { passive: true });
    element.addEventListener("wheel", onWheel, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("wheel", onWheel);
      element.removeEventListener("scroll", onScroll);
    };
  }, []);
  useEffect(() => {
    // A question of another tab does not take a reader away from where they are.
    if (following.current) toEnd();
  }, [turns, toEnd]);
  return { scroller, content, atEnd, toEnd };
}

/** Says to screen readers that an answer began, waits or ended; never its pieces. */
function Announcer(props: { turn: Turn | undefined; status: string; waiting: number }): ReactNode {
  const { turn, status, waiting } = props;
  const [said, setSaid] = useState("");
  const before = useRef(status);
  const waited = useRef(waiting);
  useEffect(() => {
    if (waiting > waited.current) setSaid(waiting === 1 ? "Your question waits for its turn." : `${waiting} questions wait.`);
    waited.current = waiting;
  }, [waiting]);
  useEffect(() => {
    const was = before.current;
    before.current = status;
    if (status === was || !turn) return;
    if (status === "submitted") setSaid("Question sent.");
    else if (status === "streaming" && was !== "waiting") setSaid("The answer has begun.");
    else if (status === "waiting") setSaid("The answer waits for your approval.");
    else if (status === "error") setSaid("The answer failed.");
    else if (status === "ready") {
      const ended = stateOf(turn.store.getSnapshot().state);
      setSaid(ended === "cancelled" ? "Stopped." : "The answer is complete.");
    }
  }, [status, turn]);
  return (
    <div className="offscreen" role="status" aria-live="polite">
      {said}
    </div>
  );
}
