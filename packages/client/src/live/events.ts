/* What happens in a conversation, and in the list of conversations, as types.

Always true: `type` says which one it is; a type that is not among these is of a newer server, and is
passed on. */

import type { RunEvent } from "../core/events.generated.js";

export type MemberRole = "read" | "write" | "approve" | "own";

/** What a run waits for. */
export interface PendingCall {
  call: string;
  tool: string;
  /** For `client.approve`; missing where a client's tool is to answer. */
  approval?: string;
}

/** A run that is under way. */
export interface RunningTurn {
  run: string;
  /** `running` unless told. */
  state?: "running" | "waiting";
  parent?: string | null;
  by?: string | null;
  /** Unix milliseconds. */
  at?: number;
  approvals?: PendingCall[];
}

/** A turn that waits. */
export interface FeedTurn {
  /** That of the run that it will be. */
  turn: string;
  /** From 1. */
  position: number;
  by?: string | null;
  edits?: number;
  /** The beginning of what it asks. */
  text?: string;
  /** Unix seconds. */
  created?: number;
  /** The answer under way that was given it as words. */
  run?: string;
}

/** The newest turns by run; `state`: `running`, or how it ended. */
export interface FeedOutcome {
  run: string;
  state: string;
}

/** The state after which the events go on. */
export interface ThreadSnapshot {
  title: string | null;
  /** The run that the next turn continues. */
  head: string | null;
  queue: FeedTurn[];
  running: RunningTurn[];
  turns: FeedOutcome[];
  /** Roles by ids; null where nobody was let in. */
  members: Record<string, MemberRole> | null;
}

interface About {
  thread: string;
  /** Unix milliseconds. */
  at: number;
  /** Who did it. */
  by: string | null;
}

type Queued = { turn: string; position: number; edits?: number };

/** The guide of threads says what each means. */
export type ThreadEvent =
  | (About & { type: "snapshot" } & ThreadSnapshot)
  | (About & { type: "run-started"; run: string; turn?: string; parent?: string | null; followed?: boolean })
  | (About & { type: "run-waiting"; run: string; approvals: PendingCall[] })
  | (About & { type: "run-resumed" | "run-erased" | "run-reset" | "head"; run: string })
  | (About & { type: "run-ended"; run: string; outcome: string })
  | (About & { type: "approval"; run: string; call: string; decision: "approved" | "denied" })
  | (About & { type: "turn-queued" | "turn-changed" } & Queued)
  | (About & { type: "turn-steering" } & Queued & { run: string })
  | (About & { type: "turn-steered"; turn: string; run: string })
  | (About & { type: "turn-withdrawn"; turn: string })
  | (About & { type: "member-joined" | "member-changed"; principal: string; role: MemberRole })
  | (About & { type: "member-left"; principal: string })
  | (About & { type: "title"; title: string | null })
  | (About & { type: "typing" })
  | (About & { type: "presence"; principals: string[] })
  | (About & { type: "reset"; reason: string })
  | { type: "run-event"; run: string; cursor: string; event: RunEvent };

/** A conversation as it stands in a list. */
export interface ThreadEntry {
  /** By which its reader reaches it. */
  thread: string;
  title?: string;
  /** Unix seconds. */
  updated: number;
  /** Missing where nothing is under way. */
  state?: "running" | "waiting";
  /** Turns that wait. */
  queue?: number;
  /** Of a shared one: by which every member reaches it, the reader's role, how many belong to it. */
  id?: string;
  role?: MemberRole;
  members?: number;
}

/** What changes in the list of conversations. */
export type ThreadListEvent = { at: number } & (
  | { type: "snapshot"; threads: ThreadEntry[]; next?: string }
  | { type: "thread"; thread: string; entry: ThreadEntry }
  | { type: "thread-gone"; thread: string }
  | { type: "reset"; reason: string }
);

/** Any event of a stream of the server that says what happens, as far as reading it needs. */
export interface FeedEvent {
  type: string;
  [field: string]: unknown;
}
