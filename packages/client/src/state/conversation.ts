/* A conversation kept on the server: its runs are its turns, its branches are their parents.

Always true: what is shown is made from the server's runs of the thread, so a reload, another tab
or another machine shows the same; a question is on the screen before any answer comes; asking again
(retry, regenerate, edit) makes a new branch and never changes an old one. */

import { randomId, type RunInfo, type StartRequest, type TokenwireClient } from "../core/client.js";
import { asError, TokenwireError } from "../core/errors.js";
import { answeredHistory, historyOf, type Message } from "./history.js";
import { RunMeter } from "./meter.js";
import { PageTools, type ClientTool } from "./page-tools.js";
import { RunStore } from "./store.js";
import {
  type About,
  type AskOptions,
  type ConversationOptions,
  type ConversationView,
  isBusy,
  textIn,
  type Turn,
} from "./turn.js";
import { StoppableRun } from "../core/stop.js";
import type { Delivered } from "../core/reader.js";
import { onReturn } from "../core/wait.js";

export { historyOf, isBusy, RunMeter, StoppableRun };
export type { AskOptions, ClientTool, ConversationOptions, ConversationView, Message, Turn };

/** Longer prompts are read from the run's input: metadata has a bound of 16 KiB. */
const PROMPT_IN_METADATA = 3000;
/** How often a shown conversation is asked whether it has new runs. */
const LOOK_MS = 5000;
/** The parent of a turn whose parent is on a page that was not read. */
const EARLIER = "earlier";
const UNSENT = "Stopped before the question reached the server.";
const ENDED = ["complete", "incomplete", "cancelled", "error", "interrupted"];

export class Conversation {
  readonly thread: string;
  model: string | undefined;
  #turns = new Map<string, Turn>();
  /** Runs by id, to know which are there already. */
  #runs = new Map<string, Turn>();
  /** parent -> the chosen child; the newest where nothing was chosen. */
  #chosen = new Map<string, string>();
  #listeners = new Set<() => void>();
  #view: ConversationView;
  #life = new AbortController();
  #channel: BroadcastChannel | undefined;
  /** The cursor of the page that is read next; empty at the first turn. */
  #next: string | undefined;
  #loading: Promise<void> | undefined;
  /** Turns that were started here or may be stopped from here. */
  #stoppable = new WeakMap<Turn, StoppableRun>();
  /** Turns whose question is read from their run's input. */
  #unread = new Set<Turn>();
  #tools: PageTools;

