// Durable Streams clients against a server. usage: node durable.mjs URL CASE PROMPT
import { stream } from "@durable-streams/client"

const [url, wanted, prompt] = process.argv.slice(2)

async function start() {
  const made = await fetch(`${url}/v1/runs`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt }),
  })
  return (await made.json()).id
}

async function readAll(name, live) {
  const response = await stream({ url: `${url}/ds/v1/stream/runs/${name}`, offset: "-1", live })
  const items = []
  for await (const item of response.jsonStream()) items.push(item)
  return items
}

const cases = {
  async modes() {
    const run = await start()
    const sse = await readAll(run, "sse")
    const longPoll = await readAll(run, "long-poll")
    const caughtUp = await (await stream({ url: `${url}/ds/v1/stream/runs/${run}`, live: false })).json()
    const ui = await readAll(`${run}.ui`, "sse")
    const agui = await readAll(`${run}.agui`, "long-poll")
    return { run, sse, longPoll, caughtUp, ui, agui }
  },
  async live_long_poll() {
    return { items: await readAll(await start(), "long-poll") }
  },
}
console.log(JSON.stringify(await cases[wanted]()))
process.exit(0)
