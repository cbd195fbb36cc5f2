// A tab that follows a conversation with all its runs, and keeps what it gets for the test.
import { TokenwireClient } from "@tokenwire/client";
import { Thread } from "@tokenwire/client/thread";

const asked = new URLSearchParams(location.search);
if (asked.has("no-channels")) delete globalThis.BroadcastChannel;
const client = new TokenwireClient({
  baseUrl: asked.get("server"),
  ...(asked.has("key") ? { token: () => asked.get("key") } : {}),
});
const thread = new Thread(client, "shared");

// Of each run's events the cursors, and everything else that is kept.
const runs = {};
const kept = [];
const state = { error: null, ended: 0, present: null };
Object.assign(window, { runs, kept, state, thread });

async function follow() {
  const watchdogMs = Number(asked.get("watchdog") ?? 45_000);
  for await (const event of thread.follow({ runs: true, watchdogMs })) {
    if (event.type === "run-event") (runs[event.run] ??= []).push(parseInt(event.cursor, 10));
    else if (event.type === "presence") state.present = event.principals;
    else if (event.type !== "typing") kept.push(`${event.type} ${event.run ?? event.title ?? ""}`);
    if (event.type === "run-ended") state.ended++;
  }
}

follow().catch((error) => (state.error = `${error.code}`));
