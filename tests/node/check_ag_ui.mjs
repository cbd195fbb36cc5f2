// @ag-ui/client's own verifier and reducer over many streams. usage: node check_ag_ui.mjs FILE
// FILE: [{seed, bytes, rest}]: a run's bytes, and what one hears who comes back in it.
import { readFileSync } from "node:fs"
import { HttpAgent } from "@ag-ui/client"

const warnings = []
for (const level of ["warn", "error"]) console[level] = (...words) => warnings.push(words.join(" "))
const wrong = []
let checked = 0
for (const { seed, bytes, rest } of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  for (const told of [bytes, rest]) {
    if (!told) continue
    checked++
    warnings.length = 0
    const agent = new HttpAgent({
      url: "http://unused",
      threadId: "thread-1",
      fetch: async () => new Response(told, { headers: { "content-type": "text/event-stream" } }),
    })
    agent.addMessage({ id: "u1", role: "user", content: "Hi" })
    let failed
    let saidError
    try {
      await agent.runAgent({}, { onRunErrorEvent: ({ event }) => void (saidError = event.message) })
    } catch (error) {
      failed = String(error.message ?? error)
    }
    if (failed !== undefined && saidError === undefined) wrong.push({ seed, failed })
    if (warnings.length) wrong.push({ seed, warnings: warnings.slice(0, 2) })
  }
}
console.log(JSON.stringify({ checked, count: wrong.length, wrong: wrong.slice(0, 5) }))
process.exit(0)
