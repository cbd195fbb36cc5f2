// One conversation of useChat's own chat class (without React) against a server.
// usage: node ai_chat.mjs VERSION URL CASE [PROMPT]; prints one JSON object.
// VERSION: 5old (5.0.53), 5, 6, 7. CUT: how a broken answer is told: see `cutting`.
import { setTimeout as sleep } from "node:timers/promises"

const [version, url, wanted, prompt = "Hello"] = process.argv.slice(2)
const ai = await import(`ai${version}`)
const errors = []
const compatOf = version === "5old" ? "5" : version

class State {
  constructor(messages = []) {
    this.status = "ready"
    this.error = undefined
    this.messages = messages
    this.statuses = []
  }
  pushMessage = (message) => {
    this.messages = this.messages.concat(message)
  }
  popMessage = () => {
    this.messages = this.messages.slice(0, -1)
  }
  replaceMessage = (index, message) => {
    this.messages = [...this.messages.slice(0, index), message, ...this.messages.slice(index + 1)]
  }
  snapshot = (value) => structuredClone(value)
}

class Chat extends ai.AbstractChat {
  constructor(options, state = new State(options.messages)) {
    super({ ...options, state })
    this.held = state
  }
}

const api = `${url}/api/chat`
const finished = []
let newest
function makeChat(options = {}) {
  const compat = options.compat ?? process.env.COMPAT ?? compatOf
  const body = compat === "none" ? {} : { compat }
  newest = new Chat({
    id: options.id ?? `chat-${version}-${wanted}-${Date.now()}`,
    transport:
      options.transport ??
      new ai.DefaultChatTransport({ api, body, ...(options.prepare && { prepareSendMessagesRequest: options.prepare }), ...(options.fetch && { fetch: options.fetch }) }),
    onError: (error) => errors.push(String(error.message ?? error)),
    onFinish: (event) => finished.push({ isAbort: event.isAbort, isError: event.isError, finishReason: event.finishReason }),
    messages: options.messages,
    sendAutomaticallyWhen: options.sendAutomaticallyWhen,
    onToolCall: options.onToolCall,
  })
  return newest
}

