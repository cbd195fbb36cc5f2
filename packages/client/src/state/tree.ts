/* The turns of a conversation as a tree, and the branch of it that is shown.

Always true: a turn is under the turn that it continues, or where that was not read, at the root; a
turn that is not with the server yet, and only follows what is there, stands at the end. */

import type { Turn } from "./turn.js";

/** The parent of a turn whose parent is on a page that was not read. */
export const EARLIER = "earlier";
/** Chosen under the head: nothing of what follows it. */
const END = "";

export class TurnTree {
  #turns = new Map<string, Turn>();
  /** Turns by their runs. */
  #runs = new Map<string, Turn>();
  /** parent -> the chosen child; the newest where nothing was chosen. */
  #chosen = new Map<string, string>();

  get size(): number {
    return this.#turns.size;
  }

  add(turn: Turn): void {
    this.#turns.set(turn.id, turn);
    if (turn.run) this.#runs.set(turn.run, turn);
  }

  /** A turn has its run. */
  setRun(turn: Turn, run: string): void {
    const other = this.#runs.get(run);
    if (other && other !== turn) this.#turns.delete(other.id);
    turn.run = run;
    this.#turns.set(turn.id, turn);
    this.#runs.set(run, turn);
  }

  drop(turn: Turn): void {
    this.#turns.delete(turn.id);
    if (turn.run) this.#runs.delete(turn.run);
    if (this.#chosen.get(turn.parent) === turn.id) this.#chosen.delete(turn.parent);
  }

  get(id: string): Turn | undefined {
    return this.#turns.get(id);
  }

  ofRun(run: string): Turn | undefined {
    return this.#runs.get(run);
  }

  /** The id of the turn of a run; the run itself where that was not read. */
  idOf(run: string | undefined): string {
    return (run && this.#runs.get(run)?.id) ?? run ?? "";
  }

  /** Every turn of every branch, oldest first. */
  all(): Turn[] {
    return [...this.#turns.values()].sort((a, b) => a.created - b.created);
  }

  /** All answers and edits beside this turn, oldest first. */
  versions(turn: Turn): Turn[] {
    return this.#children(this.#parentOf(turn));
  }

  choose(turn: Turn): void {
    this.#chosen.set(this.#parentOf(turn), turn.id);
  }

  /** Shows the branch that ends with this turn, and nothing that follows it. */
  chooseHead(head: Turn): void {
    for (const turn of this.path(head)) this.choose(turn);
    this.#chosen.set(head.id, END);
  }

  /** The turns from the first to `last`. */
  path(last?: Turn): Turn[] {
    const path: Turn[] = [];
    for (let turn = last; turn && !path.includes(turn); turn = this.#turns.get(turn.parent)) path.unshift(turn);
    return path;
  }

  /** The last turn of the branch through this one. */
  leaf(turn: Turn): Turn {
    return this.#below(turn.id, [turn]).at(-1)!;
  }

  /** From the first question to the newest, along the chosen branch. */
  shown(): Turn[] {
    const shown = this.#below("", []);
    for (const turn of this.all()) {
      if (!turn.floats) continue;
      turn.parent = shown.at(-1)?.id ?? "";
      shown.push(turn);
    }
    return shown;
  }

  #below(parent: string, path: Turn[]): Turn[] {
    for (let from = parent; ; from = path.at(-1)!.id) {
      const children = this.#children(from).filter(({ floats }) => !floats);
      const chosen = this.#chosen.get(from);
      if (chosen === END && from) return path;
      const turn = children.find(({ id }) => id === chosen) ?? children.at(-1);
      if (!turn || path.includes(turn)) return path;
      path.push(turn);
    }
  }

  /** The turn before it; none where the server did not list it: it lists the newest runs. */
  #parentOf({ parent }: Turn): string {
    return this.#turns.has(parent) ? parent : "";
  }

  #children(parent: string): Turn[] {
    return this.all().filter((turn) => this.#parentOf(turn) === parent);
  }
}
