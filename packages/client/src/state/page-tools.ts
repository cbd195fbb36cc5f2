/* Tools that run in the page: what a run waits for is looked up, run, and answered.

Always true: of all tabs that read the same run, one runs a call at a time, and only while the run
waits for it; the first answer counts. */

import type { TokenwireClient } from "../core/client.js";
import type { PartState, RunState } from "../core/fold.js";
import { asError, type TokenwireError } from "../core/errors.js";
import type { RunStore } from "./store.js";

export interface ClientTool<A = never> {
  description?: string;
  /** JSON Schema of its arguments, or a schema that can tell its JSON Schema (Zod 4 and others).
   * Arguments are not checked against it here. */
  parameters?: unknown;
  /** Its result, or a promise of it; what it throws is told to the model. */
  execute(args: A, about: { call_id: string; signal: AbortSignal }): unknown;
}

export class PageTools {
  /** Calls that run or have their answer, which the run may not have told yet. */
  #taken = new Set<string>();

  constructor(
    readonly client: TokenwireClient,
    readonly onError: (error: TokenwireError) => void,
  ) {}

  /** What a start says of the tools. */
  static told(tools: Record<string, Pick<ClientTool, "description" | "parameters">>) {
    return Object.entries(tools).map(([name, { description = "", parameters }]) => {
      return { name, description, parameters: schemaOf(parameters) };
    });
  }

  /** Runs the calls that the run waits for and that `tools` has. */
  look(run: string, store: RunStore, tools: Record<string, ClientTool>, signal: AbortSignal): void {
    const { state } = store.getSnapshot();
    for (const call of state.waiting) {
      const part = callOf(state, call);
      const name = String(part?.attrs.name ?? "");
      if (!part || !Object.hasOwn(tools, name) || this.#taken.has(call)) continue;
      this.#taken.add(call);
      const answer = async () => {
        // Another tab may have been first; the server knows before this tab's reader does.
        const { waiting } = (await this.client.snapshot(run, signal)) as { waiting?: string[] };
        if (!waiting?.includes(call) || signal.aborted) return;
        await this.#answer(run, call, tools[name]!, part.attrs.arguments, signal);
      };
      void inTurn(`tokenwire:call:${run}:${call}`, answer)
        .catch((error: unknown) => {
          this.#taken.delete(call);
          if (!signal.aborted) this.onError(asError(error));
        })
        .finally(() => signal.aborted && this.#taken.delete(call));
    }
  }

  async #answer(run: string, call_id: string, tool: ClientTool, args: unknown, signal: AbortSignal) {
    let content: unknown;
    try {
      content = (await tool.execute((args ?? {}) as never, { call_id, signal })) ?? null;
    } catch (error) {
      content = { error: error instanceof Error ? error.message : String(error) };
    }
    if (signal.aborted) return; // the page that comes next runs it
    try {
      await this.client.answerTool(run, call_id, content);
    } catch (error) {
      if (asError(error).status !== 409) throw error; // another answer was first
    }
  }
}

/** The call with this id, in any step. */
export function callOf(run: RunState, call: string): PartState | undefined {
  return run.steps
    .flatMap(({ parts }) => parts)
    .findLast(({ kind, attrs }) => kind === "tool-call" && attrs.call_id === call);
}

async function inTurn(name: string, work: () => Promise<void>): Promise<void> {
  const locks = globalThis.navigator?.locks;
  await (locks ? locks.request(name, work) : work());
}

interface Told {
  "~standard"?: { jsonSchema?: { input?: (options: { target: string }) => unknown } };
  toJSONSchema?: () => unknown;
}

/** The JSON Schema that a schema is or tells; any object for none. */
export function schemaOf(schema: unknown): unknown {
  if (schema === undefined || schema === null) return { type: "object", properties: {} };
  const told = schema as Told;
  const input = told["~standard"]?.jsonSchema?.input;
  if (input) return input({ target: "draft-07" });
  if (typeof told.toJSONSchema === "function") return told.toJSONSchema();
  if (told["~standard"]) throw new TypeError("this schema cannot tell its JSON Schema; give that");
  return schema;
}