  constructor(
    readonly client: TokenwireClient,
    readonly options: ConversationOptions = {},
  ) {
    this.#tools = new PageTools(client, (error) => this.#show({ error }));
    this.thread = options.thread ?? randomId();
    this.model = options.model;
    this.#view = { thread: this.thread, turns: [], loading: !!options.thread, earlier: false };
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
    if (this.options.thread || this.#turns.size) void this.refresh();
    // Runs that were started elsewhere: on another machine, or while this page slept.
    const look = () => {
      if (this.#runs.size && !globalThis.document?.hidden) void this.refresh();
    };
    const forget = onReturn(look);
    const timer = setInterval(look, LOOK_MS);
    return () => {
      forget();
      clearInterval(timer);
      life.abort();
      this.#channel?.close();
      this.#channel = undefined;
    };
  }

  /** Reads which runs the thread has, and follows those that are new here. */
  async refresh(): Promise<void> {
    const { signal } = this.#life;
    try {
      const { runs, next } = await this.client.thread(this.thread, { signal });
      // Where the pages begin that were not read; a first page of later times changes nothing.
      if (this.#next === undefined) this.#next = next ?? "";
      await this.#adoptAll(runs, signal);
      this.#show({ loading: false, earlier: !!this.#next });
    } catch (error) {
      if (signal.aborted) return;
      const failed = asError(error);
      // A thread without runs is one that nobody has asked in yet; and what is shown stays.
      const quiet = failed.status === 404 || this.#turns.size > 0;
      this.#show(quiet ? { loading: false } : { loading: false, error: failed });
    }
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
    for (const turn of this.#turns.values()) {
      // Of a client without branches: it asked after what was there.
      if (turn.parent === EARLIER) turn.parent = runs[0]?.id ?? "";
    }
    await this.#adoptAll(runs, signal);
    // What is shown stays the chosen branch.
    if (first?.parent) this.#chosen.set(first.parent, first.id);
    this.#show({ earlier: !!this.#next });
  }

  async #adoptAll(runs: RunInfo[], signal: AbortSignal): Promise<void> {
    const oldest = this.#next ? EARLIER : "";
    await Promise.all(
      // They come newest first.
      runs.map((run, at) => this.#adopt(run, runs[at + 1]?.id ?? oldest, signal)),
    );
    await this.#readQuestions(signal);
  }

  send(prompt: string, options: AskOptions = {}): Turn {
    const turns = this.#view.turns;
    const after = "after" in options ? options.after : turns[turns.length - 1];
    return this.#ask(prompt, after, options);
  }

  /** Asks the same again, beside the answer that is there. A start that failed is only sent
   * again. */
  retry(turn: Turn, options: Pick<AskOptions, "request"> = {}): Turn {
    const parent = this.#turns.get(turn.parent);
    const asked = { ...options, content: turn.content };
    if (turn.run) return this.#ask(turn.prompt, parent, asked);
    this.#drop(turn);
    const key = turn.model === this.model ? turn.key : undefined;
    return this.#ask(turn.prompt, parent, asked, key);
  }

  /** Asks another question in place of this one. Its files stay, unless `content` says
   * otherwise. */
  edit(turn: Turn, prompt: string, options: Omit<AskOptions, "after"> = {}): Turn {
    const files = turn.content?.filter(({ type }) => type !== "text");
    const content = files?.length ? [{ type: "text", text: prompt }, ...files] : undefined;
    return this.#ask(prompt, this.#turns.get(turn.parent), { content, ...options });
  }

  /** Stops the turn's run, also one that has no id yet, as soon as the server can be reached. Never
   * rejects: `turn.stopping` and `turn.stopError` tell. */
  async stop(turn: Turn): Promise<void> {
    const { run } = turn;
    const known = this.#stoppable.get(turn);
    if (turn.stopping || (!run && !known)) return;
    const stoppable = known ?? StoppableRun.of(this.client, run!);
    this.#stoppable.set(turn, stoppable);
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
  versions(turn: Turn): Turn[] {
    return this.#children(this.#parentOf(turn));
  }

  /** Every turn of every branch, oldest first. */
  all(): Turn[] {
    return [...this.#turns.values()].sort((a, b) => a.created - b.created);
  }

  choose(turn: Turn): void {
    this.#chosen.set(this.#parentOf(turn), turn.id);
    this.#show();
  }

  /** The turn before it; none where the server did not list it: it lists the newest runs. */
  #parentOf({ parent }: Turn): string {
    return this.#turns.has(parent) ? parent : "";
  }

  #children(parent: string): Turn[] {
    return this.all().filter((turn) => this.#parentOf(turn) === parent);
  }

  #ask(prompt: string, parent: Turn | undefined, asked: AskOptions, key = randomId()): Turn {
    const { content, request = {} } = asked;
    const turn: Turn = {
      id: `ask-${randomId()}`,
      parent: parent?.id ?? "",
      prompt,
      created: Date.now() / 1000,
      key,
      store: new RunStore(),
      meter: new RunMeter(performance.now()),
      ...(content ? { content } : {}),
      ...(this.model ? { model: this.model } : {}),
    };
    turn.store.setLink("connecting");
    this.#watch(turn);
    this.#chosen.set(turn.parent, turn.id);
    const path = this.#path(parent);
    const said = path.map(({ store }) => answeredHistory(store.getSnapshot().state));
    this.#show();
    const history = async () => {
      // What stands before the first turn that was read is in its run's input.
      const before = await this.#inputOf(path[0]);
      const known = path.flatMap((turn, at) => [
        ...(at === 0 && before ? before : [{ role: "user", content: turn.content ?? turn.prompt }]),
        ...said[at]!,
      ]);
      return [...known, { role: "user", content: content ?? prompt }] as Message[];
    };
    void this.#begin(turn, async () => ({ ...request, messages: await history() }), parent?.run);
    return turn;
  }

  /** Keeps the turn, measures it, and runs what it asks this page for. */
  #watch(turn: Turn): void {
    this.#turns.set(turn.id, turn);
    turn.store.onBatch = (batch) => turn.meter.take(batch);
    turn.store.subscribe(() => {
      turn.meter.noteCuts(turn.store.getSnapshot().reconnects);
      const { tools } = this.options;
      if (tools && turn.run && !this.#life.signal.aborted) {
        this.#tools.look(turn.run, turn.store, tools, this.#life.signal);
      }
    });
  }

  /** The whole input of a turn whose earlier ones were not read; undefined when it is the first. */
  async #inputOf(turn: Turn | undefined): Promise<Message[] | undefined> {
    if (!turn?.run || !this.#next || !turn.parent || this.#turns.has(turn.parent)) return undefined;
    const { input } = (await this.client.snapshot(turn.run)) as { input?: Message[] } & RunInfo;
    return input;
  }

  async #begin(
    turn: Turn,
    ask: () => Promise<Record<string, unknown>>,
    parent?: string,
  ): Promise<void> {
    const { signal } = this.#life;
    const stoppable = new StoppableRun(this.client, {
      find: () => this.#find(turn),
      start: async (giveUp) => {
        const request = this.#request(turn, await ask(), parent);
        return (await this.client.start(request, { key: turn.key, giveUp })).id;
      },
    });
    this.#stoppable.set(turn, stoppable);
    try {
      const run = await stoppable.started;
      const adopted = this.#runs.get(run);
      if (adopted && adopted !== turn) this.#turns.delete(adopted.id);
      turn.run = run;
      this.#runs.set(run, turn);
      this.#channel?.postMessage("started");
      void turn.store.follow(this.client, run, signal);
    } catch (error) {
      const failed = asError(error);
      const unsent = stoppable.isStopRequested && !failed.status;
      turn.error = unsent ? new TokenwireError("cancelled", UNSENT, 0, true) : failed;
      turn.store.setLink("failed", turn.error);
    }
    this.#show();
  }

  /** The run that a start began whose answer was lost. */
  async #find(turn: Turn): Promise<string | undefined> {
    try {
      const { runs } = await this.client.thread(this.thread);
      return runs.find(({ metadata }) => (metadata as About | undefined)?.ask === turn.key)?.id;
    } catch (error) {
      if (asError(error).status === 404) return undefined; // nobody has asked here yet
      throw error;
    }
  }

