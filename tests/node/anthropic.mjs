// The @anthropic-ai/sdk package against a server. usage: node anthropic.mjs URL CASE PROMPT
import Anthropic from "@anthropic-ai/sdk"

const [url, wanted, prompt] = process.argv.slice(2)
const model = "demo"
const ask = { model, max_tokens: 4000, messages: [{ role: "user", content: prompt }] }
const tools = [
  {
    name: "locate",
    description: "Where is it",
    input_schema: { type: "object", properties: { thing: { type: "string" } }, required: ["thing"] },
  },
]

function makeClient(more = {}) {
  return new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0, ...more })
}
const client = makeClient()

async function attempt(make) {
  try {
    return { value: await make() }
  } catch (error) {
    return {
      error: {
        name: error.constructor.name,
        status: error.status,
        type: error.type ?? error.error?.error?.type,
        body: error.error,
        request: error.requestID,
        message: error.message,
      },
    }
  }
}

// Read a message stream by its helper, noting what its listeners hear.
async function listen(stream) {
  const seen = []
  const heard = { text: "", thinking: "", json: "" }
  stream.on("text", (piece) => void (heard.text += piece))
  stream.on("thinking", (piece) => void (heard.thinking += piece))
  stream.on("inputJson", (piece) => void (heard.json += piece))
  stream.on("streamEvent", (event) => void seen.push(event.type))
  const message = await stream.finalMessage()
  return { message, heard, seen }
}

// A fetch whose answer breaks off after `bytes` bytes: "reset" as an error, "end" cleanly.
function cutting(bytes, how) {
  return async (input, init) => {
    const response = await fetch(input, init)
    let left = bytes
    const reader = response.body.getReader()
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read()
        if (done) return controller.close()
        if (value.length < left) {
          left -= value.length
          return controller.enqueue(value)
        }
        controller.enqueue(value.slice(0, left))
        await reader.cancel()
        if (how === "reset") controller.error(new TypeError("terminated"))
        else controller.close()
      },
    })
    return new Response(body, { status: response.status, headers: response.headers })
  }
}

const cases = {
  async stream() {
    return { whole: await client.messages.create(ask), ...(await listen(client.messages.stream(ask))) }
  },
  async raw() {
    // Without the helper: the events as they come.
    const events = []
    for await (const event of await client.messages.create({ ...ask, stream: true })) events.push(event)
    return { events }
  },
  async thinking() {
    const thinking = { type: "enabled", budget_tokens: 1024 }
    const first = await listen(client.messages.stream({ ...ask, thinking }))
    // The blocks go back as they came.
    const messages = [
      ...ask.messages,
      { role: "assistant", content: first.message.content },
      { role: "user", content: "And then?" },
    ]
    const second = await client.messages.create({ ...ask, thinking, messages })
    return { first, second }
  },
  async tools() {
    const first = await listen(client.messages.stream({ ...ask, tools }))
    const call = first.message.content.find((block) => block.type === "tool_use")
    const messages = [
      ...ask.messages,
      { role: "assistant", content: first.message.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "in the garden" }] },
    ]
    const second = await listen(client.messages.stream({ ...ask, tools, messages }))
    return { first, call, second }
  },
  async errors() {
    const bad = (more) => attempt(() => client.messages.create({ ...ask, ...more }))
    return {
      model: await bad({ model: "claude-99" }),
      role: await bad({ messages: [{ role: "robot", content: "x" }] }),
      tokens: await bad({ max_tokens: undefined }),
      unknown: await bad({ base_url: "http://x" }),
      many: await bad({ system: "x".repeat(300_000) }),
      stream: await attempt(() => client.messages.stream({ ...ask, model: "claude-99" }).finalMessage()),
    }
  },
  async key() {
    return { none: await attempt(() => client.messages.create(ask)) }
  },
  async broken() {
    const streamed = await attempt(() => client.messages.stream(ask).finalMessage())
    const whole = await attempt(() => client.messages.create(ask))
    return { streamed, whole }
  },
  async cut() {
    const told = {}
    for (const how of ["reset", "end"]) {
      const events = []
      const cutClient = makeClient({ fetch: cutting(1500, how) })
      const outcome = await attempt(async () => {
        for await (const event of await cutClient.messages.create({ ...ask, stream: true })) events.push(event)
      })
      const helper = await attempt(() => makeClient({ fetch: cutting(1500, how) }).messages.stream(ask).finalMessage())
      told[how] = { outcome, helper, last: events.at(-1)?.type, count: events.length }
    }
    return told
  },
  async resume() {
    // Cut in the middle; the same request with its key and the last id gives the rest.
    const headers = { "idempotency-key": `key-${process.pid}-${Date.now()}` }
    let id
    const watching = async (input, init) => {
      const response = await cutting(1500, "reset")(input, init)
      let told = ""
      const spy = new TransformStream({
        transform(bytes, controller) {
          told += new TextDecoder().decode(bytes)
          id = [...told.slice(0, told.lastIndexOf("\n\n") + 1).matchAll(/^id: (.*)$/gm)].at(-1)?.[1]
          controller.enqueue(bytes)
        },
      })
      return new Response(response.body.pipeThrough(spy), { status: response.status, headers: response.headers })
    }
    let before = ""
    const stream = makeClient({ fetch: watching }).messages.stream(ask, { headers })
    stream.on("text", (piece) => void (before += piece))
    const failed = await attempt(() => stream.finalMessage())
    const rest = await listen(client.messages.stream(ask, { headers: { ...headers, "last-event-id": id } }))
    const whole = await client.messages.create(ask)
    return { failed, id, before, rest, whole }
  },
  async abort() {
    const stream = client.messages.stream(ask)
    stream.on("text", () => stream.abort())
    return { outcome: await attempt(() => stream.finalMessage()) }
  },
}
console.log(JSON.stringify(await cases[wanted]()))
process.exit(0)
