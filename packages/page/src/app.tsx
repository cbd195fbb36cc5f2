/* The page's frame: conversations at the left, the chat, the inspector at the right. */

import type { TokenwireError } from "@tokenwire/client";
import { Threads, type ThreadEntry } from "@tokenwire/client/threads";
import { useChat, type Turn } from "@tokenwire/react";
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore, type ReactNode } from "react";
import { Chat } from "./conversation/chat.js";
import { Icon } from "./icons.js";
import { Inspector } from "./conversation/inspector.js";
import { useLive, type ThreadEvent } from "./live.js";
import { Sidebar } from "./sidebar/sidebar.js";
import { client, isOwner, startOver } from "./server.js";
import { SignIn } from "./sign-in.js";
import { inviteIn, permits, presenceOf, useMembers, type MemberList } from "./sharing/members.js";
import { Share } from "./sharing/share.js";
import { ThemeButton } from "./theme.js";
import { forgetOthers, placeOf } from "./unsent.js";
import { useInbox, type Inbox } from "./sidebar/inbox.js";
import { keptFor, nameOf } from "./sidebar/threads.js";
import { plainWords } from "./conversation/words.js";

const threads = new Threads(client);

/** How often the list of conversations is read again where nothing tells of its changes. */
const LOOK_MS = 15_000;
/** And how soon after the network failed. */
const AGAIN_MS = 2000;

/** What says that anything may have happened. */
const AGAIN = ["live", "ended", "snapshot"];

/** The conversation in the address: `#t=...`, so that a reload and a bookmark come back to it. Any id
 * that the server takes. */
