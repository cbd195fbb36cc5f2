// Clients that people have, as they are, ask one question each, all at once and behind a login.
// usage: node everyone.mjs URL COOKIE PROMPT; prints what each of them read, by its name.
import { HttpAgent } from "@ag-ui/client"
import Anthropic from "@anthropic-ai/sdk"
import { ChatClient, fetchServerSentEvents } from "@tanstack/ai-client"
import * as ai6 from "ai6"
import * as ai7 from "ai7"
import OpenAI from "openai"

const [url, cookie, prompt] = process.argv.slice(2)
const headers = { cookie }
const model = "demo"
const messages = [{ role: "user", content: prompt }]

async function useChat(ai, compat) {
  const state = {
    status: "ready",
    error: undefined,
    messages: [],
    pushMessage: (message) => void (state.messages = state.messages.concat(message)),
    popMessage: () => void (state.messages = state.messages.slice(0, -1)),
    replaceMessage: (at, message) => void (state.messages = state.messages.with(at, message)),
    snapshot: structuredClone,
  }
  const transport = new ai.DefaultChatTransport({ api: `${url}/api/chat`, body: { compat }, headers })
  class Chat extends ai.AbstractChat {}
  const chat = new Chat({ id: `chat-${compat}`, transport, state })
  await chat.sendMessage({ text: prompt })
  if (state.error) throw state.error
  return state.messages[1].parts.map((part) => part.text ?? "").join("")
}

async function agUi() {
  const agent = new HttpAgent({ url: `${url}/ag-ui`, threadId: "of-ag-ui", headers })
  agent.addMessage({ id: "u1", role: "user", content: prompt })
  await agent.runAgent()
  return agent.messages[1].content
}

async function tanstack() {
  const connection = fetchServerSentEvents(`${url}/ag-ui`, { headers })
  const client = new ChatClient({ threadId: "of-tanstack", connection })
  await client.sendMessage(prompt)
  if (client.getError()) throw client.getError()
  return client.getMessages()[1].parts.map((part) => part.content ?? "").join("")
}

async function openai() {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0, defaultHeaders: headers })
  let text = ""
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
    text += chunk.choices[0]?.delta.content ?? ""
  return text
}

async function anthropic() {
  const client = new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0, defaultHeaders: headers })
  return client.messages.stream({ model, max_tokens: 4000, messages }).finalText()
}

const everyone = { useChat6: useChat(ai6, "6"), useChat7: useChat(ai7, "7"), agUi: agUi(), tanstack: tanstack(), openai: openai(), anthropic: anthropic() }
const told = {}
for (const [name, reading] of Object.entries(everyone))
  told[name] = await reading.catch((error) => `${error.name}: ${error.message}`)
console.log(JSON.stringify(told))
process.exit(0)
