/* Reading a run over the server's WebSocket: for when event streams do not get through, or the
browser's connections to this host are used up. */

import { TokenwireError } from "./errors.js";
import type { Connect } from "./reader.js";

export function webSocketWay(baseUrl: string, run: string): Connect {
  return ({ after, signal, alive, take, flush }) =>
    new Promise((resolve, reject) => {
      const origin = baseUrl || globalThis.location?.origin;
      if (!origin || typeof WebSocket !== "function") {
        reject(new TokenwireError("no_websocket", "no WebSocket here", 0, true));
        return;
      }
      const socket = new WebSocket(`${origin.replace(/^http/, "ws")}/ws`);
      const stop = () => socket.close();
      signal.addEventListener("abort", stop);
      let failed: TokenwireError | undefined;
      socket.onopen = () => {
        socket.send(JSON.stringify({ type: "follow", run, ...(after ? { after } : {}) }));
      };
      socket.onmessage = ({ data }) => {
        alive();
        const told = JSON.parse(String(data)) as Record<string, unknown>;
        if (told.type === "events") {
          for (const [cursor, event] of told.events as [string, unknown][]) {
            take(cursor, JSON.stringify(event));
          }
          flush();
        } else if (told.type === "error") {
          failed = new TokenwireError(
            String(told.code),
            String(told.message),
            Number(told.status ?? 0),
          );
          socket.close();
        } else if (told.type === "end") socket.close();
      };
      socket.onclose = () => {
        signal.removeEventListener("abort", stop);
        if (failed) reject(failed);
        else resolve();
      };
      if (signal.aborted) stop();
    });
}
