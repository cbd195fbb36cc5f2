// Made by scripts/ts_types.py from the Python event model; change it there.
/* The events of a run, and which may follow which. */

export interface Envelope {
  /** Position in the run: 1, 2, 3, ... */
  seq?: number;
  /** Milliseconds since the run started. */
  t?: number;
}

export interface ApprovalAnswerEvent extends Envelope {
  type: "approval-answer";
  approval_id: string;
  call_id: string;
  approved: boolean;
  by?: string;
  reason?: string;
  arguments?: unknown;
}

export interface ApprovalRequestEvent extends Envelope {
  type: "approval-request";
  approval_id: string;
  call_id: string;
  name: string;
  arguments?: unknown;
  reason?: string;
  expires?: number;
}

export interface RunBudgetEvent extends Envelope {
  type: "budget";
  name: string;
  unit: "tokens" | "dollars";
  left: number;
  most: number;
  resets?: number;
}

export interface CheckpointEvent extends Envelope {
  type: "checkpoint";
  upto: number;
  state: Record<string, unknown>;
}

export interface ControlEvent extends Envelope {
  type: "control";
  command: "cancel" | "steer";
  by?: string;
  reason?: string;
  text?: string;
  id?: string;
}

export interface DataEvent extends Envelope {
  type: "data";
  name: string;
  payload?: unknown;
  id?: string;
  transient?: boolean;
}

export interface ErrorEvent extends Envelope {
  type: "error";
  scope: "transport" | "timeout" | "parse" | "provider" | "policy" | "tool" | "internal";
  code: string;
  message: string;
  retryable?: boolean;
  http_status?: number;
  after_output?: boolean;
  which?: string;
  retry_after?: number;
  request_id?: string;
  raw?: unknown;
}

export interface FileDeltaEvent extends Envelope {
  type: "file-delta";
  part: number;
  text: string;
}

export interface FileEndEvent extends Envelope {
  type: "file-end";
  part: number;
  status?: "complete" | "truncated" | "invalid" | "discarded";
  size?: number;
  text?: string;
}

export interface FileStartEvent extends Envelope {
  type: "file-start";
  part: number;
  step?: number;
  choice?: number;
  agent?: { id: string; name?: string; parent?: string };
  meta?: Record<string, unknown>;
  media?: "image" | "audio" | "file";
  media_type?: string;
  name?: string;
  url?: string;
}

export interface FinishEvent extends Envelope {
  type: "finish";
  reason: "stop" | "length" | "tool_calls" | "refusal" | "content_filter" | "pause" | "context_overflow" | "malformed_tool_call" | "error" | "cancelled" | "other";
  raw?: string;
  message?: string;
  details?: Record<string, unknown>;
  choice?: number;
}

export interface HeartbeatEvent extends Envelope {
  type: "heartbeat";
  source?: "provider" | "comment" | "server";
}

export interface OpaqueEndEvent extends Envelope {
  type: "opaque-end";
  part: number;
  status?: "complete" | "truncated" | "invalid" | "discarded";
  size?: number;
  text?: string;
}

export interface OpaqueStartEvent extends Envelope {
  type: "opaque-start";
  part: number;
  step?: number;
  choice?: number;
  agent?: { id: string; name?: string; parent?: string };
  meta?: Record<string, unknown>;
  name?: string;
  payload?: unknown;
}

export interface PartAttrEvent extends Envelope {
  type: "part-attr";
  part: number;
  name: string;
  value?: unknown;
}

export interface PartPatchEvent extends Envelope {
  type: "part-patch";
  part: number;
  path: string;
  value?: unknown;
  open?: boolean;
}

export interface RunProgressEvent extends Envelope {
  type: "progress";
  fraction?: number;
  message?: string;
}

export interface ProviderResultDeltaEvent extends Envelope {
  type: "provider-result-delta";
  part: number;
  text: string;
}

export interface ProviderResultEndEvent extends Envelope {
  type: "provider-result-end";
  part: number;
  status?: "complete" | "truncated" | "invalid" | "discarded";
  size?: number;
  text?: string;
  content?: unknown;
}

export interface ProviderResultStartEvent extends Envelope {
  type: "provider-result-start";
  part: number;
  step?: number;
  choice?: number;
  agent?: { id: string; name?: string; parent?: string };
  meta?: Record<string, unknown>;
  call_id?: string;
  name?: string;
  content?: unknown;
}

export interface RawEvent extends Envelope {
  type: "raw";
  dialect: string;
  event?: string;
  payload?: unknown;
}

