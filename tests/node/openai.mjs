// The openai package against a server. usage: node openai.mjs URL CASE PROMPT
import OpenAI from "openai"

const [url, wanted, prompt] = process.argv.slice(2)
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 })
const model = "demo"
const messages = [{ role: "user", content: prompt }]
const tools = [
  {
    type: "function",
    function: {
      name: "locate",
      description: "Where is it",
      parameters: { type: "object", properties: { thing: { type: "string" } }, required: ["thing"] },
    },
  },
]
const flat = tools.map((t) => ({ type: "function", ...t.function }))

async function attempt(make) {
  try {
    return { value: await make() }
  } catch (error) {
    return { error: { name: error.constructor.name, status: error.status, code: error.code, type: error.type, message: error.message } }
  }
}

const cases = {
  async chat() {
    const whole = await client.chat.completions.create({ model, messages })
    const stream = client.chat.completions.stream({ model, messages, stream_options: { include_usage: true } })
    const streamed = await stream.finalChatCompletion()
    return { whole, streamed }
  },
  async chat_tools() {
    const stream = client.chat.completions.stream({ model, messages, tools })
    const first = await stream.finalChatCompletion()
    const call = first.choices[0].message.tool_calls[0]
    const second = await client.chat.completions.create({
      model,
      tools,
      messages: [...messages, first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "in the garden" }],
    })
    return { first, second }
  },
  async chat_error() {
    return attempt(() => client.chat.completions.stream({ model, messages }).finalChatCompletion())
  },
  async bad() {
    return {
      model: await attempt(() => client.chat.completions.create({ model: "gpt-9", messages })),
      role: await attempt(() => client.chat.completions.create({ model, messages: [{ role: "robot", content: "x" }] })),
      n: await attempt(() => client.chat.completions.create({ model, messages, n: 2 })),
      unknown: await attempt(() => client.chat.completions.create({ model, messages, base_url: "http://x" })),
      response: await attempt(() => client.responses.retrieve("resp_nothing")),
    }
  },
  async models() {
    const listed = []
    for await (const { id } of client.models.list()) listed.push(id)
    const found = await Promise.all(listed.map(async (id) => (await client.models.retrieve(id)).id))
    const missing = await Promise.all(["gpt-9", "demo/", "a/b:c"].map((id) => attempt(() => client.models.retrieve(id))))
    return { listed, found, missing }
  },
  async responses() {
    const whole = await client.responses.create({ model, input: prompt })
    const stream = client.responses.stream({ model, input: prompt })
    const types = []
    for await (const event of stream) types.push(event.type)
    const streamed = await stream.finalResponse()
    const again = await client.responses.retrieve(streamed.id)
    return { whole, streamed, again, types, text: streamed.output_text }
  },
  async responses_tools() {
    const first = await client.responses.create({ model, input: prompt, tools: flat })
    const call = first.output.find((item) => item.type === "function_call")
    const second = await client.responses.create({
      model,
      tools: flat,
      previous_response_id: first.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: "in the garden" }],
    })
    return { first, second, text: second.output_text }
  },
  async background() {
    // A background response, left in the middle and read on from the last event seen.
    const stream = await client.responses.create({ model, input: prompt, background: true, stream: true })
    let text = ""
    let last = -1
    let id
    for await (const event of stream) {
      last = event.sequence_number
      id ??= event.response?.id
      if (event.type === "response.output_text.delta") text += event.delta
      if (text.length > 20) break
    }
    const before = text
    const numbers = []
    const rest = await client.responses.retrieve(id, { stream: true, starting_after: last })
    for await (const event of rest) {
      numbers.push(event.sequence_number)
      if (event.type === "response.output_text.delta") text += event.delta
    }
    const whole = await client.responses.retrieve(id)
    return { text, before, last, numbers, whole, output: whole.output[0].content[0].text }
  },
  async cancel() {
    const begun = await client.responses.create({ model, input: prompt, background: true })
    const cancelled = await client.responses.cancel(begun.id)
    return { begun, cancelled }
  },
}
console.log(JSON.stringify(await cases[wanted]()))
