/* A conversation kept on the server: its runs are its turns, its branches are their parents.

Always true: what is shown is made from the server's runs of the thread, so a reload, another tab
or another machine shows the same; a question is on the screen before any answer comes; asking again
(retry, regenerate, edit) makes a new branch and never changes an old one. */

import { randomId, type TokenwireClient } from "./client.js";
import { asError } from "./reader.js";
import type { TokenwireError } from "./errors.js";
import { stateOf } from "./fold.js";
import { historyOf, type Message } from "./history.js";
import { RunMeter } from "./meter.js";
import { RunStore } from "./store.js";
import type { Delivered } from "./reader.js";
import { onReturn } from "./wait.js";

export { historyOf, RunMeter };
export type { Message };

export interface Turn {
  /** Stays the same from the question to the end, and is the run's id after a reload. */
  id: string;
  run?: string;
  parent: string;
  prompt: string;
  model?: string;
  created: number;
  store: RunStore;
  meter: RunMeter;
  /** Why it could not be started. */
  error?: TokenwireError;
  /** Sent with its start: asking again after a lost answer finds the run that was started. */
  key: string;
}

export interface ConversationView {
  thread: string;
  /** From the first question to the newest, along the chosen branch. */
  turns: Turn[];
  loading: boolean;
  /** Why the thread could not be read. */
  error?: TokenwireError;
}

interface RunDescription {
  id: string;
  state: string;
  model?: string;
  created?: number;
  metadata?: { prompt?: unknown; parent?: unknown; long?: unknown };
}

export interface ConversationOptions {
  thread?: string;
  model?: string;
  system?: string;
  /** More fields of every start: temperature, tools, ... */
  request?: Record<string, unknown>;
}

