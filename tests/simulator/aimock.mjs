// A mock of the providers written by others, for our decoders to read. Prints its address; ends
// when its standard input does.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.argv[2] + "/"));
const { LLMock } = require("@copilotkit/aimock");

const mock = new LLMock({ port: 0, chunkSize: 7, latency: 2, logLevel: "silent" });
mock.onMessage("text please", { content: "Grüße, 世界! 👩‍💻 A second sentence." });
mock.onMessage("think first", { content: "So 391.", reasoning: "17 times 23 is 391." });
mock.onMessage("call tools", {
  toolCalls: [
    { name: "get_weather", arguments: '{"city":"Paris"}' },
    { name: "clock", arguments: '{"timezone":"Asia/Tokyo"}' },
  ],
});
mock.onMessage("be cut", { content: "This is never whole. ".repeat(40) }, { truncateAfterChunks: 5 });
await mock.start();
console.log(mock.url);
process.stdin.resume();
process.stdin.on("end", async () => {
  await mock.stop();
  process.exit(0);
});
