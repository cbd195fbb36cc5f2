/* The same page on the AI SDK. */

import { useChat } from "@ai-sdk/react";
import { TokenwireChatTransport, withoutVoid } from "@tokenwire/client/ai";
import { isToolUIPart, lastAssistantMessageIsCompleteWithApprovalResponses, type UIMessage } from "ai";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { Frame } from "./frame.js";

const transport = new TokenwireChatTransport({ baseUrl: "/ai" });

function Stored({ thread, onAnswer }: { thread: string; onAnswer(): void }) {
  const [messages, setMessages] = useState<UIMessage[]>();
  const [problem, setProblem] = useState("");
  useEffect(() => {
    transport.messages(thread).then(setMessages, (error: Error) => setProblem(error.message));
  }, [thread]);
  if (problem) return <p role="alert">{problem}</p>;
  return messages ? <Conversation thread={thread} messages={messages} onAnswer={onAnswer} /> : null;
}

function Conversation(props: { thread: string; messages: UIMessage[]; onAnswer(): void }) {
  const { thread, messages, onAnswer } = props;
  const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
  const chat = useChat({ id: thread, messages, transport, resume: true, sendAutomaticallyWhen });
  const [problem, setProblem] = useState("");
  useEffect(() => void (chat.status === "ready" && onAnswer()), [chat.status, onAnswer]);
  const busy = chat.status === "submitted" || chat.status === "streaming";
  const stop = () => transport.stop(thread).catch((error: Error) => setProblem(error.message));
  const shown = problem || chat.error?.message;
  return (
    <>
      {chat.messages.map((message) => (
        <article key={message.id} data-role={message.role} data-status={chat.status}>
          {withoutVoid(message.parts).map((part, at) => {
            if (part.type === "text") return <p className="text" key={at}>{part.text}</p>;
            if (part.type === "data-sources") return <small key={at}>From {(part.data as string[]).join(", ")}</small>;
            if (!isToolUIPart(part) || part.state !== "approval-requested") return null;
            const answer = (approved: boolean) =>
              void chat.addToolApprovalResponse({ id: part.approval.id, approved });
            return (
              <div key={at} role="group" aria-label="May this tool run?">
                <pre>{JSON.stringify(part.input)}</pre>
                <button onClick={() => answer(true)}>Allow</button>
                <button onClick={() => answer(false)}>Deny</button>
              </div>
            );
          })}
        </article>
      ))}
      {shown && <p role="alert">{shown}</p>}
      <form action={(form) => void chat.sendMessage({ text: String(form.get("question")) })}>
        <input name="question" aria-label="Question" disabled={busy} />
      </form>
      {busy && <button onClick={() => void stop()}>Stop</button>}
    </>
  );
}

createRoot(document.getElementById("root")!).render(
  <Frame>{(thread, onAnswer) => <Stored thread={thread} onAnswer={onAnswer} />}</Frame>,
);
