// A chat as a front-end engineer writes it: `useChat` of the AI SDK, pointed at the server.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { createElement as h, useState } from "react";
import { createRoot } from "react-dom/client";
import { resumableFetch, withoutVoid } from "tokenwire-ai";

const asked = new URLSearchParams(location.search);
const transport = new DefaultChatTransport({
  api: `${asked.get("server")}/api/chat`,
  ...(asked.has("ours") ? { fetch: resumableFetch() } : {}),
});

// What a person saw of the answer, for the test: every text that was drawn, once.
const seen = [];
Object.assign(window, { seen });

const textOf = ({ parts }) =>
  withoutVoid(parts)
    .map((part) => (part.type === "text" ? part.text : ""))
    .join("");

function Chat() {
  const { messages, sendMessage, status, error } = useChat({
    id: asked.get("chat"),
    transport,
    resume: asked.has("resume"),
  });
  const [question, setQuestion] = useState("");
  const answers = messages.filter(({ role }) => role === "assistant");
  const answer = answers.map(textOf).join("|");
  if (answer !== seen[seen.length - 1]) seen.push(answer);
  return h(
    "form",
    {
      onSubmit: (event) => {
        event.preventDefault();
        sendMessage({ text: question });
      },
    },
    h("input", { "aria-label": "Question", onChange: (event) => setQuestion(event.target.value) }),
    h("output", { "data-status": status }, answer),
    error ? h("div", { role: "alert" }, String(error)) : null,
  );
}

createRoot(document.getElementById("root")).render(h(Chat));
