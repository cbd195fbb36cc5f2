// @ag-ui/client's HttpAgent against a server. usage: node ag_ui.mjs URL CASE PROMPT
import { readFileSync } from "node:fs"
import { HttpAgent, buildResumeArray } from "@ag-ui/client"

const [url, wanted, prompt] = process.argv.slice(2)
const warnings = []
for (const level of ["warn", "error"]) console[level] = (...words) => warnings.push(words.join(" "))

const options = { url: `${url}/ag-ui`, threadId: `thread-${Date.now()}` }
if (wanted === "bytes") {
  const told = JSON.parse(readFileSync(prompt, "utf8")).bytes["ag-ui"]
  options.fetch = async () => new Response(told, { headers: { "content-type": "text/event-stream" } })
}
const agent = new HttpAgent(options)
const seen = []
const errors = []
const watcher = {
  onEvent: ({ event }) => void seen.push(event.type),
  onRunFailed: ({ error }) => void errors.push(String(error.message)),
  onRunErrorEvent: ({ event }) => void errors.push(event.message),
}
agent.addMessage({ id: "u1", role: "user", content: prompt })

async function run(parameters = {}) {
  try {
    return await agent.runAgent(parameters, watcher)
  } catch (error) {
    errors.push(String(error.message ?? error))
  }
}

const cases = {
  async plain() {
    await run()
  },
  async bytes() {
    await run()
  },
  async two_turns() {
    await run()
    agent.addMessage({ id: "u2", role: "user", content: "scenario:tool" })
    await run()
  },
  async approval(approved = true) {
    await run()
    const open = agent.pendingInterrupts
    if (!open.length) throw new Error("no interrupt")
    const payload = { approved, ...(approved ? {} : { reason: "not today" }) }
    const answers = Object.fromEntries(open.map((i) => [i.id, { status: "resolved", payload }]))
    await run({ resume: buildResumeArray(open, answers) })
  },
  async denial() {
    await cases.approval(false)
  },
  async late() {
    await run()
    const open = agent.pendingInterrupts
    const answers = Object.fromEntries(open.map((i) => [i.id, { status: "resolved", payload: { approved: true } }]))
    const { runs } = await (await fetch(`${url}/v1/threads/${agent.threadId}`)).json()
    await fetch(`${url}/v1/runs/${runs[0].id}/cancel`, { method: "POST" })
    await run({ resume: buildResumeArray(open, answers) })
  },
  async client_tool() {
    const tools = [
      { name: "locate", description: "Where the person is", parameters: { type: "object", properties: {} } },
    ]
    await run({ tools })
    const call = agent.messages.flatMap((m) => m.toolCalls ?? []).find((c) => c.function.name === "locate")
    agent.addMessage({ id: "t1", role: "tool", toolCallId: call.id, content: '{"city":"Lyon"}' })
    await run({ tools })
  },
}
await cases[wanted]()
console.log(JSON.stringify({ messages: agent.messages, seen, errors, warnings, thread: agent.threadId }))
