/* What both pages share: the application's own login, and its list of conversations. */

import { useCallback, useEffect, useState, type ReactNode } from "react";

interface Conversation {
  thread: string;
  title: string;
}

async function call<T>(method: string, path: string, body?: object): Promise<T> {
  const response = await fetch(path, {
    method,
    ...(body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  const told = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(String(told?.detail ?? response.statusText));
  return told as T;
}

const newThread = () => crypto.randomUUID();

/** `children` draws the conversation `thread` of the person who is signed in, and calls `onAnswer`
 * when an answer has ended. */
export function Frame({ children }: { children(thread: string, onAnswer: () => void): ReactNode }) {
  const [name, setName] = useState<string | null>();
  const [thread, setThread] = useState(() => location.hash.slice(1) || newThread());
  const [list, setList] = useState<Conversation[]>([]);
  useEffect(() => {
    call<{ name: string }>("GET", "/session").then((told) => setName(told.name), () => setName(null));
  }, []);
  // The address keeps the conversation over a reload.
  useEffect(() => history.replaceState(null, "", `#${thread}`), [thread]);
  const refresh = useCallback(() => {
    call<Conversation[]>("GET", "/conversations").then(setList, () => undefined);
  }, []);
  useEffect(() => void (name && refresh()), [name, refresh]);
  if (name === undefined) return null;
  if (name === null) return <SignIn onDone={setName} />;
  const signOut = () => void call("DELETE", "/session").then(() => setName(null));
  return (
    <main>
      <nav aria-label="Conversations">
        <button onClick={() => setThread(newThread())}>New conversation</button>
        {list.map((one) => (
          <button key={one.thread} onClick={() => setThread(one.thread)}>
            {one.title}
          </button>
        ))}
        <button onClick={signOut}>Sign out {name}</button>
      </nav>
      <section key={thread}>{children(thread, refresh)}</section>
    </main>
  );
}

function SignIn({ onDone }: { onDone(name: string): void }) {
  const [problem, setProblem] = useState("");
  const submit = (method: "/session" | "/people", form: HTMLFormElement | null) => {
    const credentials = Object.fromEntries(new FormData(form ?? undefined));
    call<{ name: string }>("POST", method, credentials).then(
      (told) => onDone(told.name),
      (error: Error) => setProblem(error.message),
    );
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        submit("/session", event.currentTarget);
      }}
    >
      <input name="name" aria-label="Name" autoComplete="username" />
      <input name="password" aria-label="Password" type="password" autoComplete="current-password" />
      <button>Sign in</button>
      <button type="button" onClick={(event) => submit("/people", event.currentTarget.form)}>
        Sign up
      </button>
      {problem && <p role="alert">{problem}</p>}
    </form>
  );
}
