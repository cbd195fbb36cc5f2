/* A server with keys: the key goes to the server once, which answers with a cookie that no script
can read. Inside of an application it is the application that signs people in. */

import type { TokenwireClient } from "@tokenwire/client";
import { useState, type FormEvent, type ReactNode } from "react";
import { Icon } from "./icons.js";

export function SignIn(props: { client: TokenwireClient; onDone(): void }): ReactNode {
  if (!("hosted" in document.documentElement.dataset)) return <KeyForm {...props} />;
  return (
    <main>
      <div className="sign-in">
        <Mark />
        <h1>tokenwire</h1>
        <p role="alert">You are not signed in to the application that this page belongs to.</p>
        <button type="button" className="primary" onClick={props.onDone}>
          Try again
        </button>
      </div>
    </main>
  );
}

function Mark(): ReactNode {
  return (
    <span className="mark">
      <Icon name="wave" />
    </span>
  );
}

function KeyForm({ client, onDone }: { client: TokenwireClient; onDone(): void }): ReactNode {
  const [key, setKey] = useState("");
  const [error, setError] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    client.json("POST", "/v1/session", { key }).then(onDone, (failed: Error) => {
      setError(failed.message);
    });
  };
  return (
    <main>
      <form className="sign-in" onSubmit={submit}>
        <Mark />
        <h1>tokenwire</h1>
        <label htmlFor="key">This server asks for a key.</label>
        <input
          id="key"
          type="password"
          autoComplete="current-password"
          autoFocus
          value={key}
          onChange={(event) => setKey(event.target.value)}
        />
        <button type="submit" className="primary" disabled={!key}>
          Sign in
        </button>
        {error && <p role="alert">{error}</p>}
      </form>
    </main>
  );
}
