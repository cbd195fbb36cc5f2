/* The page's frame: conversations at the left, the chat, the inspector at the right. */

import { TokenwireClient } from "@tokenwire/client";
import { useChat, type Turn } from "@tokenwire/react";
import { useCallback, useEffect, useMemo, useState, useSyncExternalStore, type ReactNode } from "react";
import { Chat } from "./chat.js";
import { Icon } from "./icons.js";
import { Inspector } from "./inspector.js";
import { Sidebar } from "./sidebar.js";
import { SignIn } from "./sign-in.js";
import { ThemeButton } from "./theme.js";
import { ThreadList } from "./threads.js";

const client = new TokenwireClient();
const threads = new ThreadList(client);

/** The conversation in the address: `#t=...`, so that a reload and a bookmark come back to it. */
function threadInAddress(): string | undefined {
  return /^#t=([A-Za-z0-9_-]{8,64})$/.exec(location.hash)?.[1];
}

export interface Model {
  id: string;
}

export function App(): ReactNode {
  const [thread, setThread] = useState(threadInAddress);
  const [fresh, setFresh] = useState(0);
  const [models, setModels] = useState<Model[]>([]);
  const [locked, setLocked] = useState(false);
  const [reach, setReach] = useState("");
  const list = useSyncExternalStore(threads.subscribe, threads.getSnapshot);

  const connect = useCallback(() => {
    client.json("GET", "/v1/models").then(
      (told) => {
        setModels((told as { data: Model[] }).data ?? []);
        setLocked(false);
        setReach("");
        void threads.refresh();
      },
      (error: { status?: number; message: string }) => {
        if (error.status === 401) setLocked(true);
        else setReach("The server cannot be reached.");
      },
    );
  }, []);
  useEffect(connect, [connect]);
  useEffect(() => {
    const moved = () => setThread(threadInAddress());
    const back = () => document.hidden || void threads.refresh();
    addEventListener("hashchange", moved);
    document.addEventListener("visibilitychange", back);
    return () => {
      removeEventListener("hashchange", moved);
      document.removeEventListener("visibilitychange", back);
    };
  }, []);

  const open = useCallback((id?: string) => {
    history.pushState(null, "", id ? `#t=${id}` : location.pathname);
    setThread(id);
    if (!id) setFresh((n) => n + 1);
  }, []);

  if (locked) return <SignIn client={client} onDone={connect} />;
  return (
    <Frame
      key={thread ? "kept" : `fresh-${fresh}`}
      thread={thread}
      models={models}
      notice={reach}
      list={list}
      onOpen={open}
      onRetry={connect}
    />
  );
}

function Frame(props: {
  thread: string | undefined;
  models: Model[];
  notice: string;
  list: ReturnType<ThreadList["getSnapshot"]>;
  onOpen(id?: string): void;
  onRetry(): void;
}): ReactNode {
  const { thread, models, list, onOpen } = props;
  const [model, setModel] = useState<string>();
  const [side, setSide] = useState(false);
  const [inspected, setInspected] = useState<Turn>();
  const [inspecting, setInspecting] = useState(false);
  const options = useMemo(() => ({ client, ...(thread ? { thread } : {}), ...(model ? { model } : {}) }), [thread, model]);
  const chat = useChat(options);
  const title = list.find((entry) => entry.id === chat.thread)?.title ?? "New conversation";

  useEffect(() => {
    document.title = chat.turns.length ? `${title} · tokenwire` : "tokenwire";
  }, [title, chat.turns.length]);
  useEffect(() => setInspected(undefined), [chat.thread]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.shiftKey && event.key.toLowerCase() === "o") {
        event.preventDefault();
        onOpen();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [onOpen]);

  const asked = useCallback(
    (question: string) => {
      threads.touch(chat.thread, question);
      // The address names the conversation from its first question on.
      if (threadInAddress() !== chat.thread) history.replaceState(null, "", `#t=${chat.thread}`);
    },
    [chat.thread],
  );
  const last = chat.turns[chat.turns.length - 1];

  return (
    <div className={`frame${inspecting ? " inspecting" : ""}`}>
      <Sidebar
        open={side}
        list={list}
        current={chat.thread}
        onOpen={(id) => {
          setSide(false);
          onOpen(id);
        }}
        onClose={() => setSide(false)}
        onRemove={(id) => {
          void threads.remove(id);
          if (id === chat.thread) onOpen();
        }}
      />
      <main>
        <header className="bar">
          <button type="button" className="quiet icon only-narrow" aria-label="Conversations" onClick={() => setSide(true)}>
            <Icon name="menu" />
          </button>
          <h1>{chat.turns.length ? title : "tokenwire"}</h1>
          <ModelPicker models={models} model={model} onModel={setModel} />
          <ThemeButton />
          <button
            type="button"
            className="quiet icon"
            aria-pressed={inspecting}
            aria-label="Stream inspector"
            title="Stream inspector"
            onClick={() => setInspecting((on) => !on)}
          >
            <Icon name="wave" />
          </button>
        </header>
        {props.notice && (
          <div className="notice" role="alert">
            {props.notice}{" "}
            <button type="button" onClick={props.onRetry}>
              Try again
            </button>
          </div>
        )}
        <Chat
          chat={chat}
          demo={(model ?? models[0]?.id ?? "demo") === "demo"}
          onAsk={asked}
          onInspect={(turn) => {
            setInspected(turn);
            setInspecting(true);
          }}
        />
      </main>
      {inspecting && (
        <Inspector turn={inspected ?? last} onClose={() => setInspecting(false)} />
      )}
    </div>
  );
}

function ModelPicker(props: {
  models: Model[];
  model: string | undefined;
  onModel(id: string): void;
}): ReactNode {
  const { models, model, onModel } = props;
  if (!models.length) return null;
  if (models.length === 1) return <span className="model">{models[0]!.id}</span>;
  return (
    <select
      className="model"
      aria-label="Model"
      value={model ?? models[0]!.id}
      onChange={(event) => onModel(event.target.value)}
    >
      {models.map(({ id }) => (
        <option key={id}>{id}</option>
      ))}
    </select>
  );
}