async function until(check, what, seconds = 40) {
  const end = Date.now() + seconds * 1000
  while (!check()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`)
    await sleep(10)
  }
}

const settled = (chat) => chat.status === "ready" || chat.status === "error"
const last = (chat) => chat.messages[chat.messages.length - 1]
const textOf = (message) =>
  message.parts.filter((p) => p.type === "text").map((p) => p.text).join("")

const stateOf = (chat) => ({
  status: chat.status,
  errors: [...errors],
  finished: [...finished],
  messages: chat.messages,
  text: chat.messages.length ? textOf(last(chat)) : "",
})

function report(chat, more = {}) {
  console.log(JSON.stringify({ ...stateOf(chat), ...more }))
}

// A fetch whose answers break off, `times` times: after `bytes` bytes, or (at "text") after the first
// text. How that is told: by Chrome and Firefox ("network error"), Safari ("Load failed"), Node
// ("terminated"), or as an end.
const WORDS = { network: "network error", safari: "Load failed", node: "terminated" }
const asked = []
function cutting(at, times = 1) {
  const how = process.env.CUT ?? "network"
  let cuts = 0
  return async (input, init) => {
    const { method = "GET", headers } = init ?? {}
    asked.push({ url: String(input), method, headers: Object.fromEntries(new Headers(headers)) })
    const response = await fetch(input, init)
    if (cuts >= times || !response.body) return response
    cuts++
    const reader = response.body.getReader()
    let heard = Buffer.alloc(0)
    let broken = false
    const place = () => {
      if (at !== "text") return at
      const text = heard.indexOf('"text-delta"')
      const end = text < 0 ? -1 : heard.indexOf("\n\n", text)
      return end < 0 ? Infinity : end + 2
    }
    const body = new ReadableStream({
      async pull(controller) {
        if (!broken) {
          const { done, value } = await reader.read()
          if (done) return controller.close()
          const before = heard.length
          heard = Buffer.concat([heard, value])
          const said = value.subarray(0, Math.max(0, place() - before))
          broken = said.length < value.length || place() === heard.length
          if (said.length) return controller.enqueue(said)
        }
        await reader.cancel()
        // An error takes away what the streams above still hold, so that they must have passed it on.
        if (at === "text") await until(() => newest.messages.length > 1 && textOf(last(newest)), "the text")
        if (how === "end") controller.close()
        else controller.error(new TypeError(WORDS[how]))
      },
    })
    return new Response(body, { status: response.status, headers: response.headers })
  }
}

// `scenario:stall` says this and then nothing, so that a test may take its time; stop ends it.
const STALLED = "I say this much, and then nothing more"
async function resumeAndStop(chat, heard = () => chat.messages.length > 1 && textOf(last(chat))) {
  const reading = chat.resumeStream()
  await until(() => heard() && heard().endsWith(STALLED), "the text")
  const answer = await fetch(`${api}/${chat.id}/stop`, { method: "POST" })
  await reading
  return answer.status
}

// The tokenwire package, as it is built.
const ours = () => import("../../packages/client/dist/ai-sdk/transport.js")

const cases = {
  async plain() {
    const chat = makeChat({ compat: process.env.COMPAT ?? compatOf })
    await chat.sendMessage({ text: prompt })
    report(chat)
  },
  async stop() {
    const chat = makeChat()
    const sending = chat.sendMessage({ text: prompt })
    await until(() => chat.messages.length > 1 && textOf(last(chat)).length > 5, "some text")
    const answer = await fetch(`${api}/${chat.id}/stop`, { method: "POST" })
    await sending
    report(chat, { stop: answer.status })
  },
  async reload() {
    // A page goes away in the middle; a new one finds the answer under way, and reads it whole.
    const first = makeChat()
    first.sendMessage({ text: prompt })
    await until(() => first.messages.length > 1 && textOf(last(first)).length > 5, "some text")
    await first.stop()
    const second = makeChat({ id: first.id, messages: first.messages.slice(0, 1) })
    const stop = await resumeAndStop(second)
    report(second, { before: textOf(last(first)), stop })
  },
  async nothing_to_resume() {
    const chat = makeChat()
    await chat.resumeStream()
    report(chat)
  },
  async cut() {
    // The same chat instance asks again, as an application may; the server replays.
    // What the cut answer had may be all of the text: what counts is what the replay says.
    let replayed = ""
    const broken = cutting("text")
    const fetch = async (input, init) => {
      const response = await broken(input, init)
      if (init?.method === "POST" || !response.body) return response
      let text = ""
      const decoder = new TextDecoder()
      const spy = new TransformStream({
        transform(bytes, controller) {
          text += decoder.decode(bytes, { stream: true })
          const frames = text.split("\n\n").slice(0, -1).map((frame) => frame.match(/^data: (\{.*)$/m)?.[1])
          const chunks = frames.filter(Boolean).map((json) => JSON.parse(json))
          replayed = chunks.filter(({ type }) => type === "text-delta").map(({ delta }) => delta).join("")
          controller.enqueue(bytes)
        },
      })
      return new Response(response.body.pipeThrough(spy), { status: response.status, headers: response.headers })
    }
    const chat = makeChat({ fetch })
    await chat.sendMessage({ text: prompt })
    const before = chat.messages.length > 1 ? textOf(last(chat)) : ""
    await resumeAndStop(chat, () => replayed)
    report(chat, { before })
  },
  async same_request() {
    // What the same instance asks after a cut, and what a page asks that was loaded anew.
    const chat = makeChat({ fetch: cutting("text") })
    await chat.sendMessage({ text: prompt })
    const reading = chat.resumeStream()
    const page = makeChat({ id: chat.id, messages: chat.messages.slice(0, 1), fetch: cutting(0, 0) })
    await resumeAndStop(page)
    await reading
    const [mine, fresh] = asked.filter(({ method }) => method === "GET")
    report(chat, { mine, fresh })
  },
  async resumable_fetch() {
    // The SDK's own transport on our fetch: it never hears of the cuts, so nothing is resumed.
    const { resumableFetch } = await ours()
    const chat = makeChat({ fetch: resumableFetch(cutting("text", 3)) })
    await chat.sendMessage({ text: prompt })
    report(chat, { asked })
  },
  async resumable_reload() {
    // A page loaded anew in the middle, on our fetch, and cut again.
    const { resumableFetch } = await ours()
    const first = makeChat()
    first.sendMessage({ text: prompt })
    await until(() => first.messages.length > 1 && textOf(last(first)).length > 5, "some text")
    await first.stop()
    const messages = first.messages.slice(0, 1)
    const second = makeChat({ id: first.id, messages, fetch: resumableFetch(cutting("text", 2)) })
    await resumeAndStop(second)
    report(second, { asked })
  },
  async our_transport() {
    const { TokenwireChatTransport } = await ours()
    const transport = new TokenwireChatTransport({ baseUrl: url, compat: compatOf, fetch: cutting("text", 3) })
    const chat = makeChat({
      transport,
      sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithApprovalResponses,
    })
    await chat.sendMessage({ text: prompt })
    const question = last(chat).parts.find((p) => p.approval && p.state === "approval-requested")
    if (question) {
      await chat.addToolApprovalResponse({ id: question.approval.id, approved: true })
      await until(() => settled(chat) && finished.length > 1, "the end")
    }
    report(chat, { asked })
  },
  async our_transport_resumed() {
    // A page loaded anew: the person answers while the events of the resume are on their way.
    const { TokenwireChatTransport } = await ours()
    const first = makeChat({ transport: new TokenwireChatTransport({ baseUrl: url, compat: compatOf }) })
    await first.sendMessage({ text: prompt })
    let go
    const answered = new Promise((open) => (go = open))
    let isHeld = false
    const slow = async (input, init) => {
      if (!isHeld && String(input).endsWith("/events")) {
        isHeld = true
        await answered
      }
      return fetch(input, init)
    }
    const transport = new TokenwireChatTransport({ baseUrl: url, compat: compatOf, fetch: slow })
    const messages = await transport.messages(first.id)
    const sendAutomaticallyWhen = ai.lastAssistantMessageIsCompleteWithApprovalResponses
    const chat = makeChat({ id: first.id, messages, transport, sendAutomaticallyWhen })
    const reading = chat.resumeStream()
    await until(() => isHeld, "the resume")
    const question = last(chat).parts.find((p) => p.approval && p.state === "approval-requested")
    await chat.addToolApprovalResponse({ id: question.approval.id, approved: true })
    go()
    await reading
    await until(() => settled(chat) && last(chat).parts.some((p) => p.state === "output-available"), "the end")
    report(chat)
  },
  async our_transport_turns() {
    // The second turn tells the model what the first one's tools gave.
    const { TokenwireChatTransport } = await ours()
    const chat = makeChat({ transport: new TokenwireChatTransport({ baseUrl: url, compat: compatOf }) })
    await chat.sendMessage({ text: prompt })
    await chat.sendMessage({ text: "Thanks!" })
    report(chat)
  },
  async our_transport_stop() {
    const { TokenwireChatTransport } = await ours()
    const onStop = process.env.ON_STOP ?? "cancel"
    const chat = makeChat({ transport: new TokenwireChatTransport({ baseUrl: url, compat: compatOf, onStop }) })
    const sending = chat.sendMessage({ text: prompt })
    await until(() => chat.messages.length > 1 && textOf(last(chat)).length > 5, "some text")
    await chat.stop()
    await sending
    report(chat, { chat: chat.id })
    await sleep(50) // what was asked of the server goes out
  },
  async cut_with_cursor() {
    // The form that is right on every version: the transport sends the last id that it saw.
    let cursor = ""
    const broken = cutting("text")
    const watching = async (input, init) => {
      const response = await broken(input, init)
      if (!response.body || response.status === 204) return response
      let text = ""
      const decoder = new TextDecoder()
      const spy = new TransformStream({
        transform(bytes, controller) {
          text += decoder.decode(bytes, { stream: true })
          const whole = text.lastIndexOf("\n\n")
          const ids = [...text.slice(0, whole + 1).matchAll(/^id: (.*)$/gm)]
          if (ids.length) cursor = ids[ids.length - 1][1]
          controller.enqueue(bytes)
        },
      })
      return new Response(response.body.pipeThrough(spy), {
        status: response.status,
        headers: response.headers,
      })
    }
    const transport = new ai.DefaultChatTransport({
      api,
      body: { compat: compatOf },
      fetch: watching,
      prepareReconnectToStreamRequest: ({ id }) => ({
        api: `${api}/${id}/stream?compat=${compatOf}&after=${cursor}`,
      }),
    })
    const chat = makeChat({ transport })
    await chat.sendMessage({ text: prompt })
    const before = chat.messages.length > 1 ? textOf(last(chat)) : ""
    await chat.resumeStream()
    report(chat, { before, cursor, asked })
  },
  async approval(approved = true) {
    const chat = makeChat({
      sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithApprovalResponses,
    })
    await chat.sendMessage({ text: prompt })
    const asked = last(chat).parts.find((p) => p.approval && p.state === "approval-requested")
    if (!asked) throw new Error("no approval was asked for")
    await chat.addToolApprovalResponse({ id: asked.approval.id, approved })
    await until(() => settled(chat) && chat.messages.length === 2 && finished.length > 1, "the end")
    report(chat)
  },
  // A page loaded anew, which sends its last message alone.
  async stored() {
    const sendAutomaticallyWhen = ai.lastAssistantMessageIsCompleteWithApprovalResponses
    const prepare = ({ id, messages, trigger }) => ({ body: { id, trigger, message: messages.at(-1) } })
    const first = makeChat({ prepare })
    await first.sendMessage({ text: "scenario:text?rate=2000" })
    await first.sendMessage({ text: prompt })
    const stored = async () => (await (await fetch(`${url}/v1/threads/${first.id}?as=ui-messages`)).json()).messages
    const messages = await ai.validateUIMessages({ messages: await stored() })
    const chat = makeChat({ id: first.id, messages, sendAutomaticallyWhen, prepare })
    await chat.resumeStream()
    const asked = last(chat).parts.find((p) => p.approval && p.state === "approval-requested")
    if (!asked) throw new Error("no approval was asked for")
    finished.length = 0
    await chat.addToolApprovalResponse({ id: asked.approval.id, approved: true })
    await until(() => settled(chat) && finished.length > 0, "the end")
    await chat.sendMessage({ text: "scenario:text?rate=2000" })
    await ai.validateUIMessages({ messages: await stored() })
    report(chat, { stored: (await stored()).map(({ role }) => role) })
  },
  async denial() {
    await cases.approval(false)
  },
  async client_tool() {
    const chat = makeChat({
      sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall: ({ toolCall }) => {
        if (toolCall.toolName !== "locate") return
        const add = (chat.addToolOutput ?? chat.addToolResult).bind(chat)
        add({ tool: "locate", toolCallId: toolCall.toolCallId, output: { city: "Lyon" } })
      },
    })
    await chat.sendMessage({ text: prompt })
    await until(() => settled(chat) && finished.length > 1, "the end")
    report(chat)
  },
  async bytes() {
    // The bytes of conformance cases, through the package's own parser, schema and reducer.
    const { readFileSync } = await import("node:fs")
    const { basename } = await import("node:path")
    const states = {}
    for (const path of prompt.split(",")) {
      const told = JSON.parse(readFileSync(path, "utf8")).bytes[process.env.WIRE]
      errors.length = finished.length = 0
      const fetch = async () =>
        new Response(told, { headers: { "content-type": "text/event-stream" } })
      const chat = makeChat({ fetch })
      await chat.sendMessage({ text: "x" })
      states[basename(path, ".json")] = stateOf(chat)
    }
    console.log(JSON.stringify(states))
  },
  async durable() {
    // The unmodified Durable Streams transport: a pointer, then the stream; and again after a reload.
    // The answer does not end before it is stopped, however slowly a page is loaded.
    const { createDurableChatTransport } = await import("@durable-streams/aisdk-transport")
    const transport = () => createDurableChatTransport({ api: `${url}/ds/chat` })
    const first = makeChat({ transport: transport() })
    first.sendMessage({ text: prompt })
    await until(() => first.messages.length > 1 && textOf(last(first)).length > 5, "some text")
    const second = makeChat({
      id: first.id,
      messages: first.messages.slice(0, 1),
      transport: transport(),
    })
    await resumeAndStop(second)
    await until(() => settled(first), "the end")
    const third = makeChat({ id: first.id, transport: transport() })
    await third.resumeStream()
    report(second, { first: textOf(last(first)), after: third.messages.length })
    process.exit(0)
  },
  async websocket() {
    globalThis.WebSocket ??= (await import("undici")).WebSocket
    const transport = new ai.WebSocketChatTransport({
      url: `${url.replace("http", "ws")}/api/chat/ws`,
    })
    const chat = makeChat({ transport })
    await chat.sendMessage({ text: prompt })
    report(chat)
    process.exit(0)
  },
}

await cases[wanted]()
