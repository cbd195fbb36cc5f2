// The official SDKs against a cassette. usage: node cassette.mjs OPENAI_URL ANTHROPIC_URL
// or: node cassette.mjs FILE, which @tokenwire/client/testing plays.
import { readFileSync } from "node:fs"
import Anthropic from "@anthropic-ai/sdk"
import OpenAI from "openai"

const [first, second] = process.argv.slice(2)
let player
if (second === undefined) {
  const { CassettePlayer } = await import("../../packages/client/dist/testing/index.js")
  player = new CassettePlayer(readFileSync(first, "utf8"), { faults: ["rate-limit@1:0", "split@1"] })
}
const urls = process.env.BASES ? JSON.parse(process.env.BASES) : [first, second]
const settings = (baseURL) => ({ baseURL, apiKey: "sk-proj-abcdefgh12345678", ...(player ? { fetch: player.fetch } : {}) })
const messages = [{ role: "user", content: "Hello" }]

const openai = new OpenAI(settings(urls[0]))
const chunks = []
for await (const chunk of await openai.chat.completions.create({ model: "m", messages, stream: true })) chunks.push(chunk)
const anthropic = new Anthropic(settings(urls[1]))
const final = await anthropic.messages.stream({ model: "m", max_tokens: 20, messages }).finalMessage()
player?.check()
console.log(JSON.stringify({ chunks, content: final.content, unused: player?.unused ?? [] }))
