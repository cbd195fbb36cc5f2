/* The one-liner: ask, and get the answer piece by piece.

Always true: the promise resolves with the whole answer only when the server said `done`; any
other end (an error event, a cut connection, an abort) rejects; each piece is told once. */

import { errorIn, TokenwireError } from "./core/errors.js";
import { request } from "./core/http.js";
import { SSEParser } from "./core/sse.js";
import { bytesOf } from "./core/wait.js";

export interface StreamChatOptions {
  /** Where the server is; the page's own origin unless told. */
  baseUrl?: string;
  signal?: AbortSignal;
  model?: string;
  fetch?: typeof fetch;
}

/** Streams the answer to `prompt` from `GET /chat/stream`. */
export async function streamChat(
  prompt: string,
  onToken: (text: string) => void,
  options: StreamChatOptions = {},
): Promise<string> {
  const { model, signal = null } = options;
  const query = new URLSearchParams({ prompt, ...(model && { model }) });
  const headers = { accept: "text/event-stream" };
  const response = await request(options, `/chat/stream?${query}`, { headers, signal });
  if (response.status === 204 || !response.body) {
    throw new TokenwireError("no_stream", "the server had no answer to stream", response.status);
  }
  const parser = new SSEParser();
  let answer = "";
  for await (const bytes of bytesOf(response.body, signal)) {
    for (const { event, data } of parser.feed(bytes)) {
      if (event === "token") {
        answer += data;
        onToken(data);
        signal?.throwIfAborted();
      } else if (event === "done") return answer;
      else if (event === "error") {
        throw errorIn(data, "error", data || "the server reported an error");
      }
    }
  }
  signal?.throwIfAborted();
  throw new TokenwireError("truncated", "the answer was cut off", 0, true);
}
