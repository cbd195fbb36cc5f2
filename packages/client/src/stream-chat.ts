/* The one-liner: ask, and get the answer piece by piece.

Always true: the promise resolves with the whole answer only when the server said `done`; any
other end (an error event, a cut connection, an abort) rejects; each piece is told once. */

import { errorIn, errorOf, needServer, TokenwireError } from "./core/errors.js";
import { SSEParser } from "./core/sse.js";

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
  needServer(options);
  const query = new URLSearchParams({ prompt });
  if (options.model) query.set("model", options.model);
  const url = `${(options.baseUrl ?? "").replace(/\/+$/, "")}/chat/stream?${query}`;
  const signal = options.signal ?? null;
  const headers = { accept: "text/event-stream" };
  const response = await (options.fetch ?? fetch)(url, { headers, signal, redirect: "error" });
  if (!response.ok) throw await errorOf(response);
  if (response.status === 204 || !response.body) {
    throw new TokenwireError("no_stream", "the server had no answer to stream", response.status);
  }
  const reader = response.body.getReader();
  const parser = new SSEParser();
  let answer = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new TokenwireError("truncated", "the answer was cut off", 0, true);
      for (const { event, data } of parser.feed(value)) {
        if (event === "token") {
          answer += data;
          onToken(data);
          // Not every fetch ends a read when its signal is aborted after the last byte came.
          signal?.throwIfAborted();
        } else if (event === "done") return answer;
        else if (event === "error") {
          throw errorIn(data, "error", data || "the server reported an error");
        }
      }
    }
  } finally {
    // Also ends the connection when `onToken` threw or the answer is complete.
    reader.cancel().catch(() => undefined);
  }
}
