// The hook `useStream` of @langchain/react, in a page of happy-dom, against a server.
// usage: node use_react.mjs URL CASES; CASES: JSON, [[name, prompt, answer?, order?], ...]; prints one list.
import { Window } from "happy-dom"
import { interruptCases } from "./interrupts.mjs"

const [url, list] = process.argv.slice(2)
const page = new Window({ url: "http://localhost/" })
const mine = { window: page, document: page.document, navigator: page.navigator, IS_REACT_ACT_ENVIRONMENT: false }
for (const [name, value] of Object.entries(mine)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
const { createElement } = await import("react")
const { createRoot } = await import("react-dom/client")
const { useStream } = await import("@langchain/react")
const { Client } = await import("@langchain/langgraph-sdk")
const { StreamController } = await import("@langchain/langgraph-sdk/stream")
console.error = () => {}

const apiUrl = `${url}/langgraph`
const client = new Client({ apiUrl, apiKey: null })
let told, prompt, answer

function open(threadId, more = {}) {
  const tab = { threadId, runs: [], errors: [] }
  function Chat() {
    tab.stream = useStream({
      apiUrl,
      apiKey: null,
      assistantId: "demo",
      threadId: tab.threadId,
      onThreadId: (id) => (tab.threadId = id),
      onCreated: (run) => tab.runs.push(run.runId),
      ...more,
    })
    tab.texts = [...(tab.texts ?? []), words(tab)]
    if (tab.stream.error) tab.errors.push(String(tab.stream.error.message ?? tab.stream.error))
    return null
  }
  const root = createRoot(page.document.body.appendChild(page.document.createElement("div")))
  root.render(createElement(Chat))
  tab.close = () => root.unmount()
  return tab
}

/** What the hook is made of, from an SDK newer than the hook's own: a tab without React. */
function openController(threadId, more = {}) {
  const tab = { threadId, runs: [], errors: [] }
  const controller = new StreamController({ client, assistantId: "demo", threadId: threadId ?? null, onThreadId: (id) => (tab.threadId = id), ...more })
  const release = controller.activate()
  Object.defineProperty(tab, "stream", {
    get: () => ({
      ...controller.rootStore.getSnapshot(),
      submit: (input) => controller.submit(input),
      respond: (response, options) => controller.respond(response, options),
    }),
  })
  tab.close = release
  return tab
}

async function until(check, what) {
  const deadline = Date.now() + 60_000
  for (;;) {
    const value = check()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`)
    await new Promise((go) => setTimeout(go, 5))
  }
}
const text = (message) => (typeof message.content === "string" ? message.content : message.content.filter((block) => block.type === "text").map((block) => block.text).join(""))
const said = (tab) => tab.stream.messages.map((message) => [message.type, text(message)])
const words = (tab) => said(tab).filter(([type]) => type === "ai").map(([, words]) => words).join("")
const ready = (tab) => until(() => tab.stream && !tab.stream.isThreadLoading, "the page")
const ask = (tab, question = prompt) => tab.stream.submit({ messages: [{ type: "human", content: question }] })
const stored = async (id) => (await client.threads.getState(id)).values.messages.map((message) => [message.type, message.content])
const settled = (tab) => until(() => !tab.stream.isLoading, "the end")
/** The page shows what the thread has, which it is told after the end of a run. */
async function agreed(tab) {
  await settled(tab)
  // A page that opens within the answer has some of it before it hears that it is under way.
  while ((await client.threads.get(tab.threadId)).status === "busy") await new Promise((go) => setTimeout(go, 20))
  await settled(tab)
  const kept = JSON.stringify(await stored(tab.threadId))
  await until(() => JSON.stringify(said(tab)) === kept, `the same messages: ${kept} ${JSON.stringify(said(tab))}`)
}

const cases = {
  async turns() {
    const tab = open()
    await ready(tab)
    await ask(tab)
    await ask(tab, "scenario:text?rate=300")
    await agreed(tab)
    told.messages = said(tab)
    told.errors = tab.errors
    told.grew = new Set(tab.texts).size
    told.ids = tab.stream.messages.map((message) => message.id)
    told.calls = tab.stream.toolCalls.map((call) => [call.name, call.input])
    tab.close()
    const again = open(tab.threadId)
    await ready(again)
    await ask(again, "scenario:text?rate=1000")
    await agreed(again)
    told.later = said(again).map(([type]) => type)
  },
  async reload() {
    const first = open()
    await ready(first)
    void ask(first)
    await until(() => words(first).length > 20, "some words")
    first.close()
    const second = open(first.threadId)
    await until(() => second.stream?.isLoading && words(second).length > 20, "the answer")
    await agreed(second)
    told.messages = said(second)
    told.errors = second.errors
    told.grew = new Set(second.texts).size
  },
  async second_tab() {
    const first = open()
    await ready(first)
    void ask(first)
    await until(() => words(first).length > 20, "some words")
    const second = open(first.threadId)
    await until(() => second.stream && words(second).length > 20, "words in the second tab")
    await Promise.all([agreed(first), agreed(second)])
    told.messages = said(second)
    told.errors = [...first.errors, ...second.errors]
    await ask(second, "scenario:text?rate=1000")
    await Promise.all([agreed(first), agreed(second)])
    told.later = said(first).map(([type]) => type)
  },
  async stop() {
    const tab = open()
    await ready(tab)
    void ask(tab)
    await until(() => words(tab).length > 5 && tab.runs.length, "some words")
    await tab.stream.stop()
    await settled(tab)
    await client.runs.join(tab.threadId, tab.runs[0]).catch(() => {})
    told.status = (await client.runs.get(tab.threadId, tab.runs[0])).status
    await agreed(tab)
    told.messages = said(tab)
    told.errors = tab.errors
  },
  async failing() {
    const tab = open()
    await ready(tab)
    await ask(tab)
    await until(() => tab.stream.error, "the error")
    told.error = tab.stream.error.message
  },
  async interrupt() {
    const tab = open(crypto.randomUUID())
    await ready(tab)
    await ask(tab)
    await until(() => tab.stream.interrupt, "the interrupt")
    told.interrupt = tab.stream.interrupt
    const second = open(tab.threadId)
    await until(() => second.stream?.interrupt, "the interrupt in the second tab")
    await second.stream.respond(answer, { interruptId: told.interrupt.id })
    const rest = (one) => until(() => said(one).at(-1)?.[0] === "ai" && said(one).length > 2, "the rest")
    await Promise.all([rest(tab), rest(second)])
    await until(() => !second.stream.interrupt, "no interrupt")
    await Promise.all([agreed(tab), agreed(second)])
    told.messages = said(tab)
    told.errors = [...tab.errors, ...second.errors]
  },
  async cut() {
    // Connection number n breaks off after n events.
    let cuts = 0
    async function broken(input, init) {
      const response = await fetch(input, init)
      if (!String(input).endsWith("/stream/events") || !response.ok) return response
      let rest = ++cuts
      const events = response.body.pipeThrough(new TextDecoderStream()).getReader()
      let held = ""
      const body = new ReadableStream({
        async pull(out) {
          const { done, value } = await events.read()
          held += value ?? ""
          for (let end; rest > 0 && (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2)) {
            const frame = held.slice(0, end + 2)
            out.enqueue(new TextEncoder().encode(frame))
            if (frame.includes("data: ")) rest -= 1
          }
          if (!done && rest > 0) return
          void events.cancel()
          out.close()
        },
        cancel: () => events.cancel(),
      })
      return new Response(body, { status: response.status, headers: response.headers })
    }
    const tab = open(undefined, { fetch: broken, reconnectDelayMs: () => 0 })
    await ready(tab)
    await ask(tab)
    await agreed(tab)
    told.messages = said(tab)
    told.errors = tab.errors
    told.cuts = cuts
  },
}
const shared = interruptCases({ agreed, ask, client, apiUrl, ready, said, until })
for (const [name, run] of Object.entries(shared)) {
  cases[name] = (order) => run(told, open, answer, order)
  cases[`sdk_${name}`] = (order) => run(told, openController, answer, order)
}
const results = []
for (const [name, question, response, order] of JSON.parse(list)) {
  ;[prompt, answer, told] = [question, response, {}]
  try {
    await cases[name](order)
  } catch (error) {
    told.failed = String(error.stack ?? error)
  }
  results.push(told)
}
console.log(JSON.stringify(results))
process.exit(0)
