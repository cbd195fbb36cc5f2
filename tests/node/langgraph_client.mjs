// The JavaScript client of @langchain/langgraph-sdk over a connection that is cut, and its reader at
// every byte. usage: node langgraph_client.mjs URL BYTES; BYTES: a stream as the server sends it, and
// for each count of frames what it sends to a reader that has these; prints one JSON object.
import { readFileSync } from "node:fs"
import { AIMessageChunk } from "@langchain/core/messages"
import { Client } from "@langchain/langgraph-sdk"

const [url, file] = process.argv.slice(2)
const { whole, rest } = JSON.parse(readFileSync(file, "utf8"))
const bytes = new TextEncoder().encode(whole)
const ends = []
for (let at = 0; at < bytes.length - 1; at += 1) if (bytes[at] === 10 && bytes[at + 1] === 10) ends.push(at + 2)

// --- at every byte: a cut connection is an error, and what was read before is a prefix ------------
// A client without a `Location` does not reconnect, so what it has is what these bytes say.
async function read(data, tail) {
  const seen = []
  let broken = false
  const respond = () =>
    new Response(
      new ReadableStream({
        start: (c) => c.enqueue(data),
        async pull(c) {
          await new Promise((go) => setImmediate(go)) // what came before is read before
          if (tail === "cut") c.error(new Error("cut"))
          else c.close()
        },
      }),
      { headers: { "content-type": "text/event-stream" } },
    )
  const client = new Client({ apiUrl: "http://agent.example", apiKey: null, callerOptions: { fetch: async () => respond(), maxRetries: 0 } })
  try {
    for await (const part of client.runs.stream("t", "demo", { input: null })) seen.push(part)
  } catch {
    broken = true
  }
  return { seen, broken }
}
function fold(parts) {
  const messages = {}
  let values
  for (const { event, data } of parts) {
    if (event === "values") values = data
    if (event !== "messages") continue
    const [message] = data
    if (message.type === "remove") delete messages[message.id]
    else {
      const chunk = new AIMessageChunk(message)
      messages[message.id] = messages[message.id]?.concat(chunk) ?? chunk
    }
  }
  return JSON.stringify([Object.entries(messages).map(([id, m]) => [id, m.content, m.tool_calls]), values])
}
const calm = (await read(bytes, "close")).seen
const wrong = []
const counts = new Set()
for (let cut = 0; cut < bytes.length; cut += 1) {
  const { seen, broken } = await read(bytes.slice(0, cut), "cut")
  if (!broken || JSON.stringify(seen) !== JSON.stringify(calm.slice(0, seen.length))) wrong.push(cut)
  counts.add(seen.length)
}
// --- resumed after each frame: the same messages ---------------------------------------------------
for (const [count, text] of Object.entries(rest)) {
  const more = (await read(new TextEncoder().encode(text), "close")).seen
  if (fold([...calm.slice(0, Number(count)), ...more]) !== fold(calm)) wrong.push(`after ${count}`)
}

// --- the client itself, whose connections are cut again and again ----------------------------------
let left = 5
const ids = []
const cutting = async (input, init) => {
  const answer = await fetch(input, init)
  if (!String(input).includes("/stream") || left === 0) return answer
  left -= 1
  ids.push(new Headers(init.headers).get("last-event-id"))
  const reader = answer.body.getReader()
  let most = 3
  const body = new ReadableStream({
    async pull(c) {
      const { value, done } = most-- > 0 ? await reader.read() : {}
      if (value) return c.enqueue(value)
      if (!done) reader.cancel().catch(() => {})
      c.error(new TypeError("network error"))
    },
  })
  return new Response(body, { status: answer.status, headers: answer.headers })
}
globalThis.setTimeout = ((timer) => (go, ms, ...more) => timer(go, Math.min(ms, 20), ...more))(globalThis.setTimeout)
const client = new Client({ apiUrl: `${url}/langgraph`, apiKey: null, callerOptions: { fetch: cutting } })
const { thread_id: thread } = await client.threads.create()
const parts = []
for await (const part of client.runs.stream(thread, "demo", {
  input: { messages: [{ type: "human", content: "scenario:tools?rate=300" }] },
  streamMode: ["values", "messages-tuple"],
  onDisconnect: "continue",
}))
  parts.push(part)
const state = await client.threads.getState(thread)
console.log(
  JSON.stringify({
    wrong,
    counts: counts.size,
    frames: calm.length,
    cuts: 5 - left,
    resumed: ids.slice(1).every(Boolean),
    last: parts.at(-1).event,
    text: JSON.parse(fold(parts))[0].filter(([id]) => !id.startsWith("result-")).map(([id, content, calls]) => [id, content, calls]),
    stored: state.values.messages.filter((m) => m.type === "ai").map((m) => [m.id, m.content, m.tool_calls]),
  }),
)
process.exit(0)
