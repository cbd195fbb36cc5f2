/* A conversation that the server keeps: what is asked, what happens in it, who belongs to it.

Always true: `follow` and `store` have each event once and in order, through any cut, and end only
when they are left, or with the error that says why. */

import { threadPath, type TokenwireClient } from "../core/client.js";
import { again } from "../core/http.js";
import type { ThreadEvent } from "../live/events.js";
import { Events, type EventsOptions, feedOf } from "../live/feed.js";
import { Members } from "../live/members.js";
import type { Source } from "../live/shared.js";
import { ThreadStore } from "../live/store.js";
import { ThreadRequests } from "../state/thread.js";

export type * from "../live/events.js";
export { Events } from "../live/feed.js";
export type { EventsOptions } from "../live/feed.js";
export { acceptInvite, Members } from "../live/members.js";
export type { Invite, InviteRequest, Member, MemberList } from "../live/members.js";
export { ThreadStore, UNREAD } from "../live/store.js";
export type { ThreadView } from "../live/view.js";
export { hasBegun } from "../state/thread.js";
export type * from "../state/thread.js";

export interface FollowThreadOptions extends EventsOptions {
  /** With the events of its runs. */
  runs?: boolean;
}

export class Thread extends ThreadRequests {
  /** Who belongs to it, and invitations. */
  readonly members: Members;
  #client: TokenwireClient;

  constructor(client: TokenwireClient, id: string) {
    super(client, id);
    this.#client = client;
    this.members = new Members(client, id);
  }

  /** What happens in it, for `for await`: first a `snapshot`, or what follows the cursor `after`;
   * with `runs` the events of its runs as well. Goes on after any cut, until it is left or `signal`
   * aborts; throws `TokenwireError` when the server says no. All tabs of an origin that read the same
   * share one connection. */
  follow(options: FollowThreadOptions = {}): Events<ThreadEvent> {
    return new Events(this.#feed(options.runs), options);
  }

  /** The same as a view to subscribe to; it is read while somebody does. */
  store(options: { runs?: boolean } = {}): ThreadStore {
    return new ThreadStore(this.#feed(options.runs), () => this.queue());
  }

  /** Whoever follows it hears that this person types, for some seconds. */
  async typing(): Promise<void> {
    await this.json("POST", "/typing", {});
  }

  /** Gives it a title; an empty one gives back the name that it had by itself. */
  async rename(title: string): Promise<void> {
    await again(() => this.json("PUT", "", { title }));
  }

  #feed(runs = false): Source {
    const query: Record<string, string> = runs ? { runs: "full" } : {};
    const socket = { op: "follow-thread", thread: this.id, ...query };
    return feedOf(this.#client, `${threadPath(this.id)}/events`, query, socket);
  }
}
