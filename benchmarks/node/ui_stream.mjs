// The server that the AI SDK's documentation ends with: a model's stream as UI messages.
// Run by `gateway_peers.py`: node ui_stream.mjs PORT http://127.0.0.1:9000/v1
import { createServer } from "node:http";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { convertToModelMessages, streamText } from "ai";

const [port, baseURL] = process.argv.slice(2);
const model = createOpenAICompatible({ name: "bench", baseURL, apiKey: "none" })("bench");

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const { messages } = JSON.parse(Buffer.concat(parts).toString());
  const left = new AbortController();
  response.on("close", () => left.abort());
  const result = streamText({
    model,
    messages: await convertToModelMessages(messages),
    abortSignal: left.signal,
    onError: () => {}, // a reader that went away
  });
  result.pipeUIMessageStreamToResponse(response);
});
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
