/* Who belongs to a conversation, as the server tells it.

Always true: what is shown is what the server answered last; a change that it refuses is no change. */

import { TokenwireError, type TokenwireClient } from "@tokenwire/client";
import { useCallback, useEffect, useRef, useState } from "react";

export type Role = "read" | "write" | "approve" | "own";

export interface Member {
  principal: string;
  role: Role;
}

export interface Invite {
  invite: string;
  role: Role;
  expires_in: number;
  uses: number;
}

/** An invitation that was just made: the token is told once. */
export interface NewInvite extends Invite {
  token: string;
}

export interface MemberList {
  /** What this person calls the conversation. */
  thread: string;
  /** By which every member reaches it, once it is shared. */
  id?: string;
  /** This person's own. */
  role: Role;
  principal?: string;
  members: Member[];
}

export interface Members {
  list: MemberList | undefined;
  refresh(): void;
}

/** The members of a conversation that the server has; read anew when `version` changes, and by a
 * clock unless somebody tells of changes (`isTold`). */
export function useMembers(client: TokenwireClient, thread: string, version: string, isTold: boolean): Members {
  const [read, setRead] = useState<{ thread: string; list: MemberList | undefined }>();
  const newest = useRef(0);
  const refresh = useCallback(() => {
    const number = ++newest.current;
    const done = (list: MemberList | undefined) => {
      if (number === newest.current) setRead({ thread, list });
    };
    (client.json("GET", membersPath(thread)) as Promise<MemberList>).then(done, (error: unknown) => {
      // A conversation that nobody has asked in yet has no members; nor has one that was left.
      if ((error as TokenwireError).status === 404) done(undefined);
    });
  }, [client, thread]);
  useEffect(() => {
    if (version) refresh();
  }, [refresh, version]);
  const isRead = !!version;
  useEffect(() => {
    if (!isRead || isTold) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) refresh();
    }, LOOK_MS);
    return () => clearInterval(timer);
  }, [refresh, isRead, isTold]);
  return { list: read?.thread === thread ? read.list : undefined, refresh };
}

/** How often it is asked whether somebody else has changed them. */
const LOOK_MS = 5000;

const ORDER: Role[] = ["read", "write", "approve", "own"];

export function permits(list: MemberList | undefined, role: Role): boolean {
  return !list || ORDER.indexOf(list.role) >= ORDER.indexOf(role);
}

/** How somebody is called here. */
export function nameIn(list: MemberList | undefined, principal: string | undefined): string | undefined {
  return principal !== undefined && principal === list?.principal ? "You" : principal;
}

/** Who has the conversation open, other than this person. */
export function presenceOf(names: string[]): string {
  const [first = "", second, ...others] = names;
  if (second === undefined) return `${first} is here`;
  const last = others.length ? `${others.length + 1} others` : second;
  return `${first} and ${last} are here`;
}

export function membersPath(thread: string, principal?: string): string {
  const members = `/v1/threads/${encodeURIComponent(thread)}/members`;
  return principal === undefined ? members : `${members}/${encodeURIComponent(principal)}`;
}

export function invitesPath(thread: string, invite?: string): string {
  const invites = `/v1/threads/${encodeURIComponent(thread)}/invites`;
  return invite === undefined ? invites : `${invites}/${encodeURIComponent(invite)}`;
}

/** The token of an invitation in the page's address. */
export function inviteIn(hash: string): string | undefined {
  const [, token] = /^#join=([\w.~-]{8,2000})$/.exec(hash) ?? [];
  return token;
}

export function inviteLink(address: string, token: string): string {
  const url = new URL(address);
  url.hash = `join=${token}`;
  return url.href;
}
