// Reads the simulator with the official SDKs for Node; prints what they made of it.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [, , node, sdk, url] = process.argv;
const require = createRequire(pathToFileURL(node + "/"));
const OpenAI = require("openai").default ?? require("openai");
const Anthropic = require("@anthropic-ai/sdk").default ?? require("@anthropic-ai/sdk");

const openai = new OpenAI({ baseURL: url + "/v1", apiKey: "x", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "x", maxRetries: 0 });
const model = "demo";

const readers = {
  "openai-chat": async (prompt) => {
    const messages = [{ role: "user", content: prompt }];
    const runner = openai.chat.completions.stream({ model, messages });
    const { message } = (await runner.finalChatCompletion()).choices[0];
    const calls = (message.tool_calls ?? []).map((call) => call.function);
    return { text: message.content, calls: calls.map((f) => [f.name, JSON.parse(f.arguments)]) };
  },
  "openai-responses": async (prompt) => {
    const response = await openai.responses.stream({ model, input: prompt }).finalResponse();
    const calls = response.output.filter((item) => item.type === "function_call");
    return {
      text: response.output_text,
      calls: calls.map((call) => [call.name, JSON.parse(call.arguments)]),
    };
  },
  anthropic: async (prompt) => {
    const messages = [{ role: "user", content: prompt }];
    const runner = anthropic.messages.stream({ model, messages, max_tokens: 8000 });
    const { content } = await runner.finalMessage();
    const text = content.filter((block) => block.type === "text").map((block) => block.text);
    const calls = content.filter((block) => block.type === "tool_use");
    return { text: text.join(""), calls: calls.map((call) => [call.name, call.input]) };
  },
};

const { text } = await readers[sdk]("scenario:text");
const { calls } = await readers[sdk]("scenario:tools");
console.log(JSON.stringify({ text, calls }));
