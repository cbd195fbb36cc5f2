/* What waits for a person on the server, and links by which it is decided elsewhere.

Always true: what is read is what waits at that moment; a link's address is said once, when it is
made. */

import { runId, type TokenwireClient } from "../core/client.js";
import { TokenwireError } from "../core/errors.js";
import { again } from "../core/http.js";

/** A question that waits for a person. */
export interface Waiting {
  run: string;
  /** For `client.approve`. */
  approval: string;
  call: string;
  tool: string;
  arguments?: unknown;
  /** Why it is asked, if that is said. */
  reason?: string;
  thread?: string;
  /** What asks. */
  model: string;
  principal?: string;
  /** Unix seconds. */
  since: number;
  expires?: number;
  /** The ids of those who may decide. */
  deciders?: string[];
}

export interface WaitingPage {
  /** What waits longest first. */
  waiting: Waiting[];
  /** Pass as `after` for what follows; `null` at the end. */
  next: string | null;
}

export interface ApprovalLink {
  id: string;
  /** Whoever has it may decide, once. */
  url: string;
  /** Unix seconds. */
  expires: number;
  decision?: "approve" | "deny";
}

export interface WaitingOptions {
  /** Of a page, at most 200. */
  limit?: number;
  after?: string;
  thread?: string;
  tool?: string;
  signal?: AbortSignal;
}

/** A page of what waits for the caller. Rejects with `TokenwireError`, as do the others. */
export function waiting(client: Json, options: WaitingOptions = {}): Promise<WaitingPage> {
  const { signal, ...fields } = options;
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  const path = `/v1/waiting${query.size ? `?${query}` : ""}`;
  return again(() => client.json("GET", path, undefined, signal), signal) as Promise<WaitingPage>;
}

/** A link for a mail or a chat that decides about an approval, once, without a login. `decision`:
 * the only one that it offers; `ttl`: seconds. */
export function approvalLink(
  client: Json,
  run: string,
  approval: string,
  body: { decision?: "approve" | "deny"; ttl?: number } = {},
): Promise<ApprovalLink> {
  const path = linksPath(run, approval);
  return again(() => client.json("POST", path, body)) as Promise<ApprovalLink>;
}

/** Ends all links of an approval. */
export async function revokeLinks(client: Json, run: string, approval: string): Promise<void> {
  const path = linksPath(run, approval);
  await again(() => client.json("DELETE", path));
}

type Json = Pick<TokenwireClient, "json">;

function linksPath(run: string, approval: string): string {
  if (!/^[^/\\?#\s]{1,200}$/.test(approval) || /^\.\.?$/.test(approval)) {
    throw new TokenwireError("bad_request", "invalid approval id");
  }
  return `/v1/runs/${runId(run)}/approvals/${encodeURIComponent(approval)}/links`;
}
