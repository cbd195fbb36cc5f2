/* A conversation that the server keeps: its runs are its turns, and what waits is its queue.

Always true: what is shown is made from the server's runs, queue and head, so a reload, another tab
or another machine shows the same; only what is new is sent, once, and until the server has it; a
question is on the screen before any answer comes; asking again (retry, regenerate, edit) makes a
new branch and never changes an old one. */

import { randomId, type RunInfo, type ThreadInfo, type TokenwireClient } from "../core/client.js";
import { asError, TokenwireError } from "../core/errors.js";
import { requestOf, sendTurn, UnsentQuestions, type Place, type UnsentPlace, type UnsentQuestion } from "./asking.js";
import { historyOf, type Message } from "./history.js";
import { RunMeter } from "./meter.js";
import { aboutOf, newTurn, readEnded, turnOf, type ListedRun } from "./listed.js";
import { PageTools, type ClientTool } from "./page-tools.js";
import { Questions } from "./questions.js";
import { hasBegun, ThreadRequests, type QueuedTurn, type SentTurn, type TurnRequest } from "./thread.js";
import { EARLIER, TurnTree } from "./tree.js";
import {
  type AskOptions,
  type ConversationOptions,
  type ConversationView,
  isBusy,
  type Turn,
  type WaitingQuestion,
} from "./turn.js";
import { LOOK_MS, Looks, WaitingTurns, type WholeQuestion } from "./turn-queue.js";
import { StoppableRun } from "../core/stop.js";
import { onReturn } from "../core/wait.js";

export { historyOf, isBusy, RunMeter, StoppableRun };
export type { AskOptions, ClientTool, ConversationOptions, ConversationView, Message, Turn, WaitingQuestion };
export type { UnsentPlace, UnsentQuestion, WholeQuestion };

const UNSENT = "Stopped before the question reached the server.";
const ENDED = ["complete", "incomplete", "cancelled", "error", "interrupted"];

/** What is added by the server's list of a conversation. */
type Listed = ThreadInfo & { head?: string; queue?: QueuedTurn[] };

export class Conversation {
  readonly thread: string;
  model: string | undefined;
  /** Whether somebody calls `refresh` when something happens: then no clock does. */
  isTold = false;
  #requests: ThreadRequests;
  #tree = new TurnTree();
  #questions: Questions;
  #waiting: WaitingTurns;
  #listeners = new Set<() => void>();
  #view: ConversationView;
  #life = new AbortController();
  #channel: BroadcastChannel | undefined;
  /** The server's head as it was read last; one that was chosen here, until the server has it. */
  #head: string | undefined;
  #choice: string | undefined;
  /** Where the next page begins; empty at the first turn. */
  #next: string | undefined;
  #loading: Promise<void> | undefined;
  #refreshing: { work: Promise<void>; next?: Promise<void> } | undefined;
  #looks = new Looks();
  /** Questions reach the server in the order in which they were asked. */
  #order: Promise<unknown> = Promise.resolve();
  /** Turns that were started here or may be stopped from here. */
  #stoppable = new WeakMap<Turn, StoppableRun>();
  /** Turns whose start has no answer yet, by its key. */
  #asked = new Map<string, Turn>();
  #unsent: UnsentQuestions;
  #places = new WeakMap<Turn, Place>();
  #tools: PageTools;