  #request(turn: Turn, asked: Record<string, unknown>, parent?: string): StartRequest {
    const { request: given, system } = this.options;
    const long = turn.prompt.length > PROMPT_IN_METADATA || !!turn.content;
    const tools = PageTools.told(this.options.tools ?? {});
    return {
      ...given,
      ...(tools.length ? { tools } : {}),
      ...(system ? { system } : {}),
      ...asked,
      thread: this.thread,
      ...(this.model ? { model: this.model } : {}),
      metadata: {
        ...(given?.metadata as object | undefined),
        prompt: turn.prompt.slice(0, PROMPT_IN_METADATA),
        ask: turn.key,
        ...(long ? { long } : {}),
        ...(parent ? { parent } : {}),
      },
    };
  }

  /** `before`: the run that the thread had before this one. */
  async #adopt(run: RunInfo, before: string, signal: AbortSignal): Promise<void> {
    const known = this.#runs.get(run.id);
    if (known) {
      const { link } = known.store.getSnapshot();
      if (link === "idle") void known.store.follow(this.client, run.id, signal);
      return;
    }
    const about = (run.metadata ?? {}) as About;
    const own = typeof about.prompt === "string";
    // A client that knows nothing of branches asked after what was there.
    const parent = typeof about.parent === "string" ? about.parent : own ? "" : before;
    const turn: Turn = {
      id: run.id,
      run: run.id,
      parent: this.#runs.get(parent)?.id ?? parent,
      prompt: typeof about.prompt === "string" ? about.prompt : "",
      created: Number(run.created ?? 0),
      key: "",
      store: new RunStore(),
      meter: new RunMeter(),
      ...(run.model ? { model: run.model } : {}),
    };
    this.#runs.set(run.id, turn);
    this.#watch(turn);
    if (about.long || !own) this.#unread.add(turn);
    if (ENDED.includes(run.state)) await this.#readAll(turn, run.id, signal);
    else void turn.store.follow(this.client, run.id, signal);
  }

  /** An ended run in one request. */
  async #readAll(turn: Turn, run: string, signal: AbortSignal): Promise<void> {
    const path = `/v1/runs/${run}/events?live=no`;
    const { events, closed } = (await this.client.json("GET", path, undefined, signal)) as {
      events: { cursor: string; event: Delivered["event"] }[];
      closed?: boolean;
    };
    if (!closed) {
      // A server that is about to stop gives what it has.
      void turn.store.follow(this.client, run, signal);
      return;
    }
    turn.meter.take(events.map((one) => ({ ...one, json: JSON.stringify(one.event) })));
    turn.store.apply(events.map(({ event }) => event));
    turn.store.setLink("ended");
    turn.store.publish();
  }

  /** Reads the questions that are long or more than text. What a run was asked holds the questions
   * before its own too, so one request reads a whole branch with its files. */
  async #readQuestions(signal: AbortSignal): Promise<void> {
    for (const turn of this.all().reverse()) {
      if (!this.#unread.has(turn)) continue;
      const { input } = (await this.client.snapshot(turn.run!, signal)) as { input?: Message[] } & RunInfo;
      const questions = (input ?? []).filter(({ role }) => role === "user");
      this.#take(turn, questions.pop());
      for (const before of this.#path(turn).slice(0, -1).reverse()) {
        const asked = questions.pop();
        const text = asked && textIn(asked);
        // Another client may have sent another history.
        if (text === undefined || (before.prompt ? !text.startsWith(before.prompt) : text)) break;
        this.#take(before, asked);
      }
    }
  }

  #take(turn: Turn, asked?: Message): void {
    if (!this.#unread.delete(turn) || !asked) return;
    turn.prompt = textIn(asked);
    if (typeof asked.content !== "string" && asked.content.some(({ type }) => type !== "text")) {
      turn.content = asked.content;
    }
  }

  /** The turns from the first to `last`. */
  #path(last?: Turn): Turn[] {
    const path: Turn[] = [];
    for (let turn = last; turn; turn = this.#turns.get(turn.parent)) path.unshift(turn);
    return path;
  }

  #drop(turn: Turn): void {
    this.#turns.delete(turn.id);
    if (this.#chosen.get(turn.parent) === turn.id) this.#chosen.delete(turn.parent);
  }

  #show(change: Partial<ConversationView> = {}): void {
    const turns: Turn[] = [];
    let parent = "";
    for (;;) {
      const children = this.#children(parent);
      const chosen = this.#chosen.get(parent);
      const turn = children.find((child) => child.id === chosen) ?? children[children.length - 1];
      if (!turn || turns.includes(turn)) break;
      turns.push(turn);
      parent = turn.id;
    }
    const { error: _, ...rest } = this.#view;
    this.#view = { ...rest, turns, ...change };
    for (const listener of [...this.#listeners]) listener();
  }
}
