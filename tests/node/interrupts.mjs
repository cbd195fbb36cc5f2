// An interrupt and its answer in several tabs, whichever of a tab's connections is first with it.

/** A `fetch` whose ways to a tab (its two connections, and the replies to its answers) are closed
 * from the first interrupt on, until they are opened. `seen`: connections that have an interrupt or
 * an answer; `passed`: ways that have brought all. */
export function gated() {
  const doors = {}
  const gates = { open: {}, passed: new Set(), seen: new Set() }
  for (const way of ["reply", "watcher", "content"]) doors[way] = new Promise((go) => (gates.open[way] = go))
  gates.fetch = async (input, init) => {
    const response = await fetch(input, init)
    const path = new URL(String(input.url ?? input)).pathname
    if (path.endsWith("/commands") && String(init.body).includes("input.respond")) {
      await doors.reply
      setTimeout(() => gates.passed.add("reply"))
    }
    if (!path.endsWith("/stream/events") || !response.ok) return response
    const way = JSON.parse(init.body).channels.includes("values") ? "content" : "watcher"
    let held = ""
    const frames = new TransformStream({
      async transform(text, out) {
        held += text
        for (let end; (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2)) {
          const frame = held.slice(0, end + 2)
          if (/"input\.(requested|answered)"/.test(frame)) {
            gates.seen.add(way)
            await doors[way]
          }
          out.enqueue(frame)
          if (frame.includes('"event":"completed"')) setTimeout(() => gates.passed.add(way))
        }
      },
    })
    const body = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(frames).pipeThrough(new TextEncoderStream())
    return new Response(body, { status: response.status, headers: response.headers })
  }
  return gates
}

/** `tools`: those of `use_react.mjs`; `told`: what the case has to say, `answer` and `order`: its own. */
export function interruptCases({ agreed, ask, client, apiUrl, ready, said, until }) {
  /** Of a thread that the page names: where it is named by the SDK, that reads its state in the
   * middle of the run, and forgets an interrupt that came before a state which is late. */
  async function asked(open) {
    const tab = open(crypto.randomUUID())
    await ready(tab)
    void ask(tab)
    await until(() => tab.stream.interrupt, "the interrupt")
    return [tab, tab.stream.interrupt.id]
  }
  async function pass(gates, order) {
    for (const way of order) {
      gates.open[way]()
      await until(() => gates.passed.has(way), `all of the ${way}`)
    }
  }
  const free = (tabs, what) => until(() => tabs.every((tab) => !tab.stream.interrupt), what)
  /** All of the answer is there, and nobody is asked anything any more. */
  async function end(told, tabs) {
    const rest = (tab) => until(() => said(tab).at(-1)?.[0] === "ai" && said(tab).length > 2, "the rest")
    await Promise.all(tabs.map(async (tab) => (await ready(tab), await rest(tab))))
    await free(tabs, "no interrupt")
    await Promise.all(tabs.map(agreed))
    told.messages = said(tabs.at(-1))
    told.errors = tabs.flatMap((tab) => tab.errors)
    for (const tab of tabs) tab.close()
  }
  async function answered(thread, id, answer) {
    const body = { id: 1, method: "input.respond", params: { interrupt_id: id, response: answer } }
    const headers = { "content-type": "application/json" }
    const response = await fetch(`${apiUrl}/threads/${thread}/commands`, { method: "POST", body: JSON.stringify(body), headers })
    const reply = await response.json()
    if (reply.type !== "success") throw new Error(JSON.stringify(reply))
  }
  return {
    /** The tab that answers gets what it is sent in the given order; another one opens then. */
    async orders(told, open, answer, order) {
      const [first, id] = await asked(open)
      first.close()
      const gates = gated()
      const second = open(first.threadId, { fetch: gates.fetch })
      await until(() => second.stream?.interrupt, "the interrupt in the second tab")
      const done = second.stream.respond(answer, { interruptId: id })
      await pass(gates, order)
      await done
      await end(told, [second, open(first.threadId)])
    },
    /** Somebody else answers, and the tabs hear of it in the given order. */
    async others(told, open, answer, order) {
      const gates = [gated(), gated()]
      const first = open(undefined, { fetch: gates[0].fetch })
      await ready(first)
      void ask(first)
      await until(() => gates[0].seen.size === 2, "the interrupt on both connections")
      const second = open(first.threadId, { fetch: gates[1].fetch })
      await until(() => second.stream?.interrupt, "the interrupt in the second tab")
      await answered(first.threadId, second.stream.interrupt.id, answer)
      await Promise.all(gates.map((one) => pass(one, order)))
      await end(told, [first, second])
    },
    /** A run that waits is cancelled, and the next one overtaken by a message. */
    async unanswered(told, open) {
      const [first] = await asked(open)
      const tabs = [first, open(first.threadId)]
      await until(() => tabs[1].stream?.interrupt, "the interrupt in the second tab")
      const [run] = await client.runs.list(first.threadId)
      await client.runs.cancel(first.threadId, run.run_id)
      await free(tabs, "no interrupt after a cancel")
      void ask(first)
      await until(() => tabs.every((tab) => tab.stream.interrupt), "the next interrupt")
      await ask(first, "scenario:text?rate=1000")
      await free(tabs, "no interrupt after a message")
      await end(told, tabs)
    },
  }
}
