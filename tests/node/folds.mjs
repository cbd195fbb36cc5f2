// What the client's fold makes of runs: one run of events a line in, one state a line out.
import { createInterface } from "node:readline"
import { Fold, finishReasonOf, stateOf, textOf, usageOf } from "../../packages/client/dist/index.js"
import { historyOf } from "../../packages/client/dist/state/history.js"

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const fold = new Fold()
  for (const event of JSON.parse(line)) fold.apply(event)
  const run = fold.state
  const tools = [...run.tools.values()].filter(({ started, done, approval_id }) => started || done || approval_id !== undefined)
  const state = {
    state: stateOf(run),
    text: textOf(run),
    finish_reason: finishReasonOf(run) ?? null,
    usage: usageOf(run),
    usage_unknown: run.outcome === undefined ? null : run.usage_unknown,
    waiting: run.waiting,
    history: historyOf(run),
    error: run.error ?? null,
    shared: run.shared ?? null,
    progress: run.progress ?? null,
    budget: run.budget ?? null,
    cancel_requested: run.cancel_requested,
    data: run.data.map(({ name, id, payload }) => ({ name, id: id ?? null, payload })),
    tools: Object.fromEntries(tools.map((t) => [t.call_id, { name: t.name, started: t.started, done: t.done, content: t.content ?? null, error: t.error ?? null, approved: t.approved ?? null }])),
  }
  // (Where a line ends inside of a text, the reader of the output would end it too.)
  process.stdout.write(JSON.stringify(state).replace(/[\u2028\u2029\u0085]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")) + "\n")
}
