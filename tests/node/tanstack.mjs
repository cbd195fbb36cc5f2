// @tanstack/ai-client's ChatClient against a server. usage: node tanstack.mjs URL CASE PROMPT
import { setTimeout as sleep } from "node:timers/promises"
import { ChatClient, fetchServerSentEvents } from "@tanstack/ai-client"

const [url, wanted, prompt] = process.argv.slice(2)
const warnings = []
for (const level of ["warn", "error"]) console[level] = (...words) => warnings.push(words.join(" "))
const errors = []
const chunks = []
let posts = 0
const threadId = `thread-${Date.now()}`

// A fetch whose first answer breaks off after `bytes` bytes.
function cutting(bytes) {
  let cut = bytes === undefined
  return async (input, init) => {
    if (init?.method === "POST") posts++
    const response = await fetch(input, init)
    if (cut || !response.body) return response
    cut = true
    let seen = 0
    const reader = response.body.getReader()
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read()
        if (done) return controller.close()
        seen += value.length
        if (seen > bytes) {
          await reader.cancel()
          controller.error(new TypeError("network error"))
          return
        }
        controller.enqueue(value)
      },
    })
    return new Response(body, { status: response.status, headers: response.headers })
  }
}

function makeClient(more = {}) {
  return new ChatClient({
    threadId,
    connection: fetchServerSentEvents(`${url}/ag-ui`, { fetchClient: cutting(more.cut) }),
    onError: (error) => errors.push(String(error.message ?? error)),
    onChunk: (chunk) => chunks.push(chunk.type),
    ...more,
  })
}

async function until(check, what, seconds = 15) {
  const end = Date.now() + seconds * 1000
  while (!check()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`)
    await sleep(10)
  }
}

const textOf = (messages) =>
  messages
    .filter((m) => m.role === "assistant")
    .flatMap((m) => m.parts)
    .filter((p) => p.type === "text")
    .map((p) => p.content)
    .join("")

let client
const cases = {
  async plain() {
    client = makeClient()
    await client.sendMessage(prompt)
  },
  async cut() {
    client = makeClient({ cut: 4000 })
    await client.sendMessage(prompt)
  },
  async approval() {
    client = makeClient()
    await client.sendMessage(prompt)
    const [interrupt] = client.getPendingInterrupts()
    if (!interrupt) throw new Error("no interrupt")
    interrupt.resolveInterrupt({ approved: true })
    await until(() => textOf(client.getMessages()).includes("delet"), "the answer")
    await until(() => !client.getIsLoading(), "the end")
  },
  async reload() {
    // The page goes away in the middle; a new client asks the thread, and joins what is under way.
    const first = makeClient()
    first.sendMessage(prompt).catch(() => undefined)
    await until(() => textOf(first.getMessages()).length > 5 || first.getInterrupts().length, "some text")
    if (prompt.includes("approval")) await until(() => first.getInterrupts().length, "the question")
    first.dispose()
    client = makeClient({ persistence: true })
    client.attach()
    await until(() => client.getMessages().length > 1, "the conversation")
    const [interrupt] = client.getInterrupts()
    if (interrupt) interrupt.resolveInterrupt({ approved: true })
    await until(() => !client.getIsLoading() && !client.getInterrupts().length, "the end")
    const { metadata } = interrupt ?? {}
    console.log(JSON.stringify({ messages: client.getMessages(), text: textOf(client.getMessages()), metadata, errors, warnings, threadId }))
    process.exit(0)
  },
  async join() {
    // Another page asks the thread what is under way, and joins it from the start.
    client = makeClient()
    const sending = client.sendMessage(prompt)
    await until(() => textOf(client.getMessages()).length > 5, "some text")
    const other = fetchServerSentEvents(`${url}/ag-ui`)
    const found = await other.hydrate(threadId)
    const seen = []
    if (!found.activeRun) throw new Error(JSON.stringify(found))
    let text = ""
    for await (const chunk of other.joinRun(found.activeRun.runId)) {
      seen.push(chunk.type)
      if (chunk.type === "TEXT_MESSAGE_CONTENT") text += chunk.delta
    }
    await sending
    const later = await other.hydrate(threadId)
    console.log(JSON.stringify({ found, later, seen, joined: text, text: textOf(client.getMessages()), errors, warnings }))
    process.exit(0)
  },
}
await cases[wanted]()
console.log(
  JSON.stringify({ messages: client.getMessages(), text: textOf(client.getMessages()), chunks, errors, warnings, posts, threadId }),
)
process.exit(0)
