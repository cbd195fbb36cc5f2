// The React hook `useStream` of @langchain/langgraph-sdk in a page of happy-dom, against a server.
// usage: node use_stream.mjs URL CASES; CASES: JSON, [[name, prompt, resume?], ...]; prints one list.
import { Window } from "happy-dom"
import { createRequire } from "node:module"

const [url, list] = process.argv.slice(2)
const assistantId = "demo"
const page = new Window({ url: "http://localhost/" })
const mine = { window: page, document: page.document, navigator: page.navigator, IS_REACT_ACT_ENVIRONMENT: false }
for (const [name, value] of Object.entries(mine)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
const { createElement } = await import("react")
const { createRoot } = await import("react-dom/client")
const { useStream } = await import("@langchain/langgraph-sdk/react")
const { Client } = await import("@langchain/langgraph-sdk")
console.error = () => {}

const apiUrl = `${url}/langgraph`
const client = new Client({ apiUrl, apiKey: null })
let errors, told, prompt, answer

function open(options = {}) {
  const tab = { stream: undefined, threadId: options.threadId, runs: [] }
  function Chat() {
    tab.stream = useStream({
      apiUrl,
      apiKey: null,
      assistantId,
      messagesKey: "messages",
      fetchStateHistory: true,
      ...options,
      threadId: options.threadId ?? tab.threadId,
      onThreadId: (id) => (tab.threadId = id),
      onCreated: (run) => tab.runs.push(run.run_id),
      onError: (error) => errors.push(String(error.message ?? error)),
    })
    tab.messages = tab.stream.messages
    return null
  }
  const root = createRoot(page.document.body.appendChild(page.document.createElement("div")))
  root.render(createElement(Chat))
  tab.close = () => root.unmount()
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
const said = (tab) => (tab.messages ?? []).map((m) => [m.type, typeof m.content === "string" ? m.content : JSON.stringify(m.content)])
const words = (tab) => said(tab).filter(([type]) => type === "ai").map(([, text]) => text).join("")
const ready = (tab) => until(() => tab.stream && !tab.stream.isThreadLoading, "the page")
const ask = (tab, text = prompt) => tab.stream.submit({ messages: [{ type: "human", content: text }] }, { streamSubgraphs: true })
const ended = (tab) => until(() => !tab.stream.isLoading, "the end")
const thread = () => client.threads.create().then((made) => made.thread_id)

const cases = {
  async plain() {
    const tab = open()
    await ready(tab)
    await ask(tab)
    await ended(tab)
    await ask(tab, "scenario:text?rate=300")
    await ended(tab)
    told.messages = said(tab)
    told.stored = (await client.threads.getState(tab.threadId)).values.messages.map((m) => [m.type, m.content])
    told.ids = tab.messages.map((m) => m.id)
    told.calls = tab.messages.flatMap((m) => m.tool_calls ?? []).map((call) => [call.name, call.args])
  },
  async reload() {
    const id = await thread()
    const first = open({ threadId: id, reconnectOnMount: true })
    await ready(first)
    void ask(first)
    await until(() => words(first).length > 20, "some words")
    first.close()
    const second = open({ threadId: id, reconnectOnMount: true })
    await until(() => second.stream?.isLoading && words(second).length > 20, "the rejoined answer")
    await ended(second)
    told.messages = said(second)
    told.stored = (await client.threads.getState(id)).values.messages.map((m) => [m.type, m.content])
  },
  async second_tab() {
    const id = await thread()
    const first = open({ threadId: id, reconnectOnMount: true })
    await ready(first)
    void ask(first)
    await until(() => words(first).length > 20, "some words")
    const second = open({ threadId: id })
    await ready(second)
    void second.stream.joinStream(first.runs[0])
    await until(() => words(second).length > 20, "words in the second tab")
    await Promise.all([ended(first), ended(second)])
    told.same = JSON.stringify(said(first)) === JSON.stringify(said(second))
    told.messages = said(second)
  },
  async stop() {
    const id = await thread()
    const tab = open({ threadId: id, reconnectOnMount: true })
    await ready(tab)
    void ask(tab)
    await until(() => words(tab).length > 5, "some words")
    await tab.stream.stop()
    await ended(tab)
    await client.runs.join(id, tab.runs[0]).catch(() => {})
    told.status = (await client.runs.get(id, tab.runs[0])).status
    told.words = words(tab)
  },
  async interrupt() {
    const tab = open({ threadId: await thread() })
    await ready(tab)
    await ask(tab)
    await until(() => tab.stream.interrupt, "the interrupt")
    await ended(tab)
    told.interrupt = tab.stream.interrupt
    void tab.stream.submit(undefined, { command: { resume: answer } })
    await until(() => said(tab).at(-1)?.[0] === "ai" && !tab.stream.isLoading && tab.stream.interrupt === undefined, "the rest")
    told.messages = said(tab)
  },
  async failing() {
    const tab = open({ threadId: await thread() })
    await ready(tab)
    await ask(tab)
    await ended(tab)
    told.error = String(tab.stream.error?.message ?? tab.stream.error)
  },
  async branch() {
    const tab = open({ threadId: await thread() })
    await ready(tab)
    await ask(tab)
    await ended(tab)
    const before = said(tab)
    const last = tab.messages.findLast((m) => m.type === "ai")
    const again = tab.stream.getMessagesMetadata(last).firstSeenState.parent_checkpoint
    await tab.stream.submit(undefined, { checkpoint: again })
    await ended(tab)
    told.again = [before.length, said(tab).length]
    const question = tab.messages.find((m) => m.type === "human")
    const checkpoint = tab.stream.getMessagesMetadata(question).firstSeenState.parent_checkpoint
    await tab.stream.submit({ messages: [{ type: "human", content: "scenario:text?rate=300 edited" }] }, { checkpoint })
    await ended(tab)
    told.messages = said(tab)
    told.branches = tab.stream.getMessagesMetadata(tab.messages[0]).branchOptions?.length
  },
}
const results = []
for (const [name, text, resume] of JSON.parse(list)) {
  ;[errors, prompt, answer] = [[], text, resume]
  told = { errors }
  page.sessionStorage.clear()
  try {
    await cases[name]()
  } catch (error) {
    told.failed = String(error.stack ?? error)
  }
  results.push(told)
}
console.log(JSON.stringify(results))
process.exit(0)