  constructor(
    readonly client: TokenwireClient,
    readonly options: ConversationOptions = {},
  ) {
    this.#tools = new PageTools(client, (error) => this.#show({ error }));
    this.thread = options.thread ?? randomId();
    this.model = options.model;
    this.#unsent = new UnsentQuestions(this.thread);
    this.#requests = new ThreadRequests(client, this.thread);
    this.#questions = new Questions(client, this.#requests, this.#tree);
    this.#waiting = new WaitingTurns(this.#requests, () => this.#changed());
    this.#view = { thread: this.thread, turns: [], queue: [], loading: !!options.thread, earlier: false };
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  getSnapshot = (): ConversationView => this.#view;

  /** Starts to listen: reads the thread, and hears of runs that other tabs start. */
  open(): () => void {
    const life = (this.#life = new AbortController());
    if (typeof BroadcastChannel === "function") {
      this.#channel = new BroadcastChannel(`tokenwire:thread:${this.thread}`);
      this.#channel.onmessage = () => void this.refresh();
    }
    if (this.options.thread || this.#tree.size) void this.refresh();
    // Runs that were started elsewhere: on another machine, or while this page slept.
    const look = () => {
      if ((this.#tree.size || this.#waiting.size) && !globalThis.document?.hidden) void this.refresh();
    };
    const forget = onReturn(look);
    const timer = setInterval(() => this.isTold || look(), LOOK_MS);
    return () => {
      forget();
      clearInterval(timer);
      this.#looks.end();
      life.abort();
      this.#channel?.close();
      this.#channel = undefined;
    };
  }

  /** Reads runs, queue and head of the thread, and follows runs that are new here. What was asked
   * for while it reads is read after that. */
  refresh(): Promise<void> {
    const under = this.#refreshing;
    if (under) return (under.next ??= under.work.then(() => this.refresh()));
    const work = this.#refresh().finally(() => (this.#refreshing = undefined));
    this.#refreshing = { work };
    return work;
  }

  async #refresh(): Promise<void> {
    const { signal } = this.#life;
    try {
      const before = this.#waiting.changes;
      const { runs, next, head, queue } = (await this.client.thread(this.thread, { signal })) as Listed;
      // Where the pages begin that were not read; a first page of later times changes nothing.
      if (this.#next === undefined) this.#next = next ?? "";
      await this.#adoptAll(runs, signal);
      // What was changed here meanwhile is newer than what was read.
      if (before === this.#waiting.changes) this.#waiting.read(queue, (run) => !!this.#tree.ofRun(run));
      else this.#lookSoon();
      this.#takeHead(head);
      await this.#questions.read(signal);
      this.#show({ loading: false, earlier: !!this.#next, isGone: false });
    } catch (error) {
      if (signal.aborted) return;
      const failed = asError(error);
      if (failed.status === 404 && this.#tree.all().some(({ run }) => run)) return this.#show({ isGone: true });
      // A thread without runs is one that nobody has asked in yet; and what is shown stays.
      const quiet = failed.status === 404 || this.#tree.size > 0;
      this.#show(quiet ? { loading: false } : { loading: false, error: failed });
    }
  }

  /** The head of another device is shown; what was chosen here is not taken back by an older one. */
  #takeHead(head: string | undefined): void {
    if (head === undefined || head === this.#head || this.#choice) return;
    const turn = this.#tree.ofRun(head);
    if (!turn) return;
    this.#head = head;
    this.#tree.chooseHead(turn);
  }

  /** Reads the page of turns before those that are there. Rejects when it cannot be read. */
  loadEarlier(): Promise<void> {
    this.#loading ??= this.#loadEarlier().finally(() => (this.#loading = undefined));
    return this.#loading;
  }

  async #loadEarlier(): Promise<void> {
    if (!this.#next) return;
    const { signal } = this.#life;
    const first = this.#view.turns[0];
    const before = this.#next;
    const { runs, next } = await this.client.thread(this.thread, { signal, before });
    this.#next = next ?? "";
    for (const turn of this.#tree.all()) {
      // Of a client without branches: it asked after what was there.
      if (turn.parent === EARLIER) turn.parent = this.#tree.idOf(runs[0]?.id);
    }
    await this.#adoptAll(runs, signal);
    await this.#questions.read(signal);
    // What is shown stays the chosen branch.
    if (first) for (const turn of this.#tree.path(first)) this.#tree.choose(turn);
    this.#show({ earlier: !!this.#next });
  }

  async #adoptAll(runs: RunInfo[], signal: AbortSignal): Promise<void> {
    const oldest = this.#next ? EARLIER : "";
    await Promise.all(
      // They come newest first.
      runs.map((run, at) => this.#adopt(run, runs[at + 1]?.id ?? oldest, signal)),
    );
    // A child may have been read before its parent.
    for (const turn of this.#tree.all()) turn.parent = this.#tree.idOf(turn.parent);
  }

  send(prompt: string, options: AskOptions = {}): Turn {
    const last = this.#view.turns.at(-1);
    if ("after" in options && options.after !== last) {
      const run = this.#tree.path(options.after).findLast((turn) => turn.run)?.run;
      return this.#ask(prompt, options, { under: options.after, where: { parent: run ?? "" } });
    }
    return this.#ask(prompt, options, { floats: true, where: this.#choice ? { parent: this.#choice } : {} });
  }

  /** Asks the same again, beside the answer that is there. A start that failed is only sent
   * again. */
  retry(turn: Turn, options: Pick<AskOptions, "request"> = {}): Turn {
    const asked = { ...options, content: turn.content };
    if (turn.run) return this.#ask(turn.prompt, asked, { ...this.#besides(turn), isAgain: true });
    const place = this.#places.get(turn) ?? { floats: true, where: {} };
    this.#tree.drop(turn);
    return this.#ask(turn.prompt, asked, place, turn.model === this.model ? turn.key : undefined);
  }

  /** Asks another question in place of this one. Its files stay, unless `content` says
   * otherwise. */
  edit(turn: Turn, prompt: string, options: Omit<AskOptions, "after"> = {}): Turn {
    const files = turn.content?.filter(({ type }) => type !== "text");
    const content = files?.length ? [{ type: "text", text: prompt }, ...files] : undefined;
    if (turn.run) return this.#ask(prompt, { content, ...options }, this.#besides(turn));
    const place = this.#places.get(turn) ?? { floats: true, where: {} };
    this.#tree.drop(turn);
    return this.#ask(prompt, { content, ...options }, place);
  }

  /** Keeps questions that are not sent yet in this place, and sends those that an earlier page left
   * there. */
  keepUnsent(place: UnsentPlace): void {
    for (const { request, created, ...left } of this.#unsent.keepIn(place)) {
      const turn = newTurn(left.prompt, { parent: "", content: undefined, model: undefined, ...left });
      this.#put(Object.assign(turn, { created, isUnsent: true }), { floats: true, where: {} }, {}, request);
    }
  }

  #besides(turn: Turn): Place {
    const under = this.#tree.get(turn.parent);
    return { under, where: { replaces: turn.run! }, ...(turn.isWhole ? { whole: turn } : {}) };
  }

  /** Stops the turn's run, also one that has no id yet, as soon as the server can be reached. Never
   * rejects: `turn.stopping` and `turn.stopError` tell. */
  async stop(turn: Turn): Promise<void> {
    const { run } = turn;
    const known = this.#stoppable.get(turn);
    if (turn.stopping || (!run && !known)) return;
    const stoppable = known ?? StoppableRun.of(this.client, run!);
    this.#stoppable.set(turn, stoppable);
    if (!run) this.#unsent.drop(turn.key); // no later page sends it
    turn.stopping = "pending";
    delete turn.stopError;
    this.#show();
    try {
      await stoppable.stop();
      turn.stopping = "accepted";
    } catch (error) {
      delete turn.stopping;
      turn.stopError = asError(error);
    }
    this.#show();
  }

  /** All answers and edits beside this turn, oldest first. */
  versions = (turn: Turn): Turn[] => this.#tree.versions(turn);

  /** Every turn of every branch, oldest first. */
  all = (): Turn[] => this.#tree.all();

  /** Shows the branch of this turn, on every device; on this one alone where the server cannot be
   * reached, or does not allow it. */
  choose(turn: Turn): void {
    this.#tree.choose(turn);
    this.#waiting.changes++;
    this.#show();
    const { run } = this.#tree.leaf(turn);
    if (!run) return;
    this.#choice = run;
    void this.#requests.setHead(run).then(
      () => {
        if (this.#choice !== run) return;
        this.#choice = undefined;
        this.#head = run;
        this.#waiting.changes++;
        this.#channel?.postMessage("head");
      },
      () => undefined, // the next question says where it belongs
    );
  }

  // --- what waits -------------------------------------------------------------------------------

  /** All that a turn asks that waits. */
  waitingQuestion(waiting: WaitingQuestion): Promise<WholeQuestion> {
    const { unsent } = waiting;
    if (!unsent) return this.#waiting.whole(waiting.id);
    const { prompt, content } = unsent;
    return Promise.resolve({ prompt, ...(content ? { content } : {}) });
  }

  /** Asks something else in the place of a turn that waits; its files stay, unless `content` says
   * otherwise. This and the next two reject with the server's reason. */
  editWaiting({ id }: WaitingQuestion, prompt: string, content?: Record<string, unknown>[]): Promise<void> {
    return this.#waiting.edit(id, prompt, content);
  }

  /** It will not be answered. */
  withdraw({ id, unsent }: WaitingQuestion): Promise<void> {
    return unsent ? this.stop(unsent) : this.#waiting.withdraw(id);
  }

  /** Stops the answer under way, and answers this turn. */
  sendNow({ id }: WaitingQuestion): Promise<void> {
    return this.#waiting.sendNow(id);
  }

  #changed(): void {
    this.#channel?.postMessage("queue");
    this.#show();
    this.#lookSoon();
  }

  #lookSoon(): void {
    if (!this.#life.signal.aborted) this.#looks.soon(this.#waiting.view[0]?.id, () => void this.refresh());
  }

  // --- asking -----------------------------------------------------------------------------------

  #ask(prompt: string, asked: AskOptions, place: Place, key = randomId()): Turn {
    const turn = newTurn(prompt, { parent: place.under?.id ?? "", key, content: asked.content, model: this.model });
    return this.#put(turn, place, asked.request ?? {});
  }

  /** `body`: the whole request, where it was made before. */
  #put(turn: Turn, place: Place, request: Record<string, unknown>, body?: TurnRequest): Turn {
    turn.store.setLink("connecting");
    this.#watch(turn);
    this.#places.set(turn, place);
    this.#asked.set(turn.key, turn);
    const isBusyHere = this.#waiting.size > 0 || this.#view.turns.some(isBusy);
    if (this.options.whileBusy === "queue" && isBusyHere) this.#waiting.hold(turn);
    else {
      if (place.floats) turn.floats = true;
      this.#tree.add(turn);
      if (!place.floats) this.#tree.choose(turn);
    }
    this.#show();
    void this.#begin(turn, place, request, body);
    return turn;
  }

  /** Measures the turn, and runs what it asks this page for. */
  #watch(turn: Turn): void {
    turn.store.onBatch = (batch) => turn.meter.take(batch);
    turn.store.subscribe(() => {
      turn.meter.noteCuts(turn.store.getSnapshot().reconnects);
      // The next one is about to begin; or this person does not belong here any more.
      const isRefused = turn.run !== undefined && turn.store.getSnapshot().linkError?.status === 404;
      if ((this.#waiting.isPending && !isBusy(turn)) || (isRefused && !this.#view.isGone)) this.#lookSoon();
      const { tools } = this.options;
      if (tools && turn.run && !this.#life.signal.aborted) {
        this.#tools.look(turn.run, turn.store, tools, this.#life.signal);
      }
    });
  }

  async #begin(turn: Turn, place: Place, request: Record<string, unknown>, body?: TurnRequest): Promise<void> {
    let sent: SentTurn | undefined;
    const { client, options, thread, model } = this;
    const prepare = async () => {
      const before = place.whole && this.#tree.get(place.whole.parent)?.run;
      body ??= await requestOf(turn, place, { client, options, thread, model, request, before });
      if (!stoppable.isStopRequested) this.#unsent.add(turn, body);
      return body;
    };
    const start = async (giveUp?: AbortSignal) => {
      const made = await prepare();
      const offline = () => {
        turn.isUnsent = true;
        this.#show();
      };
      sent = await sendTurn(client, made, { key: turn.key, giveUp, offline, holds: !!options.holdsUnsent });
      return sent.id;
    };
    const stoppable = new StoppableRun({ cancel: (run) => this.#cancel(run) }, {
      find: async () => (await this.#find(turn)) ?? (this.#waiting.isPending ? start() : undefined),
      start: (giveUp) => {
        const started = this.#order.then(() => start(giveUp));
        this.#order = started.catch(() => undefined);
        return started;
      },
    });
    this.#stoppable.set(turn, stoppable);
    if (!place.whole) prepare().catch(() => undefined); // kept at once; `start` says why it fails
    try {
      const run = await this.#unsent.settle(turn.key, stoppable.started);
      this.#asked.delete(turn.key);
      if (sent && !hasBegun(sent)) this.#wait(turn, sent);
      else this.#setRun(turn, run, sent);
      this.#channel?.postMessage("started");
    } catch (error) {
      this.#asked.delete(turn.key);
      this.#fail(turn, asError(error), stoppable.isStopRequested);
    }
    this.#show();
  }

  /** The run that a start began whose answer was lost. */
  async #find(turn: Turn): Promise<string | undefined> {
    try {
      const { runs, queue } = (await this.client.thread(this.thread)) as Listed;
      this.#waiting.read(queue, (run) => !!this.#tree.ofRun(run));
      return runs.find(({ metadata }) => aboutOf({ metadata }).ask === turn.key)?.id;
    } catch (error) {
      if (asError(error).status === 404) return undefined; // nobody has asked here yet
      throw error;
    }
  }

  /** A turn that waits is withdrawn, unless it begins meanwhile. */
  async #cancel(run: string): Promise<unknown> {
    return (await this.#waiting.isWithdrawn(run)) || this.client.cancel(run);
  }

  /** The turn waits: it is shown in the queue, and read anew when it has begun. */
  #wait(turn: Turn, sent: SentTurn): void {
    if (turn.run) return; // it has begun meanwhile
    this.#waiting.release(turn);
    this.#tree.drop(turn);
    this.#lookSoon();
    if (this.#tree.ofRun(sent.id)) return;
    const { id, position, run } = sent;
    const text = turn.prompt.slice(0, 200);
    this.#waiting.add({ id, text, created: turn.created, edits: 0, ...(run ? { steers: run } : {}) }, position);
  }

  #setRun(turn: Turn, run: string, info?: ListedRun): void {
    if (turn.run === run) return;
    const last = this.#view.turns.findLast((one) => one.run);
    if (this.#waiting.holds(turn)) turn.parent = last?.id ?? "";
    this.#waiting.release(turn);
    this.#waiting.changes++;
    delete turn.floats;
    delete turn.isUnsent;
    if (info?.by) turn.by = info.by;
    const isWhole = !!this.#places.get(turn)?.whole;
    if (isWhole) turn.isWhole = true;
    else if (info?.history) turn.parent = this.#tree.idOf(info.history.parent);
    this.#tree.setRun(turn, run);
    for (const one of this.#tree.path(turn)) this.#tree.choose(one);
    this.#head = run;
    this.#choice = undefined;
    if (turn.parent && !this.#tree.get(turn.parent)) this.#lookSoon();
    void turn.store.follow(this.client, run, this.#life.signal);
  }

  #fail(turn: Turn, failed: TokenwireError, isStopped: boolean): void {
    const isHeld = this.#waiting.holds(turn);
    this.#waiting.release(turn);
    delete turn.isUnsent;
    if (isStopped && !failed.status) {
      if (isHeld) return;
      failed = new TokenwireError("cancelled", UNSENT, 0, true);
    }
    if (isHeld || turn.floats) {
      const shown = this.#tree.shown().filter((one) => !one.floats);
      turn.parent = shown.at(-1)?.id ?? "";
      delete turn.floats;
      this.#tree.add(turn);
      this.#tree.choose(turn);
    }
    turn.error = failed;
    turn.store.setLink("failed", failed);
    // What is there is another than what was shown here.
    if (failed.status === 404 || failed.status === 409) void this.refresh();
  }

  // --- runs of others ---------------------------------------------------------------------------

  /** `before`: the run that the thread had before this one. */
  async #adopt(run: ListedRun, before: string, signal: AbortSignal): Promise<void> {
    const known = this.#tree.ofRun(run.id);
    if (known) {
      if (known.store.link === "idle") void known.store.follow(this.client, run.id, signal);
      return;
    }
    const asked = this.#asked.get(aboutOf(run).ask);
    if (asked) return this.#setRun(asked, run.id, run); // its answer comes later, or was lost
    const { turn, isUnread } = turnOf(run, before);
    this.#tree.add(turn);
    this.#watch(turn);
    if (isUnread) this.#questions.add(turn);
    if (ENDED.includes(run.state)) await readEnded(this.client, turn, run.id, signal);
    else void turn.store.follow(this.client, run.id, signal);
  }

  #show(change: Partial<ConversationView> = {}): void {
    const { error: _, ...rest } = this.#view;
    this.#view = { ...rest, turns: this.#tree.shown(), queue: this.#waiting.view, ...change };
    if (this.#waiting.isPending && !this.#view.turns.some(isBusy)) this.#lookSoon();
    for (const listener of [...this.#listeners]) listener();
  }
}