export interface ReasoningDeltaEvent extends Envelope {
  type: "reasoning-delta";
  part: number;
  text: string;
}

export interface ReasoningEndEvent extends Envelope {
  type: "reasoning-end";
  part: number;
  status?: "complete" | "truncated" | "invalid" | "discarded";
  size?: number;
  text?: string;
}

export interface ReasoningStartEvent extends Envelope {
  type: "reasoning-start";
  part: number;
  step?: number;
  choice?: number;
  agent?: { id: string; name?: string; parent?: string };
  meta?: Record<string, unknown>;
  summary?: boolean;
}

export interface ReconnectEvent extends Envelope {
  type: "reconnect";
  after_ms?: number;
  reason?: string;
}

export interface RefusalDeltaEvent extends Envelope {
  type: "refusal-delta";
  part: number;
  text: string;
}

export interface RefusalEndEvent extends Envelope {
  type: "refusal-end";
  part: number;
  status?: "complete" | "truncated" | "invalid" | "discarded";
  size?: number;
  text?: string;
}

export interface RefusalStartEvent extends Envelope {
  type: "refusal-start";
  part: number;
  step?: number;
  choice?: number;
  agent?: { id: string; name?: string; parent?: string };
  meta?: Record<string, unknown>;
}

export interface ResponseStartEvent extends Envelope {
  type: "response-start";
  id?: string;
  model?: string;
  request_id?: string;
  resumable?: boolean;
}

export interface RunClaimEvent extends Envelope {
  type: "run-claim";
  epoch: number;
  owner?: string;
  reason?: string;
}

export interface RunEndEvent extends Envelope {
  type: "run-end";
  outcome: "complete" | "incomplete" | "cancelled" | "error" | "interrupted";
  reason?: string;
  usage?: Record<string, number>;
  usage_unknown?: boolean;
  recoverable?: boolean;
}

export interface RunStartEvent extends Envelope {
  type: "run-start";
  run: string;
  time?: number;
  thread?: string;
  model?: string;
  metadata?: Record<string, unknown>;
  history?: { turns: number; policy: string; parent?: string; omitted?: number; summarised?: boolean; summary_error?: string };
}

export interface RunWaitEvent extends Envelope {
  type: "run-wait";
  reason: "approval" | "client_tool";
  pending: string[];
}

export interface SharedStateEvent extends Envelope {
  type: "state";
  snapshot?: unknown;
  patch?: Record<string, unknown>[];
}

export interface StepEndEvent extends Envelope {
  type: "step-end";
  step: number;
  status: "complete" | "incomplete" | "error" | "cancelled";
  terminal_seen?: boolean;
  size?: number;
}

export interface StepResetEvent extends Envelope {
  type: "step-reset";
  step: number;
  attempt: number;
  discard_parts?: number[];
  reason?: string;
}

export interface StepStartEvent extends Envelope {
  type: "step-start";
  step: number;
  attempt?: number;
  provider?: string;
  dialect?: string;
  model?: string;
  kind?: "model" | "task" | "agent";
  name?: string;
  agent?: { id: string; name?: string; parent?: string };
  operation?: number;
}

export interface TextDeltaEvent extends Envelope {
  type: "text-delta";
  part: number;
  text: string;
}

export interface TextEndEvent extends Envelope {
  type: "text-end";
  part: number;
  status?: "complete" | "truncated" | "invalid" | "discarded";
  size?: number;
  text?: string;
}

export interface TextStartEvent extends Envelope {
  type: "text-start";
  part: number;
  step?: number;
  choice?: number;
  agent?: { id: string; name?: string; parent?: string };
  meta?: Record<string, unknown>;
}

export interface ToolCallDeltaEvent extends Envelope {
  type: "tool-call-delta";
  part: number;
  text: string;
}

export interface ToolCallEndEvent extends Envelope {
  type: "tool-call-end";
  part: number;
  status?: "complete" | "truncated" | "invalid" | "discarded";
  size?: number;
  text?: string;
  arguments?: unknown;
  error?: string;
}

export interface ToolCallStartEvent extends Envelope {
  type: "tool-call-start";
  part: number;
  step?: number;
  choice?: number;
  agent?: { id: string; name?: string; parent?: string };
  meta?: Record<string, unknown>;
  name?: string;
  call_id?: string;
  id_source?: "provider" | "synthetic";
  executor?: "server" | "client" | "provider";
  format?: "json" | "text";
}

