// @tanstack/ai-client's ChatClient against a server. usage: node tanstack.mjs URL CASE PROMPT
// CONNECTION: sse (the default), lines, socket. HISTORY: server, to post only what is new.
import { setTimeout as sleep } from "node:timers/promises"
import { ChatClient, fetchHttpStream, fetchServerSentEvents, webSocket } from "@tanstack/ai-client"
import { WebSocket } from "undici"

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
    let left = bytes
    const reader = response.body.getReader()
    const breakOff = async (controller) => {
      await reader.cancel()
      controller.error(new TypeError("network error"))
    }
    const body = new ReadableStream({
      async pull(controller) {
        if (left === 0) return breakOff(controller)
        const { done, value } = await reader.read()
        if (done) return controller.close()
        const said = value.subarray(0, left)
        left -= said.length
        controller.enqueue(said)
      },
    })
    return new Response(body, { status: response.status, headers: response.headers })
  }
}

// A WebSocket whose first connection is lost after `most` messages of a run; all addresses are noted.
const sockets = []
function losing(most) {
  let lost = most === undefined
  return class extends WebSocket {
    constructor(address) {
      super(address)
      sockets.push(address.replace(/^[^?]*/, ""))
      if (lost) return
      lost = true
      let heard = 0
      this.addEventListener("message", ({ data }) => {
        // Pings have no place to go on from, and on a slow machine they come first.
        if (data !== '{"type":"ping"}' && ++heard === most) this.close()
      })
    }
    // Nothing more is heard of a socket that is being closed.
    set onmessage(listener) {
      super.onmessage = (event) => this.readyState === 1 && listener(event)
    }
  }
}

const kind = process.env.CONNECTION ?? "sse"
const more = process.env.HISTORY ? `history=${process.env.HISTORY}` : ""
function connect(options = {}) {
  const fetchClient = cutting(options.cut)
  const reconnect = { delayMs: 20 }
  if (kind === "lines") {
    return fetchHttpStream(`${url}/ag-ui?stream=ndjson&${more}`, { fetchClient, reconnect })
  }
  if (kind === "socket") {
    const address = `${url.replace("http", "ws")}/ag-ui?${more}`
    return webSocket(address, { WebSocketImpl: losing(options.lose), reconnect })
  }
  return fetchServerSentEvents(`${url}/ag-ui?${more}`, { fetchClient, reconnect })
}

function makeClient(more = {}) {
  const { cut, lose, ...options } = more
  return new ChatClient({
    threadId,
    connection: connect({ cut, lose }),
    onError: (error) => errors.push(String(error.message ?? error)),
    onChunk: (chunk) => chunks.push(chunk.type),
    ...options,
  })
}

async function until(check, what, seconds = 40) {
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
    client = makeClient({ cut: 700, lose: 4 })
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
    const other = connect()
    const asked = fetchServerSentEvents(`${url}/ag-ui`)
    const found = await asked.hydrate(threadId)
    const seen = []
    if (!found.activeRun) throw new Error(JSON.stringify(found))
    let text = ""
    for await (const chunk of other.joinRun(found.activeRun.runId)) {
      seen.push(chunk.type)
      if (chunk.type === "TEXT_MESSAGE_CONTENT") text += chunk.delta
    }
    await sending
    const later = await asked.hydrate(threadId)
    console.log(JSON.stringify({ found, later, seen, joined: text, text: textOf(client.getMessages()), errors, warnings }))
    process.exit(0)
  },
  async stop() {
    client = makeClient()
    const sending = client.sendMessage(prompt)
    await until(() => textOf(client.getMessages()).length > 5, "some text")
    client.stop()
    await sending
    await sleep(100) // what was sent goes out
  },
  async refused() {
    client = makeClient({ body: { model: "gpt-99" } })
    await client.sendMessage(prompt)
    await until(() => errors.length, "the error")
  },
  async pages() {
    // Three turns; a page that loads the newest two messages, then the older ones, then asks again.
    client = makeClient()
    for (const turn of ["One", "Two", "Three"]) await client.sendMessage(turn)
    const whole = client.getMessages()
    client.dispose()
    const page = makeClient({ persistence: true, history: { pageSize: 2 } })
    page.attach()
    await until(() => page.getMessages().length, "the newest page")
    const steps = [page.getMessages().map(textAndRole)]
    while (page.getHasOlderMessages()) {
      await page.loadOlderMessages()
      steps.push(page.getMessages().map(textAndRole))
    }
    const last = makeClient({ persistence: true, history: { pageSize: 2 } })
    last.attach()
    await until(() => last.getMessages().length, "the newest page")
    await last.sendMessage("Four")
    await last.reload()
    console.log(JSON.stringify({ whole: whole.map(textAndRole), steps, last: last.getMessages().map(textAndRole), errors, warnings, threadId }))
    process.exit(0)
  },
}
const textAndRole = ({ role, parts }) => [role, parts.map((p) => p.content ?? "").join("")]
await cases[wanted]()
console.log(
  JSON.stringify({ messages: client.getMessages(), text: textOf(client.getMessages()), chunks, errors, warnings, posts, sockets, threadId }),
)
process.exit(0)
