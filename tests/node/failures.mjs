// What the packages of OpenAI and Anthropic make of a provider's failures behind a server.
// usage: node failures.mjs URL MODEL RETRIES CASE...; each case goes over every wire, whole and streamed.
import Anthropic from "@anthropic-ai/sdk"
import OpenAI from "openai"

const [url, model, retries, ...cases] = process.argv.slice(2)
const maxRetries = Number(retries)
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries })
const anthropic = new Anthropic({ baseURL: url, apiKey: "unused", maxRetries })

async function read(stream) {
  const types = []
  for await (const event of stream) types.push(event.type ?? event.choices?.[0]?.finish_reason ?? "chunk")
  return types
}

async function attempt(ask) {
  try {
    return { value: await ask() }
  } catch (error) {
    const { status, code, headers } = error
    const retryAfter = headers?.get?.("retry-after") ?? null
    return { error: { name: error.constructor.name, status, code, retryAfter } }
  }
}

const wires = {
  chat: (content, stream) =>
    openai.chat.completions.create({ model, messages: [{ role: "user", content }], stream }),
  responses: (input, stream) => openai.responses.create({ model, input, stream }),
  messages: (content, stream) =>
    anthropic.messages.create({ model, max_tokens: 10, messages: [{ role: "user", content }], stream }),
}

const jobs = []
for (const name of cases) {
  for (const [wire, ask] of Object.entries(wires)) {
    for (const stream of [false, true]) {
      const id = `${wire}-${stream ? "stream" : "whole"}`
      const prompt = `case:${name}:${id}`
      const go = async () => (stream ? read(await ask(prompt, true)) : ask(prompt, false))
      jobs.push(attempt(go).then((outcome) => [`${name}:${id}`, outcome]))
    }
  }
}
console.log(JSON.stringify(Object.fromEntries(await Promise.all(jobs))))