function threadInAddress(): string | undefined {
  const [, written] = /^#t=([^&]+)$/.exec(location.hash) ?? [];
  try {
    const id = decodeURIComponent(written ?? "");
    return /^(?!\.+$)[A-Za-z0-9_.:@-]{1,128}$/.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

export interface Model {
  id: string;
}

export function App(): ReactNode {
  const [thread, setThread] = useState(threadInAddress);
  const [invite, setInvite] = useState(() => inviteIn(location.hash));
  const [fresh, setFresh] = useState(0);
  const [models, setModels] = useState<Model[]>([]);
  const [locked, setLocked] = useState(false);
  const [problem, setProblem] = useState("");
  const inbox = useInbox(client, !locked && models.length > 0);
  const listed = useSyncExternalStore(threads.subscribe, threads.getSnapshot);

  const connect = useCallback(() => {
    const read = async () => {
      const told = (await client.json("GET", "/v1/models")) as { data: Model[] };
      void threads.refresh();
      setModels(told.data);
      setLocked(false);
      setProblem("");
    };
    read().catch((error: TokenwireError) => {
      if (error.status === 401) {
        setLocked(true);
        forgetOthers();
      }
      else setProblem(error.status ? error.message : "The server cannot be reached.");
    });
  }, []);
  useEffect(connect, [connect]);
  useEffect(() => {
    if (!invite || locked || !models.length) return;
    // It is used up now, and must not stay in the address.
    setInvite(undefined);
    history.replaceState(null, "", location.pathname);
    client.json("POST", "/v1/invites/accept", { token: invite }).then(
      (joined) => {
        const { thread: id } = joined as MemberList;
        history.pushState(null, "", `#t=${id}`);
        setThread(id);
        void threads.refresh();
      },
      (error: TokenwireError) => setProblem(`You could not join: ${plainWords(error)}`),
    );
  }, [invite, locked, models]);
  useEffect(() => {
    const moved = () => {
      setInvite(inviteIn(location.hash));
      setThread(threadInAddress());
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const isOpen = !locked && models.length > 0;
  useEffect(() => {
    if (!isOpen) return undefined;
    const life = new AbortController();
    void threads.follow(life.signal);
    return () => life.abort();
  }, [isOpen]);
  const isTold = listed.live === "live";
  useEffect(() => {
    if (isTold) return undefined;
    const look = () => {
      if (!document.hidden) void threads.refresh();
    };
    const timer = setInterval(look, LOOK_MS);
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [isTold]);
  const { refresh: lookInInbox } = inbox;
  const waiting = listed.threads.filter(({ state }) => state === "waiting").map(({ thread }) => thread).sort().join(" ");
  useEffect(() => {
    if (isOpen) lookInInbox();
  }, [isOpen, waiting, lookInInbox]);

  useEffect(() => {
    // What the network kept from us is read as soon as the server is back; a refusal is not asked again.
    if (!listed.error || listed.error.status) return;
    const timer = setTimeout(() => void threads.refresh(), AGAIN_MS);
    return () => clearTimeout(timer);
  }, [listed.error]);

  const open = useCallback((id?: string) => {
    if (id !== threadInAddress()) history.pushState(null, "", id ? `#t=${id}` : location.pathname);
    setThread(id);
    if (!id) setFresh((n) => n + 1);
  }, []);

  const { reader } = listed;
  const isSignedOut = listed.error?.status === 401;
  useEffect(() => {
    if (!isSignedOut) return;
    setLocked(true);
    forgetOthers();
  }, [isSignedOut]);
  const isOthers = !isOwner(reader);
  useEffect(() => {
    if (reader) forgetOthers(reader);
    if (isOthers) startOver();
  }, [reader, isOthers]);

  if (locked) return <SignIn client={client} onDone={reader ? () => location.reload() : connect} />;
  if (isOthers) return null;
  return (
    <Frame
      key={thread ? "kept" : `fresh-${fresh}`}
      thread={thread}
      models={models}
      problem={problem || (listed.error ? `The list of conversations: ${listed.error.message}` : "")}
      list={listed.threads}
      reader={reader}
      failed={listed.failed}
      kept={keptFor(listed)}
      inbox={inbox}
      onOpen={open}
      onRetry={connect}
    />
  );
}

function Frame(props: {
  thread: string | undefined;
  models: Model[];
  problem: string;
  list: ThreadEntry[];
  /** Stands for this person, once that is known. */
  reader: string | undefined;
  failed: ReadonlyMap<string, TokenwireError> | undefined;
  kept: string | undefined;
  inbox: Inbox;
  onOpen(id?: string): void;
  onRetry(): void;
}): ReactNode {
  const { thread, models, list, reader, onOpen } = props;
  const [picked, setModel] = useState<string>();
  const [side, setSide] = useState(false);
  const [inspected, setInspected] = useState<Turn>();
  const [inspecting, setInspecting] = useState(false);
  const [used, setUsed] = useState<string>();
  const model = picked ?? used;
  const options = useMemo(() => ({ client, ...(thread ? { thread } : {}), ...(model ? { model } : {}), whileBusy: "queue" as const, holdsUnsent: true }), [thread, model]);
  const chat = useChat(options);
  const last = chat.turns[chat.turns.length - 1];
  // A conversation goes on with the model that it had, while that is served.
  const had = models.find(({ id }) => id === last?.model)?.id;
  const entry = list.find(({ thread: id }) => id === chat.thread);
  const title = entry ? nameOf(entry) : "New conversation";
  const { refresh: lookInInbox } = props.inbox;
  const isWaiting = chat.status === "waiting";
  const wasWaiting = useRef(isWaiting);
  useEffect(() => {
    if (wasWaiting.current !== isWaiting) lookInInbox();
    wasWaiting.current = isWaiting;
  }, [isWaiting, lookInInbox]);
  // What may have changed who belongs to it.
  const version = chat.turns.some(({ run }) => run) ? `${chat.turns.length}${chat.isGone}` : "";
  const [isLive, setLive] = useState(false);
  const members = useMembers(client, chat.thread, version, isLive);
  const isShared = (members.list?.members.length ?? 0) > 1 && !chat.isGone;
  const { refresh: readAnew } = chat;
  const { refresh: readMembers } = members;
  const live = useLive(
    client,
    version && !chat.isGone ? chat.thread : undefined,
    useCallback(
      ({ type }: ThreadEvent) => {
        if (type === "title") void threads.refresh();
        if (type.startsWith("member") || AGAIN.includes(type)) readMembers();
        if (type === "run-waiting" || type === "approval") lookInInbox();
        void readAnew();
      },
      [readAnew, readMembers, lookInInbox],
    ),
  );
  const { conversation } = chat;
  useEffect(() => {
    if (reader) conversation.keepUnsent(placeOf(reader));
  }, [conversation, reader]);
  useEffect(() => {
    conversation.isTold = live.isLive;
    setLive(live.isLive);
    return () => {
      conversation.isTold = false;
    };
  }, [conversation, live.isLive]);
  const here = isShared ? live.present.filter((name) => name !== members.list?.principal) : [];
  const [sharing, setSharing] = useState(false);
  // Who is removed by somebody else reads so; who erased it is done with it.
  const sharedOne = useRef("");
  const erasedHere = useRef("");
  if (isShared) sharedOne.current = chat.thread;
  const isRemovedByOthers = sharedOne.current === chat.thread && erasedHere.current !== chat.thread;
  const erased = threads.isRemoved(chat.thread) && !isRemovedByOthers;

  useEffect(() => {
    document.title = chat.turns.length ? `${title} · tokenwire` : "tokenwire";
  }, [title, chat.turns.length]);
  useEffect(() => {
    setInspected(undefined);
    setModel(undefined);
  }, [chat.thread]);
  useEffect(() => setUsed(had), [had]);
  useEffect(() => {
    if (erased) onOpen();
  }, [erased, onOpen]);
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

  return (
    <div className={`frame${inspecting ? " inspecting" : ""}`}>
      <Sidebar
        open={side}
        list={list}
        failed={props.failed}
        kept={props.kept}
        inbox={props.inbox}
        current={chat.thread}
        onOpen={(id) => {
          setSide(false);
          onOpen(id);
        }}
        onClose={() => setSide(false)}
        onRename={(id, name) => void threads.rename(id, name)}
        onRemove={(id) => {
          erasedHere.current = id;
          void threads.remove(id);
        }}
      />
      <main inert={side} data-live={live.isLive}>
        <header className="bar">
          <button type="button" className="quiet icon only-narrow" aria-label="Conversations" onClick={() => setSide(true)}>
            <Icon name="menu" />
          </button>
          <h1 dir="auto">{chat.turns.length ? title : "tokenwire"}</h1>
          {here.length > 0 && (
            <p className="here" title={presenceOf(here)}>
              <span className="dot" aria-hidden="true" />
              <bdi>{presenceOf(here)}</bdi>
            </p>
          )}
          <button
            type="button"
            className="quiet icon people"
            aria-label={members.list && members.list.members.length > 1 ? `People: ${members.list.members.length}` : "People"}
            title="People in this conversation"
            aria-haspopup="dialog"
            onClick={() => setSharing(true)}
          >
            <Icon name="people" />
            {members.list && members.list.members.length > 1 && <span aria-hidden="true">{members.list.members.length}</span>}
          </button>
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
        {props.problem && (
          <div className="notice" role="alert">
            {props.problem}{" "}
            <button type="button" onClick={props.onRetry}>
              Try again
            </button>
          </div>
        )}
        {chat.isGone && (
          <div className="notice" role="alert">
            This conversation was deleted, or you no longer belong to it.{" "}
            <button type="button" onClick={() => onOpen()}>
              New conversation
            </button>
          </div>
        )}
        {sharing && (
          <Share
            client={client}
            thread={chat.thread}
            members={members}
            present={live.present}
            onClose={() => setSharing(false)}
            onLeft={() => {
              setSharing(false);
              void threads.refresh();
              onOpen();
            }}
          />
        )}
        <Chat
          chat={chat}
          reader={reader}
          members={members.list}
          typing={live.typing.filter((name) => name !== members.list?.principal)}
          onType={isShared ? live.tell : undefined}
          mayWrite={permits(members.list, "write") && !chat.isGone}
          mayApprove={permits(members.list, "approve") && !chat.isGone}
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

/** A model at an address of its own (`http://host/v1#name`) by its name. */
function shortName(id: string): string {
  return /^https?:.*#(.+)$/.exec(id)?.[1] ?? id;
}

function ModelPicker(props: {
  models: Model[];
  model: string | undefined;
  onModel(id: string): void;
}): ReactNode {
  const { models, model, onModel } = props;
  if (!models.length) return null;
  if (models.length === 1) return <span className="model" title={models[0]!.id}>{shortName(models[0]!.id)}</span>;
  return (
    <select
      className="model"
      aria-label="Model"
      value={model ?? models[0]!.id}
      onChange={(event) => onModel(event.target.value)}
    >
      {models.map(({ id }) => (
        <option key={id} value={id}>
          {shortName(id)}
        </option>
      ))}
    </select>
  );
}
