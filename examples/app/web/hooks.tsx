/* The page on tokenwire's own hooks. */

import { TokenwireClient } from "@tokenwire/client";
import { MessageParts, RunError, useAgent, useChat, useRunStore, type Turn } from "@tokenwire/react";
import { useEffect } from "react";
import { createRoot } from "react-dom/client";
import { Frame } from "./frame.js";

const client = new TokenwireClient({ baseUrl: "/ai" });
type Chat = ReturnType<typeof useChat>;

function Conversation({ thread, onAnswer }: { thread: string; onAnswer(): void }) {
  const chat = useChat({ client, thread });
  useEffect(() => void (chat.status === "ready" && onAnswer()), [chat.status, onAnswer]);
  return (
    <>
      {chat.turns.map((turn) => (
        <Answer key={turn.id} turn={turn} chat={chat} />
      ))}
      {chat.error && <p role="alert">{chat.error.message}</p>}
      <form action={(form) => void chat.send(String(form.get("question")))}>
        <input name="question" aria-label="Question" disabled={chat.busy} />
      </form>
      {chat.busy && <button onClick={() => void chat.stop()}>Stop</button>}
    </>
  );
}

function Answer({ turn, chat }: { turn: Turn; chat: Chat }) {
  const { state } = useRunStore(turn.store);
  const sources = useAgent(turn).data.find(({ name }) => name === "sources")?.payload;
  return (
    <article data-state={state.outcome ?? "running"}>
      <b>{turn.prompt}</b>
      <MessageParts
        run={state}
        render={{ text: ({ part }) => <p className="text">{part.text}</p> }}
        onApprove={(approval, answer) => chat.approve(turn, approval, answer)}
      />
      {Array.isArray(sources) && sources.length > 0 && <small>From {sources.join(", ")}</small>}
      <RunError run={state} />
    </article>
  );
}

createRoot(document.getElementById("root")!).render(
  <Frame>{(thread, onAnswer) => <Conversation thread={thread} onAnswer={onAnswer} />}</Frame>,
);
