// Our fetch and our transport for the AI SDK, cut at every so-many-th byte. usage: node cut_chunks.mjs FILE STEP
// FILE: {ui, native: {whole, after: {id: rest}}}: what the server says from the start and after an id.
import { readFileSync } from "node:fs"
import { resumableFetch, TokenwireChatTransport } from "../../packages/client/dist/ai-sdk/transport.js"

const { ui, native } = JSON.parse(readFileSync(process.argv[2], "utf8"))
const step = Number(process.argv[3])
const AT_ONCE = 50
Math.random = () => 0 // come back at once
const bytesOf = (text) => new TextEncoder().encode(text)
const headers = { "content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1" }

// A server whose first streams are cut after so many bytes; `how`: a clean end or a reset.
function server({ whole, after }, cuts, how) {
  let streams = 0
  return async (url, init) => {
    if (String(url).endsWith("/v1/runs")) {
      return new Response(JSON.stringify({ id: "Zx81Zx81Zx81Zx81Zx81Zx", state: "running" }), { status: 201 })
    }
    const id = new Headers(init?.headers).get("last-event-id")
    const all = id ? after[id] : whole
    if (!all) throw new Error(`nobody gave the id ${id}`)
    const cut = cuts[streams++]
    const said = cut === undefined ? all : all.subarray(0, cut)
    let told = false
    const body = new ReadableStream(
      {
        pull(controller) {
          if (said.length && !told) {
            told = true
            controller.enqueue(said)
          } else if (cut !== undefined && how === "reset") controller.error(new TypeError("network error"))
          else controller.close()
        },
      },
      { highWaterMark: 0 },
    )
    return new Response(body, { headers })
  }
}

const message = { id: "m1", role: "user", parts: [{ type: "text", text: "Hi" }] }

async function byTransport(call) {
  const transport = new TokenwireChatTransport({ baseUrl: "http://server", fetch: call })
  const chunks = []
  const asked = { chatId: "chat-1", messages: [message], trigger: "submit-message" }
  for await (const chunk of await transport.sendMessages(asked)) chunks.push(chunk)
  return chunks
}

async function byFetch(call) {
  const body = JSON.stringify({ id: "chat-1", messages: [message] })
  const response = await resumableFetch(call)("http://server/api/chat", { method: "POST", body })
  const lines = (await response.text()).split("\n\n").filter(Boolean)
  if (lines.pop() !== "data: [DONE]") throw new Error("no [DONE]")
  return lines.map((line) => JSON.parse(line.slice("data: ".length)))
}

let tried = 0
let bytes = 0
const wrong = []
for (const [read, told] of [[byFetch, ui], [byTransport, native]]) {
  if (!told) continue
  const whole = bytesOf(told.whole)
  const after = Object.fromEntries(Object.entries(told.after).map(([id, text]) => [id, bytesOf(text)]))
  const wanted = JSON.stringify(await read(server({ whole, after }, [], "end")))
  bytes += whole.length + 1
  const check = async (cut, how) => {
    tried++
    // The second connection is cut as well, somewhere else.
    const cuts = cut % 3 ? [cut] : [cut, (cut * 7) % 400]
    const got = JSON.stringify(await read(server({ whole, after }, cuts, how)))
    if (got !== wanted) wrong.push({ cut, how, by: read.name, got, wanted })
  }
  for (let from = 0; from <= whole.length; from += step * AT_ONCE) {
    const some = Array.from({ length: AT_ONCE }, (_, n) => from + n * step).filter((cut) => cut <= whole.length)
    await Promise.all(some.flatMap((cut) => [check(cut, "end"), check(cut, "reset")]))
  }
}
console.log(JSON.stringify({ tried, bytes, wrong: wrong.slice(0, 3), count: wrong.length }))
process.exit(0)
