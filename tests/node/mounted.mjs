// Our client, and EventSource, against a server under a prefix. usage: node mounted.mjs URL CASE
import { EventSource } from "eventsource"
import { WebSocket } from "undici"
import { TokenwireClient } from "../../packages/client/dist/index.js"

const [baseUrl, wanted] = process.argv.slice(2)
const sockets = []
globalThis.WebSocket = class extends WebSocket {
  constructor(address) {
    super(address)
    sockets.push(address)
  }
}
const client = new TokenwireClient({ baseUrl, shareTabs: false })

async function read(from, run, enough = Infinity) {
  let text = ""
  let after
  const leave = new AbortController()
  const reading = from.follow(run, {
    signal: leave.signal,
    onEvents: (batch) => {
      for (const { cursor, event } of batch) {
        if (text.length > enough) continue
        after = cursor
        if (event.type === "text-delta") text += event.text
      }
      if (text.length > enough) leave.abort()
    },
  })
  await reading.catch((error) => {
    if (!leave.signal.aborted) throw error
  })
  return { text, after }
}

const cases = {
  async resume() {
    const { id } = await client.start({ prompt: "scenario:slow?rate=200" })
    const first = await read(client, id, 20)
    let rest = ""
    await client.follow(id, {
      after: first.after,
      onEvents: (batch) => {
        for (const { event } of batch) if (event.type === "text-delta") rest += event.text
      },
    })
    return { before: first.text, text: first.text + rest, state: (await client.info(id)).state }
  },
  async stop() {
    const { id } = await client.start({ prompt: "scenario:stall" })
    const reading = read(client, id)
    await client.cancel(id)
    await reading
    return { state: (await client.info(id)).state }
  },
  async socket() {
    // A network that lets no event stream through.
    const without = (input, init) => {
      const stream = new Headers(init?.headers).get("accept")?.includes("text/event-stream")
      return stream ? Promise.reject(new TypeError("no event streams here")) : fetch(input, init)
    }
    const { id } = await client.start({ prompt: "scenario:slow?rate=200" })
    const blocked = new TokenwireClient({ baseUrl, shareTabs: false, fetch: without })
    return { ...(await read(blocked, id)), sockets }
  },
  async event_source() {
    const { id, events } = await client.start({ prompt: "scenario:slow?rate=200" })
    const source = new EventSource(new URL(events, baseUrl))
    let text = ""
    source.onmessage = ({ data }) => {
      const event = JSON.parse(data)
      if (event.type === "text-delta") text += event.text
    }
    // It asks again after the end, hears 204, and gives up.
    while (source.readyState !== 2) await new Promise((done) => setTimeout(done, 20))
    return { text, state: (await client.info(id)).state }
  },
}
console.log(JSON.stringify(await cases[wanted]()))
process.exit(0)
