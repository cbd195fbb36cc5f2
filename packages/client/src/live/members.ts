/* The members of a conversation, and invitations to it.

Always true: a change that is sent again after its answer was lost is the same change; a removal that
finds nobody the second time has taken place. */

import { threadPath, type TokenwireClient } from "../core/client.js";
import { asError, TokenwireError } from "../core/errors.js";
import { again } from "../core/http.js";
import type { MemberRole } from "./events.js";

export interface Member {
  principal: string;
  role: MemberRole;
  /** Unix seconds; 0 from the beginning. */
  since: number;
}

export interface MemberList {
  /** What its reader calls it. */
  thread: string;
  /** By which every member reaches it, once it is shared. */
  id?: string;
  /** The reader's own. */
  role: MemberRole;
  principal?: string;
  members: Member[];
}

export interface Invite {
  /** Its name, to revoke it. */
  invite: string;
  /** What it gives. */
  role: MemberRole;
  /** What admits; said when it is made only. */
  token?: string;
  thread?: string;
  /** Seconds. */
  expires_in: number;
  /** How many people may still accept it. */
  uses: number;
  by?: string;
}

export interface InviteRequest {
  role?: "read" | "write" | "approve";
  /** Seconds; seven days unless told. */
  ttl?: number;
  /** How many people may accept it: one, unless told. */
  uses?: number;
}

type Json = Pick<TokenwireClient, "json">;

/** Opens the conversation of an invitation to the caller. */
export function acceptInvite(client: Json, token: string): Promise<MemberList> {
  return again(() => client.json("POST", "/v1/invites/accept", { token })) as Promise<MemberList>;
}

/** `forbidden` says that the caller's role is not enough, `conflict` that the last owner stays. */
export class Members {
  constructor(
    readonly client: Json,
    readonly thread: string,
  ) {}

  list(signal?: AbortSignal): Promise<MemberList> {
    return again(() => this.#json("GET", "/members", undefined, signal), signal) as Promise<MemberList>;
  }

  /** Adds somebody, or changes what they may do. */
  put(principal: string, role: MemberRole): Promise<MemberList> {
    const path = `/members/${partOf(principal)}`;
    return again(() => this.#json("PUT", path, { role })) as Promise<MemberList>;
  }

  remove(principal: string): Promise<void> {
    return this.#remove(`/members/${partOf(principal)}`);
  }

  /** The caller belongs to it no more. */
  async leave(): Promise<void> {
    const { principal = "" } = await this.list();
    await this.remove(principal);
  }

  /** Sent again after its answer was lost, it is another one. */
  invite(invite: InviteRequest = {}): Promise<Invite> {
    return again(() => this.#json("POST", "/invites", invite)) as Promise<Invite>;
  }

  /** The open ones, without their tokens. */
  async invites(signal?: AbortSignal): Promise<Invite[]> {
    const page = await again(() => this.#json("GET", "/invites", undefined, signal), signal);
    return (page as { invites: Invite[] }).invites;
  }

  /** Who has joined stays. */
  revoke(invite: string): Promise<void> {
    return this.#remove(`/invites/${partOf(invite)}`);
  }

  #remove(path: string): Promise<void> {
    let isLost = false;
    return again(async () => {
      try {
        await this.#json("DELETE", path);
      } catch (error) {
        if (isLost && asError(error).status === 404) return;
        isLost = true;
        throw error;
      }
    });
  }

  #json(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<unknown> {
    return this.client.json(method, threadPath(this.thread) + path, body, signal);
  }
}

function partOf(name: string): string {
  if (name.trim() && !/^\.\.?$/.test(name)) return encodeURIComponent(name);
  throw new TokenwireError("bad_request", "expected a name");
}
