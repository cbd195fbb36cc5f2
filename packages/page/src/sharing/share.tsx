/* The people of a conversation: who may do what, links that invite others, and leaving. */

import type { TokenwireClient, TokenwireError } from "@tokenwire/client";
import { useCallback, useEffect, useId, useRef, useState, type ReactNode } from "react";
import { plainWords } from "../conversation/words.js";
import { CopyButton } from "../copy.js";
import { Icon } from "../icons.js";
import { inviteLink, invitesPath, membersPath, type Invite, type Members, type NewInvite, type Role } from "./members.js";

const ROLES: [Role, string][] = [
  ["read", "may read"],
  ["write", "may read and write"],
  ["approve", "may also allow tools"],
  ["own", "may also manage people"],
];

export function Share(props: {
  client: TokenwireClient;
  thread: string;
  members: Members;
  /** Who has the conversation open. */
  present: string[];
  onClose(): void;
  /** This person is no member any more. */
  onLeft(): void;
}): ReactNode {
  const { client, thread, members, onClose, onLeft } = props;
  const { list } = members;
  const dialog = useRef<HTMLDialogElement>(null);
  const [invites, setInvites] = useState<Invite[]>([]);
  const [made, setMade] = useState<NewInvite>();
  const [role, setRole] = useState<Role>("write");
  const [problem, setProblem] = useState("");
  const [isBusy, setBusy] = useState(false);
  const title = useId();
  const isOwner = list?.role === "own";
  const owners = list?.members.filter((member) => member.role === "own").length ?? 0;

  useEffect(() => {
    const element = dialog.current;
    if (!element?.open) element?.showModal();
  }, []);
  const readInvites = useCallback(async () => {
    const told = (await client.json("GET", invitesPath(thread))) as { invites: Invite[] };
    setInvites(told.invites);
  }, [client, thread]);
  // Whoever joined has used one up.
  const count = list?.members.length;
  useEffect(() => {
    if (isOwner) readInvites().catch(() => undefined);
  }, [isOwner, count, readInvites]);
  const isOpen = made && invites.some(({ invite }) => invite === made.invite);

  const act = async (work: () => Promise<unknown>) => {
    setProblem("");
    setBusy(true);
    try {
      await work();
    } catch (error) {
      setProblem(plainWords(error as TokenwireError));
    } finally {
      setBusy(false);
      members.refresh();
    }
  };
  const change = (principal: string, to: Role) =>
    act(() => client.json("PUT", membersPath(thread, principal), { role: to }));
  const remove = (principal: string) =>
    act(async () => {
      await client.json("DELETE", membersPath(thread, principal));
      if (principal === list?.principal) onLeft();
    });
  const invite = () =>
    act(async () => {
      setMade((await client.json("POST", invitesPath(thread), { role })) as NewInvite);
      await readInvites();
    });
  const revoke = (name: string) =>
    act(async () => {
      await client.json("DELETE", invitesPath(thread, name));
      if (made?.invite === name) setMade(undefined);
      await readInvites();
    });

  return (
    <dialog ref={dialog} className="share" aria-labelledby={title} onClose={onClose} onKeyDown={(event) => event.stopPropagation()}>
      <header>
        <h2 id={title}>People in this conversation</h2>
        <button type="button" className="quiet icon" aria-label="Close" onClick={() => dialog.current?.close()}>
          <Icon name="close" />
        </button>
      </header>
      {!list && <p>Nobody can be invited before the first question is asked.</p>}
      {list && !list.principal && <p>This server does not tell people apart, so there is nobody to invite: it needs a key for each person.</p>}
      {list && list.principal && (
        <ul className="members" aria-label="Members">
          {list.members.map((member) => {
            const isSelf = member.principal === list.principal;
            const isLast = member.role === "own" && owners === 1;
            return (
              <li key={member.principal}>
                <span dir="auto">
                  {member.principal}
                  {isSelf && " (you)"}
                  {!isSelf && props.present.includes(member.principal) && <span className="now">here now</span>}
                </span>
                {isOwner && !isLast ? (
                  <select
                    aria-label={`What ${member.principal} may do`}
                    value={member.role}
                    disabled={isBusy}
                    onChange={(event) => void change(member.principal, event.target.value as Role)}
                  >
                    {ROLES.map(([name, words]) => (
                      <option key={name} value={name}>
                        {words}
                      </option>
                    ))}
                  </select>
                ) : (
                  <span className="role">{ROLES.find(([name]) => name === member.role)?.[1]}</span>
                )}
                {(isSelf ? !isLast : isOwner) && (
                  <button type="button" disabled={isBusy} aria-label={isSelf ? "Leave this conversation" : `Remove ${member.principal}`} onClick={() => void remove(member.principal)}>
                    {isSelf ? "Leave" : "Remove"}
                  </button>
                )}
              </li>
            );
          })}
        </ul>
      )}
      {isOwner && list.principal && (
        <section aria-label="Invite">
          <div className="invite">
            <label>
              Who opens the link{" "}
              <select value={role} onChange={(event) => setRole(event.target.value as Role)}>
                {ROLES.slice(0, 3).map(([name, words]) => (
                  <option key={name} value={name}>
                    {words}
                  </option>
                ))}
              </select>
            </label>
            <button type="button" className="primary" disabled={isBusy} onClick={() => void invite()}>
              Create a link
            </button>
          </div>
          {made && isOpen && (
            <div className="link" role="status">
              <input readOnly aria-label="The invitation's link" value={inviteLink(location.href, made.token)} onFocus={(event) => event.target.select()} />
              <CopyButton text={inviteLink(location.href, made.token)} label="Copy the link" />
              <p className="quiet-note">It admits one person, within {days(made.expires_in)}. It is shown this once.</p>
            </div>
          )}
          {invites.length > 0 && (
            <ul className="members" aria-label="Open invitations">
              {invites.map((one) => (
                <li key={one.invite}>
                  <span>Open link</span>
                  <span className="role">
                    {ROLES.find(([name]) => name === one.role)?.[1]}, {days(one.expires_in)} left
                  </span>
                  <button type="button" disabled={isBusy} aria-label={`Revoke the link of ${days(one.expires_in)}`} onClick={() => void revoke(one.invite)}>
                    Revoke
                  </button>
                </li>
              ))}
            </ul>
          )}
        </section>
      )}
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </dialog>
  );
}

function days(seconds: number): string {
  const [size, unit] = seconds >= 86_400 ? [86_400, "day"] : seconds >= 3600 ? [3600, "hour"] : [60, "minute"];
  const count = Math.max(1, Math.round(seconds / Number(size)));
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}