export interface ToolErrorEvent extends Envelope {
  type: "tool-error";
  call_id: string;
  code: string;
  message: string;
  name?: string;
}

export interface ToolOutputEvent extends Envelope {
  type: "tool-output";
  call_id: string;
  text: string;
}

export interface ToolProgressEvent extends Envelope {
  type: "tool-progress";
  call_id: string;
  fraction?: number;
  message?: string;
}

export interface ToolResultEvent extends Envelope {
  type: "tool-result";
  call_id: string;
  content?: unknown;
  name?: string;
  by?: string;
}

export interface ToolStartEvent extends Envelope {
  type: "tool-start";
  call_id: string;
  name: string;
  step?: number;
  arguments?: unknown;
  idempotent?: boolean;
}

export interface UsageEvent extends Envelope {
  type: "usage";
  input_tokens?: number;
  output_tokens?: number;
  total_tokens?: number;
  cached_input_tokens?: number;
  cache_write_tokens?: number;
  reasoning_tokens?: number;
  mode?: "cumulative" | "increment";
  source?: "provider" | "estimated";
  raw?: Record<string, unknown>;
}

export type RunEvent =
  | ApprovalAnswerEvent
  | ApprovalRequestEvent
  | RunBudgetEvent
  | CheckpointEvent
  | ControlEvent
  | DataEvent
  | ErrorEvent
  | FileDeltaEvent
  | FileEndEvent
  | FileStartEvent
  | FinishEvent
  | HeartbeatEvent
  | OpaqueEndEvent
  | OpaqueStartEvent
  | PartAttrEvent
  | PartPatchEvent
  | RunProgressEvent
  | ProviderResultDeltaEvent
  | ProviderResultEndEvent
  | ProviderResultStartEvent
  | RawEvent
  | ReasoningDeltaEvent
  | ReasoningEndEvent
  | ReasoningStartEvent
  | ReconnectEvent
  | RefusalDeltaEvent
  | RefusalEndEvent
  | RefusalStartEvent
  | ResponseStartEvent
  | RunClaimEvent
  | RunEndEvent
  | RunStartEvent
  | RunWaitEvent
  | SharedStateEvent
  | StepEndEvent
  | StepResetEvent
  | StepStartEvent
  | TextDeltaEvent
  | TextEndEvent
  | TextStartEvent
  | ToolCallDeltaEvent
  | ToolCallEndEvent
  | ToolCallStartEvent
  | ToolErrorEvent
  | ToolOutputEvent
  | ToolProgressEvent
  | ToolResultEvent
  | ToolStartEvent
  | UsageEvent;

/** Told to readers, never stored: they move no cursor. */
export const TRANSIENT: readonly string[] = ["heartbeat", "reconnect"];

/** state -> event type -> next state */
export const ORDER: Record<string, Record<string, string>> = {
  "new": {
    "run-start": "between",
  },
  "between": {
    "step-start": "step",
    "step-end": "between",
    "step-reset": "between",
    "run-wait": "between",
    "usage": "between",
    "run-end": "ended",
    "tool-start": "between",
    "tool-progress": "between",
    "tool-output": "between",
    "tool-result": "between",
    "tool-error": "between",
    "approval-request": "between",
    "approval-answer": "between",
    "error": "between",
    "control": "between",
    "data": "between",
    "state": "between",
    "progress": "between",
    "budget": "between",
    "raw": "between",
    "checkpoint": "between",
    "run-claim": "between",
  },
  "step": {
    "step-start": "step",
    "step-end": "between",
    "step-reset": "between",
    "response-start": "step",
    "usage": "step",
    "finish": "step",
    "text-start": "step",
    "text-delta": "step",
    "text-end": "step",
    "reasoning-start": "step",
    "reasoning-delta": "step",
    "reasoning-end": "step",
    "refusal-start": "step",
    "refusal-delta": "step",
    "refusal-end": "step",
    "tool-call-start": "step",
    "tool-call-delta": "step",
    "tool-call-end": "step",
    "provider-result-start": "step",
    "provider-result-delta": "step",
    "provider-result-end": "step",
    "file-start": "step",
    "file-delta": "step",
    "file-end": "step",
    "opaque-start": "step",
    "opaque-end": "step",
    "part-attr": "step",
    "part-patch": "step",
    "error": "step",
    "control": "step",
    "data": "step",
    "state": "step",
    "progress": "step",
    "budget": "step",
    "raw": "step",
    "checkpoint": "step",
    "run-claim": "step",
  },
  "ended": {
  },
};