/** Longer prompts are read from the run's input: metadata has a bound of 16 KiB. */
const PROMPT_IN_METADATA = 3000;
/** How often a shown conversation is asked whether it has new runs. */
const LOOK_MS = 5000;
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

  constructor(
    readonly client: TokenwireClient,
    readonly options: ConversationOptions = {},
  ) {
    this.thread = options.thread ?? randomId();
    this.model = options.model;
    this.#view = { thread: this.thread, turns: [], loading: !!options.thread };
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
      const path = `/v1/threads/${encodeURIComponent(this.thread)}`;
      const { runs } = (await this.client.json("GET", path, undefined, signal)) as {
        runs: RunDescription[];
      };
      await Promise.all(runs.map((run) => this.#adopt(run, signal)));
      this.#show({ loading: false });
    } catch (error) {
      if (signal.aborted) return;
      const failed = asError(error);
      // A thread without runs is one that nobody has asked in yet; and what is shown stays.
      const quiet = failed.status === 404 || this.#turns.size > 0;
      this.#show(quiet ? { loading: false } : { loading: false, error: failed });
    }
  }

  send(prompt: string): Turn {
    const turns = this.#view.turns;
    return this.#ask(prompt, turns[turns.length - 1]);
  }

  /** Asks the same again, beside the answer that is there. A start that failed is only sent
   * again. */
  retry(turn: Turn): Turn {
    const parent = this.#turns.get(turn.parent);
    if (turn.run) return this.#ask(turn.prompt, parent);
    this.#drop(turn);
    return this.#ask(turn.prompt, parent, turn.model === this.model ? turn.key : undefined);
  }

  /** Asks another question in place of this one. */
  edit(turn: Turn, prompt: string): Turn {
    return this.#ask(prompt, this.#turns.get(turn.parent));
  }

  async stop(turn: Turn): Promise<void> {
    if (turn.run) await this.client.stop(turn.run);
  }

  /** All answers and edits beside this turn, oldest first. */
  versions(turn: Turn): Turn[] {
    return this.#children(turn.parent);
  }

  choose(turn: Turn): void {
    this.#chosen.set(turn.parent, turn.id);
    this.#show();
  }

  #children(parent: string): Turn[] {
    return [...this.#turns.values()]
      .filter((turn) => turn.parent === parent)
      .sort((a, b) => a.created - b.created);
  }

  #ask(prompt: string, parent?: Turn, key = randomId()): Turn {
    const turn: Turn = {
      id: `ask-${randomId()}`,
      parent: parent?.id ?? "",
      prompt,
      created: Date.now() / 1000,
      key,
      store: new RunStore(),
      meter: new RunMeter(performance.now()),
      ...(this.model ? { model: this.model } : {}),
    };
    turn.store.onBatch = (batch) => turn.meter.take(batch);
    turn.store.setLink("connecting");
    this.#turns.set(turn.id, turn);
    this.#chosen.set(turn.parent, turn.id);
    const messages: Message[] = [
      ...this.#path(parent).flatMap((before) => [
        { role: "user", content: before.prompt },
        ...historyOf(before.store.getSnapshot().state),
      ]),
      { role: "user", content: prompt },
    ];
    this.#show();
    void this.#start(turn, messages, parent?.run);
    return turn;
  }

  async #start(turn: Turn, messages: Message[], parent?: string): Promise<void> {
    const { signal } = this.#life;
    const long = turn.prompt.length > PROMPT_IN_METADATA;
    try {
      const request = {
        ...this.options.request,
        messages,
        thread: this.thread,
        ...(this.model ? { model: this.model } : {}),
        ...(this.options.system ? { system: this.options.system } : {}),
        metadata: {
          prompt: turn.prompt.slice(0, PROMPT_IN_METADATA),
          ...(long ? { long } : {}),
          ...(parent ? { parent } : {}),
        },
      };
      const info = await this.client.start(request, { key: turn.key });
      const adopted = this.#runs.get(info.id);
      if (adopted && adopted !== turn) this.#turns.delete(adopted.id);
      turn.run = info.id;
      this.#runs.set(info.id, turn);
      this.#channel?.postMessage("started");
      void turn.store.follow(this.client, info.id, signal);
    } catch (error) {
      turn.error = asError(error);
      turn.store.setLink("failed", asError(error));
    }
    this.#show();
  }

  async #adopt(run: RunDescription, signal: AbortSignal): Promise<void> {
    const known = this.#runs.get(run.id);
    if (known) {
      const { link } = known.store.getSnapshot();
      if (link === "idle") void known.store.follow(this.client, run.id, signal);
      return;
    }
    const about = run.metadata ?? {};
    const parent = typeof about.parent === "string" ? about.parent : "";
    const turn: Turn = {
      id: run.id,
      run: run.id,
      parent: this.#runs.get(parent)?.id ?? parent,
      prompt: typeof about.prompt === "string" ? about.prompt : "",
      created: run.created ?? 0,
      key: "",
      store: new RunStore(),
      meter: new RunMeter(),
      ...(run.model ? { model: run.model } : {}),
    };
    turn.store.onBatch = (batch) => turn.meter.take(batch);
    this.#runs.set(run.id, turn);
    this.#turns.set(turn.id, turn);
    if (about.long || typeof about.prompt !== "string") {
      turn.prompt = (await this.#inputOf(run.id, signal)) ?? turn.prompt;
    }
    if (ENDED.includes(run.state)) await this.#readAll(turn, run.id, signal);
    else void turn.store.follow(this.client, run.id, signal);
  }

  /** An ended run in one request. */
  async #readAll(turn: Turn, run: string, signal: AbortSignal): Promise<void> {
    const path = `/v1/runs/${run}/events?live=no`;
    const { events } = (await this.client.json("GET", path, undefined, signal)) as {
      events: { cursor: string; event: Delivered["event"] }[];
    };
    turn.meter.take(events.map((one) => ({ ...one, json: JSON.stringify(one.event) })));
    turn.store.apply(events.map(({ event }) => event));
    turn.store.setLink("ended");
    turn.store.publish();
  }

  async #inputOf(run: string, signal: AbortSignal): Promise<string | undefined> {
    const { input } = (await this.client.info(run, signal)) as {
      input?: { role: string; content: unknown }[];
    };
    const asked = input?.findLast((message) => message.role === "user");
    if (typeof asked?.content === "string") return asked.content;
    const parts = Array.isArray(asked?.content) ? (asked.content as { text?: string }[]) : [];
    return parts.map((part) => part.text ?? "").join("");
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

/** Whether an answer is being written or waited for. */
export function isBusy(turn: Turn | undefined): boolean {
  if (!turn || turn.error) return false;
  const { state, link } = turn.store.getSnapshot();
  return link !== "failed" && ["running", "waiting"].includes(stateOf(state));
}
