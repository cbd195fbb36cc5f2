/* What an agent does beside its words: how far it is, its tasks, its state, its facts, who speaks.

Always true: what is given out is the same object until an event touched it. */

import type { Agent, DataState, PartState, RunState } from "@tokenwire/client";
import type { Turn } from "@tokenwire/client/conversation";
import { RunStore } from "@tokenwire/client";
import { useRef, useSyncExternalStore } from "react";

/** A piece of work of an agent: `ctx.step`. */
export interface TaskState {
  step: number;
  name: string;
  /** `stopped`: the run ended, or was stopped, before it was done. */
  status: "running" | "done" | "failed" | "stopped";
  /** 2 and more: it was begun again. */
  attempt: number;
  agent?: Agent;
}

/** Tasks in a row, or parts in a row of one speaker. */
export type Block =
  | { kind: "tasks"; key: string; tasks: TaskState[] }
  | { kind: "parts"; key: string; speaker?: Agent; parts: PartState[] };

/** The answer as it is drawn: the first choice, in order, without what was discarded. A `speaker` is
 * named where several agents speak, and where a subagent does. */
export function blocksOf(run: RunState): Block[] {
  const blocks: Block[] = [];
  const names = new Set<string>();
  for (const step of run.steps) {
    const last = blocks[blocks.length - 1];
    if (step.kind === "task") {
      const task = taskOf(run, step);
      if (last?.kind === "tasks") last.tasks.push(task);
      else blocks.push({ kind: "tasks", key: `tasks-${step.step}`, tasks: [task] });
    }
    for (const part of step.parts) {
      if (part.choice !== 0 || part.status === "discarded") continue;
      const open = blocks[blocks.length - 1];
      const { agent } = part;
      names.add(agent?.id ?? "");
      if (open?.kind === "parts" && open.speaker?.id === agent?.id) open.parts.push(part);
      else {
        const speaker = agent ? { speaker: agent } : {};
        blocks.push({ kind: "parts", key: `part-${part.part}`, ...speaker, parts: [part] });
      }
    }
  }
  for (const block of blocks) {
    // One who speaks alone needs no name.
    if (block.kind === "parts" && names.size < 2 && !block.speaker?.parent) delete block.speaker;
  }
  return blocks;
}

/** All tasks, in the order of their starts. */
export function tasksOf(run: RunState): TaskState[] {
  return run.steps.filter(({ kind }) => kind === "task").map((step) => taskOf(run, step));
}

const STATUS: Record<string, TaskState["status"]> = {
  open: "running",
  complete: "done",
  cancelled: "stopped",
};

function taskOf(run: RunState, step: RunState["steps"][number]): TaskState {
  const { step: number, name = "", attempt, agent } = step;
  const word = STATUS[step.status] ?? "failed";
  const status = word === "running" && run.outcome ? "stopped" : word;
  return { step: number, name, status, attempt, ...(agent ? { agent } : {}) };
}

export interface AgentView<S> {
  /** How far the run is: `fraction` from 0 to 1 where it is known. */
  progress: { fraction?: number; message?: string } | undefined;
  /** What the agent shares with `ctx.state`. */
  state: S | undefined;
  tasks: TaskState[];
  /** What it told with `ctx.data`. */
  data: readonly DataState[];
}

const NOTHING = new RunStore();

/** What the agent of a turn tells beside its words. Draws anew only when that changed, not with
 * every word. `S` and the payloads are what your agent sends: nothing checks them here. */
export function useAgent<S = unknown>(from: Turn | RunStore | undefined): AgentView<S> {
  const store = !from ? NOTHING : "store" in from ? from.store : from;
  const last = useRef<{ run: RunState; view: AgentView<S> }>(undefined);
  const read = () => {
    const run = store.getSnapshot().state;
    const before = last.current;
    if (before?.run === run) return before.view;
    const tasks = tasksOf(run);
    const isSame = before && same(before.view, run) && sameTasks(before.view.tasks, tasks);
    const { progress, shared, data } = run;
    const view = isSame ? before.view : { progress, state: shared as S | undefined, tasks, data };
    last.current = { run, view };
    return view;
  };
  return useSyncExternalStore(store.subscribe, read, read);
}

function same(view: AgentView<unknown>, { progress, shared, data }: RunState): boolean {
  return view.progress === progress && view.state === shared && view.data === data;
}

function sameTasks(before: TaskState[], tasks: TaskState[]): boolean {
  return before.length === tasks.length && before.every((one, at) => {
    const { step, status, attempt } = tasks[at]!;
    return one.step === step && one.status === status && one.attempt === attempt;
  });
}
